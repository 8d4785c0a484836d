"""Starts the engine process, shows its runs as progress bars, and returns how each ended."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ml_assets.cli.engine import PlannedRun, encode

BAR_WIDTH = 24


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a run ended.

    Attributes:
        title: As planned.
        run_id: Dagster's run.
        succeeded: Whether every step did.
        failures: Step → message.
    """

    title: str
    run_id: str
    succeeded: bool
    failures: dict[str, str] = field(default_factory=dict)


class Engine:
    """The engine process; runs are sent to it one at a time, so that a plan may depend on how the last one ended."""

    def __init__(self, root: Path, console: Console, log: Path) -> None:
        self._console = console
        self._log_path = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("ab")
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "ml_assets.cli.engine", str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=root,
        )
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=BAR_WIDTH),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._process.stdin is not None:
            self._process.stdin.close()
        if kind is not None:
            self._process.terminate()
        self._process.wait(timeout=60)
        self._log.close()

    def run_all(self, runs: Sequence[PlannedRun]) -> list[RunEnd]:
        """Carry out runs in order."""
        return [self.run(run) for run in runs]

    def run(self, planned: PlannedRun) -> RunEnd:
        """Carry out one run and return how it ended.

        Raises:
            click.ClickException: If the engine itself died.
        """
        assert self._process.stdin is not None  # noqa: S101 - opened as a pipe above
        assert self._process.stdout is not None  # noqa: S101
        task = self._progress.add_task(planned.title.ljust(30), total=len(planned.assets), note="")
        self._process.stdin.write(encode(planned) + "\n")
        self._process.stdin.flush()
        run_id = ""
        for line in self._process.stdout:
            event = json.loads(line)
            if event["kind"] == "run":
                run_id = event["run_id"]
            elif event["kind"] == "step" and not _is_worker(event["step"]):
                self._progress.advance(task)
            elif event["kind"] == "end":
                return self._ended(planned, task, run_id, event)
        raise click.ClickException(
            f"The engine stopped in the middle of {planned.title!r}; its last words are in {self._log_path}. "
            "Start the same command again: it goes on with what is not done."
        )

    def _ended(self, planned: PlannedRun, task: TaskID, run_id: str, event: dict) -> RunEnd:
        succeeded = event["status"] == "SUCCESS"
        stopped = ", ".join(sorted(_stage(step) for step in event["failures"])) or "its start"
        self._progress.update(task, note="[green]done" if succeeded else f"[yellow]stopped at {stopped}")
        self._progress.stop_task(task)
        return RunEnd(title=planned.title, run_id=run_id, succeeded=succeeded, failures=event["failures"])


def _is_worker(step: str) -> bool:
    """Return whether a step only helps with its asset, such as flights__arrival_delay__models__forest.worker_1."""
    return "." in step and step.rpartition(".")[2].startswith("worker_")


def _stage(step: str) -> str:
    """Return the stage of a step's key, such as models/forest of flights__arrival_delay__models__forest."""
    step = step.partition(".")[0]
    return "/".join(step.split("/")[2:] if "/" in step else step.split("__")[2:])
