"""Carries out one month's runs as the engine does, and writes what each step and the engine itself cost.

Started by `bench_month --profile`; the child process of every step notes its own use before it ends.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ml_assets.cli import engine
from ml_assets.cli.backfill import find_pipeline
from ml_assets.cli.plan import Backfill
from ml_assets.cli.project import load_project
from ml_assets.executors import step_process

STARTED = time.perf_counter()
PIPELINE = "flights/arrival_delay"


@dataclass(frozen=True, kw_only=True)
class Use:
    """CPU and wall seconds, and pages that were copied or newly mapped."""

    cpu: float
    wall: float
    pages: float


def used() -> Use:
    """Return what this process has used so far, without its children."""
    found = resource.getrusage(resource.RUSAGE_SELF)
    return Use(cpu=found.ru_utime + found.ru_stime, wall=time.perf_counter() - STARTED, pages=found.ru_minflt)


def since(before: Use, now: Use) -> dict[str, float]:
    return {key: value - getattr(before, key) for key, value in asdict(now).items()}


def note_each_step(notes: Path) -> None:
    """Have every step's process write its use into a file of its own."""
    run_step = step_process._run_step

    def run_and_note(command: Any, connection: Any, parent_pid: int) -> None:
        started = time.perf_counter()
        run_step(command, connection, parent_pid)
        found = used()
        use = {"cpu": found.cpu, "wall": time.perf_counter() - started, "pages": found.pages}
        (notes / f"{time.time_ns()}_{os.getpid()}.json").write_text(json.dumps({command.step_key: use}))

    step_process._run_step = run_and_note


def main() -> None:
    """Write {part: use} as JSON."""
    month, report = sys.argv[1], Path(sys.argv[2])
    project = load_project()
    loaded = find_pipeline(project, PIPELINE)
    module = project.location(loaded.spec.team).module
    plan = Backfill(pipeline=loaded, module=module, first=month, last=month, launched_by="benchmark")
    runs = [*plan.data_runs(), *plan.model_runs(month), *plan.prediction_runs([month])]
    project.profile.initialise()
    parts: dict[str, dict[str, float]] = {}
    marks = [used()]
    parts["engine: imports, project, plan"] = since(Use(cpu=0, wall=0, pages=0), marks[0])

    def noted() -> Iterator[engine.PlannedRun]:
        for run in runs:
            marks[:] = [used()]
            yield run
            parts[f"engine: {run.title}, without steps"] = since(marks[0], used())

    with tempfile.TemporaryDirectory() as folder:
        note_each_step(Path(folder))
        engine.carry_out(noted(), project.root, sys.stderr)
        for note in sorted(Path(folder).iterdir()):
            parts |= {f"step {key.replace('__', '/')}": use for key, use in json.loads(note.read_text()).items()}
    report.write_text(json.dumps(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
