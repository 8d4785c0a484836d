"""Serving registered models in real processes: what passes, what is found, and processes that misbehave."""

import json
import os
import shutil
import stat
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml_assets.interfaces import ModelVersion
from ml_assets.testing.model_registry import small_run, small_training_data
from ml_assets.testing.serving_check import (
    FAULTY_TYPE,
    GENEROUS,
    FaultyModel,
    ServingCheckSuite,
    evaluated,
    served_version,
)
from resources.model_registry import QUIET_ENVIRONMENT, MlflowRegistry
from resources.serving_check import CleanProcessServingCheck

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # MLflow on SQLAlchemy 2.1
]

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}


@pytest.fixture(scope="module", autouse=True)
def quiet_environment():
    with pytest.MonkeyPatch.context() as environment:
        for name, value in QUIET_ENVIRONMENT.items():
            environment.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowRegistry(f"sqlite:///{path}", str(path.parent)).initialise()
    return path


@pytest.fixture
def registry(tmp_path, empty_database) -> MlflowRegistry:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return MlflowRegistry(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "artifacts"))


@pytest.fixture
def check(tmp_path) -> CleanProcessServingCheck:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    return CleanProcessServingCheck(uri, str(tmp_path / "artifacts"), environment=ENVIRONMENT)


class TestCleanProcessServingCheck(ServingCheckSuite):
    @pytest.fixture
    def registry(self, registry) -> MlflowRegistry:
        return registry

    @pytest.fixture
    def check(self, check) -> CleanProcessServingCheck:
        return check


class TestStoredModels:
    def test_a_file_changed_after_it_was_registered_is_a_problem(self, registry, check, tmp_path):
        version = served_version(registry)
        rows, scores = evaluated(registry.load(version.model_uri))
        (file,) = tmp_path.rglob("model.skops")
        file.write_bytes(file.read_bytes() + b" ")

        report = check.check(version, rows, scores, task="binary", limits=GENEROUS)

        (problem,) = report.problems
        assert "changed after it was logged" in problem
        assert report.model_digest == registry.digest(version.model_uri)
        assert report.n_bytes == file.stat().st_size

    def test_rows_of_other_types_than_the_signature_are_a_problem(self, registry, check):
        rows, _ = evaluated(small_run().model)
        version = registry.register("m", registry.log_model(small_run()), tags={})  # its example was not prepared
        scores = evaluated(registry.load(version.model_uri))[1]
        report = check.check(version, rows.assign(extra=1.0), scores, task="binary", limits=GENEROUS)
        assert report.problems == (
            "The rows have the column 'extra', which the model's signature does not have.",
            "Column 'hour' is double in the rows and long in the model's signature.",
        )

    def test_scores_that_depend_on_the_other_rows_are_a_problem(self, registry, check):
        version = served_version(registry, fault="company")
        rows, scores = evaluated(FaultyModel("company").fit(*small_training_data()))
        report = check.check(version, rows, scores, task="binary", limits=GENEROUS, trusted_types=[FAULTY_TYPE])
        (problem,) = report.problems
        assert problem.startswith("Scores depend on which rows are scored together")


class TestMisbehaviour:
    """Processes that crash, hang or answer nonsense are problems in a report."""

    def checked(self, registry, check, fault):
        version = served_version(registry, fault=fault)
        rows, scores = evaluated(FaultyModel().fit(*small_training_data()))
        return check.check(version, rows, scores, task="binary", limits=GENEROUS, trusted_types=[FAULTY_TYPE])

    def test_an_error_in_the_model_is_told_with_the_step_and_the_last_lines(self, registry, check):
        report = self.checked(registry, check, "error")
        (problem,) = report.problems
        assert "ended with exit code 1 while scoring the input example; its last lines:" in problem
        assert "ValueError: this model has lost its weights" in problem
        assert report.n_bytes > 0

    def test_a_model_that_ends_the_process_is_told(self, registry, check):
        (problem,) = self.checked(registry, check, "exit").problems
        assert "ended with exit code 7 while scoring the input example; its last lines: none" in problem

    def test_a_model_that_hangs_is_killed(self, registry, check):
        (problem,) = self.checked(registry, replace(check, timeout_seconds=5), "hang").problems
        assert "did not end within 5 s and was killed while" in problem

    def test_what_a_model_prints_is_no_answer(self, registry, check):
        assert self.checked(registry, check, "prints").problems == ()


VERSION = ModelVersion(name="m", version="1", run_id="r", model_uri="models:/m/1")


def interpreter(folder: Path, script: str) -> str:
    """Return a program that is started in the place of Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


class TestProcess:
    """What is handed to the process, and other programs in its place."""

    URI = "http://someone:s%40cret-word@127.0.0.1:9/"

    def problems(self, folder: Path, script: str, **changes) -> tuple[str, ...]:
        check = CleanProcessServingCheck(
            self.URI, None, python=interpreter(folder, script), **{"environment": ENVIRONMENT, **changes}
        )
        rows, scores = evaluated(small_run().model)
        return check.check(VERSION, rows, scores, task="binary", limits=GENEROUS).problems

    @pytest.mark.parametrize("answer", ["hello", "5", "[]", '{"unknown": 1}', '{"scores": "all fine"}', r"\\377"])
    def test_nonsense_is_a_problem(self, tmp_path, answer):
        (problem,) = self.problems(tmp_path, f"printf '{answer}'; echo its excuse >&2")
        assert "answered something else than measurements" in problem
        assert problem.endswith("its last lines: its excuse")

    def test_a_timeout_tells_the_step_and_keeps_what_was_measured(self, tmp_path):
        said = '{"n_bytes": 2000000000}\\n{"step": "measuring the latency"}\\n'
        timeout, size = self.problems(tmp_path, f"printf '{said}'; sleep 60", timeout_seconds=2)
        assert "was killed while measuring the latency" in timeout
        assert size == "The model's file has 2,000,000,000 bytes; the limit is 1000 MB."

    def test_silence_is_a_problem(self, tmp_path):
        (problem,) = self.problems(tmp_path, "exit 0")
        assert "ended before it had measured everything while starting" in problem

    def test_a_killed_process_is_a_problem(self, tmp_path):
        (problem,) = self.problems(tmp_path, "kill -9 $$")
        assert "was ended by signal 9 (Killed) while starting" in problem

    def test_a_process_that_cannot_be_started_is_a_problem(self, tmp_path):
        check = CleanProcessServingCheck(self.URI, None, python=str(tmp_path / "none"))
        rows, scores = evaluated(small_run().model)
        (problem,) = check.check(VERSION, rows, scores, task="binary", limits=GENEROUS).problems
        assert "cannot be started" in problem

    def test_the_children_of_a_process_that_hangs_are_killed_too(self, tmp_path):
        script = f"sleep 600 & echo $! > {tmp_path}/child; wait"
        (problem,) = self.problems(tmp_path, script, timeout_seconds=2)
        assert "did not end within 2 s and was killed while starting" in problem
        state = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
        deadline = time.monotonic() + 30
        while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline, "the child still runs"
            time.sleep(0.05)

    def test_an_open_child_of_a_process_that_ended_is_not_waited_for(self, tmp_path):
        started = time.monotonic()
        (problem,) = self.problems(tmp_path, "sleep 60 & exit 3")
        assert "exit code 3" in problem
        assert time.monotonic() - started < 30

    def test_the_process_gets_little_of_the_environment(self, tmp_path):
        given = {
            "AWS_SECRET_ACCESS_KEY": "k",
            "MLFLOW_S3_ENDPOINT_URL": "http://minio",
            "MLFLOW_TRACKING_TOKEN": "t",
            "ML_ASSETS_LEDGER": "postgresql://…",
            "PGPASSWORD": "p",
            "OMP_NUM_THREADS": "8",
            "PYTHONPATH": "/elsewhere",
        }
        self.problems(tmp_path, f"env > {tmp_path}/seen", environment={**ENVIRONMENT, **given})
        seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
        assert set(seen) - {"PWD", "SHLVL", "_", "OLDPWD"} == {
            "AWS_SECRET_ACCESS_KEY", "HOME", "MLFLOW_S3_ENDPOINT_URL", "MLFLOW_TRACKING_TOKEN", "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS", "PATH", "PYTHONPATH", *QUIET_ENVIRONMENT,
        }  # fmt: skip
        assert seen["OMP_NUM_THREADS"] == "1"
        assert (Path(seen["PYTHONPATH"]) / "resources" / "serving_probe.py").exists()

    def test_rows_are_readable_by_their_owner_only_and_gone_afterwards(self, tmp_path):
        script = f"""
            echo "$@" > {tmp_path}/arguments
            cat > {tmp_path}/request
            stat -c %a $(grep -o '/[^"]*[.]arrow' {tmp_path}/request) > {tmp_path}/mode
        """
        self.problems(tmp_path, script)
        request = json.loads((tmp_path / "request").read_text())
        assert int((tmp_path / "mode").read_text(), 8) == stat.S_IRUSR | stat.S_IWUSR
        assert not Path(request["rows_file"]).exists()
        assert request["tracking_uri"] == self.URI
        assert (tmp_path / "arguments").read_text() == "-m resources.serving_probe\n"

    @pytest.mark.parametrize("shown", ["$uri", "s%40cret-word", "s@cret-word"])
    def test_a_password_is_never_shown(self, tmp_path, shown):
        script = f"uri='{self.URI}'; echo \"cannot reach {shown}\" >&2; exit 1"
        (problem,) = self.problems(tmp_path, script)
        assert "cannot reach" in problem
        assert "cret-word" not in problem
        assert "cret-word" not in repr(CleanProcessServingCheck(self.URI, None))

    def test_a_server_that_does_not_answer_is_a_problem_without_its_password(self, tmp_path):
        script = f'MLFLOW_HTTP_REQUEST_MAX_RETRIES=0 exec {sys.executable} "$@"'
        (problem,) = self.problems(tmp_path, script)
        assert "could not load models:/m/1" in problem
        assert "127.0.0.1" in problem
        assert "cret-word" not in problem


def test_a_check_takes_rows_of_every_type(registry, check):
    version = served_version(registry)
    rows, _ = evaluated(small_run().model)
    rows = rows.astype({"carrier": "category", "hour": "int16"})
    rows.loc[0, "distance"] = np.nan
    scores = evaluated(registry.load(version.model_uri))[1]
    scores[0] = registry.load(version.model_uri).predict_proba(rows.head(1).astype({"carrier": object}))[0, 1]
    report = check.check(version, rows, scores, task="binary", limits=GENEROUS)
    assert report.problems == ()
