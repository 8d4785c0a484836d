"""Which process of this machine carries a run out, and whether it is still there."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dagster import DagsterEventType, DagsterInstance, DagsterRun, TextMetadataValue

from ml_assets.cli.engine import RUN_PROCESS_TAG

_CLOCK_TOLERANCE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class RunProcess:
    """The process that carries a run out.

    Attributes:
        pid: Its id on this machine.
        seen_at: When it was known to be alive, in seconds since the epoch; a process with this id that began
            later is another one.
    """

    pid: int
    seen_at: float

    def lives(self) -> bool:
        """Return whether the process is still there, and not another one that got its id."""
        if not Path("/proc/stat").is_file():
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
            except PermissionError:
                return True
            return True
        try:
            # The command's name is in parentheses and may hold anything; what follows has fixed places.
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return False
        state, started_ticks = fields[0], int(fields[19])
        return state != "Z" and _boot_time() + started_ticks / os.sysconf("SC_CLK_TCK") <= (
            self.seen_at + _CLOCK_TOLERANCE_SECONDS
        )


def process_of(instance: DagsterInstance, run: DagsterRun, created_at: float) -> RunProcess | None:
    """Return the process that carries a run out, or None when none on this machine is known.

    Args:
        instance: The instance that knows the run.
        run: The run.
        created_at: When the run was recorded, in seconds since the epoch.
    """
    if RUN_PROCESS_TAG in run.tags and run.parent_run_id is None:  # a run executed again has its parent's tags
        host, _, pid = run.tags[RUN_PROCESS_TAG].rpartition(":")
        return RunProcess(pid=int(pid), seen_at=created_at) if host == socket.gethostname() else None
    return max(_told_by_events(instance, run.run_id), key=lambda process: process.seen_at, default=None)


def _told_by_events(instance: DagsterInstance, run_id: str) -> Iterator[RunProcess]:
    """Yield the run's processes that its engine events name; steps' own have a step key."""
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        pid = None if event is None else event.engine_event_data.metadata.get("pid")
        if event is not None and event.step_key is None and isinstance(pid, TextMetadataValue) and pid.text:
            yield RunProcess(pid=int(pid.text), seen_at=entry.timestamp)


def _boot_time() -> float:
    lines = Path("/proc/stat").read_text(encoding="utf-8").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))
