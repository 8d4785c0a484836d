"""Runs one program and accounts for it: wall seconds, and the CPU seconds of it and of all it started."""

import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a program cost.

    Attributes:
        cpu: User and system seconds of the program, of everything it started, and of what those left behind.
        wall: Seconds from its start to its end.
    """

    cpu: float
    wall: float


def adopt_orphans() -> None:
    """Have Linux give this process what its descendants leave behind, so that it can be waited for and counted."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def run_measured(
    argv: Sequence[str], *, log: Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> Cost:
    """Run a program to its end and wait for all it left behind; call `adopt_orphans` once before.

    Args:
        argv: Program and arguments.
        log: File that its output is added to.
        cwd: Folder to run in.
        environment: Variables beside the inherited ones.

    Raises:
        SystemExit: If it fails, with the end of its output.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with log.open("ab") as output:
        done = subprocess.run(
            argv,
            check=False,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    wall = time.monotonic() - started
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise SystemExit(f"{' '.join(argv)} ended with code {done.returncode}:\n{tail}")
    return Cost(cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall=wall)


def in_turns(contenders: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    """Return each contender's costs, measured in turns so that a busy machine slows all of them alike."""
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            costs[name].append(contender())
    return costs


def medians(costs: Sequence[Cost]) -> Cost:
    """Return the median of the CPU and of the wall seconds."""
    return Cost(cpu=median(cost.cpu for cost in costs), wall=median(cost.wall for cost in costs))
