"""Runs of jobs that a test module builds by name, here or in a process of their own, and what their steps note."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

ROOT = Path(__file__).parents[2]

RunWorker = Callable[..., subprocess.Popen[bytes]]


def execute(module: str, instance: dg.DagsterInstance, name: str, *args: Any, **options: Any) -> dg.DagsterRun:
    """Run the job that the module's function makes of the arguments; options are those of `dg.execute_job`."""
    job = dg.build_reconstructable_job(module, name, args, {}, str(ROOT))
    with dg.execute_job(job, instance, **options) as result:
        return result.dagster_run


@contextmanager
def run_workers(module: str, home: Path) -> Iterator[RunWorker]:
    """Yield what starts `execute` with a name and arguments in a new process; all are gone behind the block."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *args: Any) -> subprocess.Popen[bytes]:
        code = (
            f"import dagster as dg\nfrom {__name__} import execute\n"
            f"with dg.DagsterInstance.from_config({str(home)!r}) as instance:\n"
            f"    execute({module!r}, instance, {name!r}, *{args!r})\n"
        )
        started.append(subprocess.Popen([sys.executable, "-c", code], cwd=ROOT))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()


def note(directory: str | Path, name: str, value: Any) -> None:
    """Append a value to the notes of this name; from any process."""
    with Path(directory, f"{name}.jsonl").open("a") as file:  # one short line: appends of several do not mix
        file.write(json.dumps(value) + "\n")


def noted(directory: str | Path, name: str) -> list[Any]:
    """Return the notes of this name, in the order they were made."""
    path = Path(directory, f"{name}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
