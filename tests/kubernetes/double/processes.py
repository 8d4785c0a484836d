"""Processes of containers: started with a mark in their environment, measured, and ended with all they started.

A container's processes are its main process, whatever descends from it, and whatever else carries its mark: a child
that made a session of its own and lost its parent is found too. Linux only: it reads /proc.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "DOUBLE_CONTAINER"
"""Environment variable of every process: kubelet, pod's uid, container's name, with slashes between."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a set of processes uses: resident bytes (shared pages counted for each), CPU seconds so far."""

    pids: tuple[int, ...]
    resident: int
    cpu: float


@dataclass(frozen=True, kw_only=True)
class _Process:
    parent: int
    session: int
    cpu: float


def table() -> dict[int, _Process]:
    """Return all processes of the machine by pid."""
    found = {}
    for pid in _pids():
        with suppress(OSError, IndexError, ValueError):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            cpu = sum(map(int, fields[11:15])) / _TICKS
            found[pid] = _Process(parent=int(fields[1]), session=int(fields[3]), cpu=cpu)
    return found


def usage(main: int, processes: dict[int, _Process]) -> Usage:
    """Return what the session of a main process and its descendants use, given the `table`."""
    members = {pid for pid, process in processes.items() if pid == main or process.session == main}
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    unseen = list(members)
    while unseen:
        for child in children.get(unseen.pop(), ()):
            if child not in members:
                members.add(child)
                unseen.append(child)
    resident = 0
    for pid in members:
        with suppress(OSError, IndexError, ValueError):
            resident += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return Usage(pids=tuple(members), resident=resident, cpu=sum(processes[p].cpu for p in members if p in processes))


def proportional(pids: tuple[int, ...]) -> int:
    """Return the bytes of memory that the processes use together: a page that n processes share counts 1/n in each."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def marked(prefix: str) -> list[int]:
    """Return the pids whose mark begins with `prefix`."""
    wanted = f"{MARK}={prefix}".encode()
    found = []
    for pid in _pids():
        with suppress(OSError):
            if any(entry.startswith(wanted) for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")):
                found.append(pid)
    return found


def kill_marked(prefix: str) -> None:
    """Kill all that carry the mark, and what they start meanwhile."""
    for _ in range(20):
        left = [pid for pid in marked(prefix) if pid != os.getpid()]
        if not left:
            return
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Guard:
    """A shell that waits for this process to end, however it does, and then kills all containers of a kubelet.

    It holds the read end of a pipe whose write end is here; a process that is killed closes that too.
    """

    _SCRIPT = """
    read -r _
    for environ in /proc/[0-9]*/environ; do
        if grep -qza "^$1" "$environ" 2>/dev/null; then
            pid=${environ#/proc/}
            kill -KILL "${pid%/environ}" 2>/dev/null
        fi
    done
    """

    def __init__(self, prefix: str) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", self._SCRIPT, "guard", f"{MARK}={prefix}"],  # noqa: S607
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath)},
        )

    def close(self) -> None:
        """Let it look for what is left once more, and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())
