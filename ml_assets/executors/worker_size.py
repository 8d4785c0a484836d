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
    words = _read(cgroup / "cpu.max").split()
    if len(words) != 2:
        words = [_read(cgroup / "cpu" / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
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
    text = _read(cgroup / "memory.max").strip() or _read(cgroup / "memory" / "memory.limit_in_bytes").strip()
    limit = int(text) if text.isdigit() and int(text) < _NO_LIMIT else machine
    return min(limit, machine) // (1 << 20)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
