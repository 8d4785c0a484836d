"""Processes that the kernel ended for lack of memory: how many, and what a person reads of a step that was one."""

import time
from pathlib import Path

from ml_assets.executors.pods import StepDemand, WorkerSize
from ml_assets.executors.worker_size import is_held_to_memory, read_text

_FORGET_SECONDS = 30.0
"""A process with much memory may take seconds to end after the kernel has counted it."""
_COUNTS = ("memory.events", "memory/memory.oom_control")
"""Where versions 2 and 1 of control groups count, below the group's folder."""


class MemoryKills:
    """The kernel's count of processes that it ended for lack of memory, from now on.

    Counted are those of this process's container if that is held to a limit, and else those of the machine. So kills of
    other programs count too: each explains no end that comes much later (`forget`).

    Args:
        cgroup: Where the control group of this process is seen, as inside of a container.
        machine: Where the machine counts.
    """

    def __init__(self, cgroup: Path = Path("/sys/fs/cgroup"), machine: Path = Path("/proc/vmstat")) -> None:
        counts = [cgroup / name for name in _COUNTS if is_held_to_memory(cgroup)]
        self._files = [path for path in counts if _count(path) is not None] or [machine]
        self._explained = self._last = self._now()
        self._next_look = time.monotonic() + _FORGET_SECONDS

    def forget(self) -> None:
        """Leave out kills that were counted 30 to 60 s ago; call it all the time, which costs next to nothing."""
        now = time.monotonic()
        if now >= self._next_look:
            self._explained = max(self._explained, self._last)
            self._last, self._next_look = self._now(), now + _FORGET_SECONDS

    def claim(self) -> bool:
        """Return whether there was one that explains the end of one process by SIGKILL; it explains no other then."""
        if self._now() <= self._explained:
            return False
        self._explained += 1
        return True

    def _now(self) -> int:
        return sum(_count(path) or 0 for path in self._files)


def _count(path: Path) -> int | None:
    found = (line.split() for line in read_text(path).splitlines())
    return next((int(words[1]) for words in found if len(words) == 2 and words[0] == "oom_kill"), None)


def started_again(step_key: str, demand: StepDemand, memory_mib: int, share_mib: int | None) -> str:
    """Return what is said of a forked step that starts again with more memory.

    Args:
        step_key: The step.
        demand: What it asked for.
        memory_mib: What it asks for now.
        share_mib: What it gets of its run's worker; None when it gets a pod.
    """
    less = share_mib is not None and share_mib < memory_mib
    here = f" The worker has {share_mib} MiB: it gets all of that." if less else ""
    return (
        f"The process of step {step_key} was ended by the kernel for lack of memory; {_asked(demand)}. It starts again "
        f"with {memory_mib} MiB, the next size that its compute profile allows, and uses up no retry.{here} Give the "
        "step that much from the beginning if this happens often."
    )


def killed(step_key: str, demand: StepDemand, worker: WorkerSize, *, for_memory: bool) -> str:
    """Return what is said of a step whose process was ended by SIGKILL, and that gets no more memory.

    Args:
        step_key: The step.
        demand: What it asked for.
        worker: What forked steps share.
        for_memory: Whether the kernel said that it was for lack of memory.
    """
    cause = "The kernel ended it for lack of memory" if for_memory else "That is most often for lack of memory"
    there = "" if worker.memory_mib is None else f" The forked steps of this run share {worker.memory_mib} MiB."
    return (
        f"The process of step {step_key} was terminated by signal 9 (SIGKILL). {cause}; {_asked(demand)}.{there} "
        "Expected a step that uses no more than it asks for: raise `memory_gib` of its `compute`, so that fewer steps "
        "run beside it and it gets a pod where there is a cluster and the worker has less, or have it use less. If "
        "other programs need the worker's memory, lower ML_ASSETS_MEMORY_MIB."
    )


def _asked(demand: StepDemand) -> str:
    return "it asks for no memory" if demand.memory_mib is None else f"it asks for {demand.memory_mib} MiB"
