"""Who leads a study: one process at a time, for as long as it says so, or until it is known to be dead."""

import os
import socket
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

LEASE = timedelta(seconds=60)
"""How long a leader may be silent before another process of any machine takes the study over."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A process that leads a study.

    Attributes:
        lead_id: Drawn for each lead, so that a process that comes back is not taken for its successor.
        host: Machine and process namespace: within it a process id means one process.
        pid: Its process id there.
        began: When the process began, in the machine's clock ticks; tells it from a later one with the same id.
    """

    lead_id: str
    host: str
    pid: int
    began: str

    @classmethod
    def of_this_process(cls) -> "Holder":
        """Return this process as a new holder."""
        return cls(lead_id=uuid.uuid4().hex, host=_host(), pid=os.getpid(), began=_began(os.getpid()))

    @classmethod
    def of(cls, lease: dict[str, Any]) -> "Holder":
        """Return the holder of a stored lease."""
        return cls(lead_id=lease["lead_id"], host=lease["host"], pid=lease["pid"], began=lease["began"])

    def lease(self, now: datetime) -> dict[str, Any]:
        """Return what is stored while this holder leads."""
        return {**vars(self), "until": (now + LEASE).isoformat()}

    def is_dead(self) -> bool:
        """Return whether the process is known to have ended; False when it is of another machine."""
        return self.host == _host() and _began(self.pid) != self.began

    def __str__(self) -> str:
        """Return words for messages."""
        return f"process {self.pid} on {self.host.partition('/')[0]}"


def is_free(lease: dict[str, Any], now: datetime) -> bool:
    """Return whether a study with this lease may be taken over."""
    if datetime.fromisoformat(lease["until"]) <= now:
        return True
    return Holder.of(lease).is_dead()


def utc_now() -> datetime:
    """Return this machine's time."""
    return datetime.now(UTC)


def _host() -> str:
    parts = [socket.gethostname()]
    for file in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        path = Path(file)
        if path.exists():
            parts.append(str(path.readlink()) if path.is_symlink() else path.read_text(encoding="utf-8").strip())
    return "/".join(parts)


def _began(pid: int) -> str:
    """Return when a process began; empty when there is none, or it is a zombie."""
    if not Path("/proc/self/stat").exists():  # no such system: only the lease's end tells
        return ""
    try:
        # The command's name is in parentheses and may hold anything; what follows has fixed places.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]
