"""What this process may use: the machine's cores and memory, or what its container is held to."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60
"""Version 1 of control groups writes a huge number where there is no limit."""


def available_cores(cgroup: Path = _CGROUP) -> int:
    """Return the cores that this process may run on, at least 1.

    Args:
        cgroup: Where the control group of this process is seen, as inside of a container.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    words = read_text(cgroup / "cpu.max").split()
    if len(words) != 2:
        words = [read_text(cgroup / "cpu" / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    if not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return cores
    return max(1, min(cores, round(int(words[0]) / int(words[1]))))


def available_memory_mib(cgroup: Path = _CGROUP) -> int | None:
    """Return the memory in MiB that this process may use: its container's limit, or else the machine's memory.

    Args:
        cgroup: Where the control group of this process is seen, as inside of a container.
    """
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    limit = _memory_limit(cgroup)
    return (machine if limit is None else min(limit, machine)) // (1 << 20)


def is_held_to_memory(cgroup: Path = _CGROUP) -> bool:
    """Return whether the control group holds its processes to some memory."""
    return _memory_limit(cgroup) is not None


def _memory_limit(cgroup: Path) -> int | None:
    """Return the limit in bytes; None without."""
    text = read_text(cgroup / "memory.max").strip() or read_text(cgroup / "memory" / "memory.limit_in_bytes").strip()
    return int(text) if text.isdigit() and int(text) < _NO_LIMIT else None


def read_text(path: Path) -> str:
    """Return what stands in a file of the kernel; nothing where there is no such file."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
