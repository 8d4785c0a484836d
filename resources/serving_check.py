"""CleanProcessServingCheck: serves a registered model in a new process that is given the registry's address alone."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ml_assets.interfaces import ModelVersion, ServingLimits, ServingReport
from resources.mlflow_connection import without_password
from resources.model_registry import QUIET_ENVIRONMENT
from resources.serving_judgement import Expected, Measurement, Scores, judge
from resources.serving_probe import FINISHED

if TYPE_CHECKING:
    import pandas as pd

PROJECT_ROOT = Path(__file__).resolve().parent.parent
SHOWN_LINES, SHOWN_CHARACTERS = 5, 800

_INHERITED = ("HOME", "LANG", "PATH", "TMPDIR")
_INHERITED_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "MLFLOW_S3_", "MLFLOW_TRACKING_")
"""Where MLflow and the clients of artifact stores look for credentials and addresses."""

_SCORES = ("example_scores", "scores", "reversed_scores", "half_scores")


@dataclass(frozen=True)
class CleanProcessServingCheck:
    """A `ServingCheck` whose process has nothing of this one: no model, no open connection, no imported module.

    The process is killed with its children when it takes too long. A process that crashes, hangs or answers
    nonsense is a problem in the report, with the last lines it wrote. One thread is used. No password is on a
    command line, in a file that has a name, in a message or in the representation.

    Attributes:
        tracking_uri: MLflow's address, as `MlflowRegistry` takes it; may hold a password.
        artifact_root: MLflow's artifact root, as `MlflowRegistry` takes it.
        environment: Variables to choose from: of them the search path, home folder, language and temporary
            folder are passed on, and those with which MLflow, S3, Azure and Google find credentials.
        python: The interpreter to start.
        timeout_seconds: Longest wall time of one check.
        project_root: Folder that holds `resources` and the teams' code.
    """

    tracking_uri: str = field(repr=False)
    artifact_root: str | None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False, kw_only=True)
    python: str = field(default=sys.executable, kw_only=True)
    timeout_seconds: float = field(default=120.0, kw_only=True)
    project_root: Path = field(default=PROJECT_ROOT, kw_only=True)

    def check(
        self,
        version: ModelVersion,
        rows: "pd.DataFrame",
        expected: Scores,
        *,
        task: str,
        limits: ServingLimits,
        trusted_types: Sequence[str] = (),
    ) -> ServingReport:
        """Load the version from the registry alone, score its input example and the rows, and compare.

        Args:
            version: What to serve.
            rows: Feature columns as the evaluation scored them, shape (n_rows, n_features).
            expected: Evaluated scores of `rows`, shape (n_rows,) or (n_rows, n_classes).
            task: "binary", "multiclass" or "regression".
            limits: What it may take; the tolerance of scores also holds for scoring the rows in another order.
            trusted_types: Types it may hold beside the library's own list.

        Returns:
            The report; whatever goes wrong in the process is a problem in it.
        """
        if not len(rows):
            return ServingReport(problems=("There are no rows to score; expected some that were evaluated.",))
        request = {
            "tracking_uri": self.tracking_uri,
            "artifact_root": self.artifact_root,
            "model_uri": version.model_uri,
            "task": task,
            "trusted_types": list(trusted_types),
            "alarm_seconds": math.ceil(self.timeout_seconds) + 10,
        }
        with tempfile.NamedTemporaryFile(suffix=".arrow") as file:  # readable by its owner only
            _write_rows(rows, file)
            measured = self._ask({**request, "rows_file": file.name})
        measured = replace(measured, problems=tuple(map(self._without_passwords, measured.problems)))
        scores = np.asarray(expected, dtype=np.float64)
        return judge(measured, Expected(rows=rows, scores=scores, task=task, limits=limits))

    def _ask(self, request: Mapping[str, Any]) -> Measurement:
        """Start the process and return what it measured, with a problem when it did not end as it should."""
        # Files without a name instead of pipes: nobody waits for a child of the process that keeps one open.
        with (
            tempfile.TemporaryFile() as question,
            tempfile.TemporaryFile() as answer,
            tempfile.TemporaryFile() as errors,
        ):
            question.write(json.dumps(request).encode())
            question.seek(0)
            try:
                ending = self._run(question, answer, errors)
            except OSError as error:
                return Measurement(problems=(f"The serving process cannot be started: {error}.",))
            answer.seek(0)
            errors.seek(0)
            return understand(answer.read(), ending, errors.read())

    def _run(self, question: IO[bytes], answer: IO[bytes], errors: IO[bytes]) -> str:
        """Return how the process ended, empty when it did so by itself and without an error."""
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module; a version's name is data on its input
            [self.python, "-m", "resources.serving_probe"],
            cwd=self.project_root,
            env=self._child_environment(),
            stdin=question,
            stdout=answer,
            stderr=errors,
            start_new_session=True,
        )
        try:
            code = process.wait(self.timeout_seconds)
        except subprocess.TimeoutExpired:
            return f"did not end within {self.timeout_seconds:g} s and was killed"
        finally:
            # Also when this process is interrupted. It is not reaped yet, so that its number is still its own.
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code < 0:
            return f"was ended by signal {-code} ({signal.strsignal(-code)})"
        return f"ended with exit code {code}" if code else ""

    def _child_environment(self) -> dict[str, str]:
        passed = {
            name: value
            for name, value in self.environment.items()
            if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
        }
        return {
            **passed,
            **QUIET_ENVIRONMENT,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": str(self.project_root),
        }

    def _without_passwords(self, text: str) -> str:
        return without_password(without_password(text, of=self.tracking_uri), of=self.artifact_root)


def understand(answer: bytes, ending: str, errors: bytes) -> Measurement:
    """Return what a process said, line by line, with a problem when it did not say everything.

    Args:
        answer: Its standard output.
        ending: How it ended, such as "ended with exit code 1"; empty when it did so without an error.
        errors: Its standard error.
    """
    facts: dict[str, Any] = {}
    problems: list[str] = []
    try:
        for line in answer.splitlines():
            said = {**json.loads(line)}
            problems += [said.pop("problem")] if "problem" in said else []
            facts |= said
        step = facts.pop("step", "starting")
        facts |= {name: np.asarray(facts[name], dtype=np.float64) for name in _SCORES if name in facts}
        measured = Measurement(**facts)
    except (ValueError, TypeError, AttributeError):
        step, measured = "answering", Measurement()
        ending = ending or f"answered something else than measurements ({_shortened(answer)!r})"
    if step != FINISHED:
        lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
        shown = _shortened("\n".join(lines[-SHOWN_LINES:]).encode()) if lines else "none"
        ending = ending or "ended before it had measured everything"
        problems.append(f"The serving process {ending} while {step}; its last lines: {shown}")
    return replace(measured, problems=tuple(problems))


def _shortened(text: bytes) -> str:
    shown = text.decode(errors="replace").strip()
    return shown if len(shown) <= SHOWN_CHARACTERS else f"…{shown[-SHOWN_CHARACTERS:]}"


def _write_rows(rows: "pd.DataFrame", file: IO[bytes]) -> None:
    """Write the rows in Arrow's file format, which keeps their types."""
    import pyarrow as pa

    table = pa.Table.from_pandas(rows, preserve_index=False)
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    file.flush()
