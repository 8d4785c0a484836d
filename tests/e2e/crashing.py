"""A small project under the real daemon whose programs are killed, and the record of who was killed when."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import dagster as dg

from resources.ledger.inbox import SqlInbox
from resources.run_worker import claims_of
from tests.e2e.arriving import NAME, PIPELINE, TEAM, ArrivingProject
from tests.e2e.programs import ML_ASSETS, processes_of, stopped, wait_for

T = TypeVar("T")
Victim = Literal["daemon", "code server", "warm process", "run", "watch"]
BACKOFF_SECONDS = 2
LONGEST_WORK_SECONDS = 0.6
"""A run at work is killed within this time; most runs of a few small files take longer."""
LOOK_SECONDS = 15
"""So long a victim is waited for."""
AT_WORK = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
POLICY = f"""
  inbox.backoff_seconds:
    value: {BACKOFF_SECONDS}
    reason: A killed run is tried again while somebody waits for it.
  inbox.attempts:
    value: 50
    reason: Runs are killed for no fault of their events, some of them many times.
  inbox.batch_partitions:
    value: 10
    reason: Many runs, so that many can be killed.
"""
FEATURES = '''"""Features of an order."""

import pandas as pd


def amount_root(amount: pd.Series) -> pd.Series:
    """Square root of the amount."""
    if (amount < 0).any():
        raise ValueError("the amount of an order is negative")
    return amount**0.5


def was_returned(returned: pd.Series) -> pd.Series:
    """The label."""
    return returned.astype("float64")
'''


@dataclass(frozen=True, kw_only=True)
class CrashProject(ArrivingProject):
    """The project, with a policy of short waits and a feature that fails on orders of a negative amount."""

    def found(self) -> None:
        """Write the project, and create its databases."""
        super().found()
        organization = self.root / "policies" / "organization.yaml"
        organization.write_text(organization.read_text(encoding="utf-8") + POLICY, encoding="utf-8")
        defs = self.root / "deployments" / TEAM / "defs" / NAME
        defs.joinpath("features.py").write_text(FEATURES, encoding="utf-8")
        pipeline = PIPELINE.replace("columns: [amount, region]", "columns: [amount_root, region]")
        defs.joinpath("defs.yaml").write_text(pipeline, encoding="utf-8")

    @cached_property
    def inbox(self) -> SqlInbox:
        """Return the project's inbox."""
        return SqlInbox(f"sqlite:///{self.state / 'ledger.db'}")

    def land_text(self, partition: str, text: str) -> None:
        """Let the file of a partition arrive, by one rename."""
        draft = self.file_of(partition).with_suffix(".csv.part")
        draft.write_text(text, encoding="utf-8")
        draft.rename(self.file_of(partition))

    def file_of(self, partition: str) -> Path:
        """Return where a partition's file lands."""
        region, _, day = partition.partition("|")
        return self.landing / f"{day}_{region}.csv"


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill.

    Attributes:
        at: When, in seconds since the epoch.
        victim: What was killed.
        pid: Its process id.
        run_id: The run that it carried out; empty for other victims.
    """

    at: float
    victim: Victim
    pid: int
    run_id: str = ""


@dataclass(kw_only=True)
class Programs:
    """The daemon and the watch of a project; each is killed and started anew.

    Attributes:
        project: The project.
        instance: Its Dagster instance.
        random: Decides when a run that is at work is killed.
        kills: What was killed, in order.
    """

    project: CrashProject
    instance: dg.DagsterInstance
    random: random.Random
    kills: list[Kill] = field(default_factory=list)
    _work_seconds: float = LONGEST_WORK_SECONDS
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def _commands(self) -> Mapping[str, Sequence[str]]:
        daemon = ("-m", "dagster._daemon", "run", "-w", str(self.project.workspace))
        return {"daemon": daemon, "watch": (str(ML_ASSETS), "inbox", "watch")}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run both for the block; at the end each is stopped by its own id."""
        try:
            for name in self._commands:
                self._start(name)
            yield
        finally:
            for process in self._running.values():
                process.terminate()
            for process in self._running.values():
                stopped(process)

    def kill(self, victim: Victim) -> bool:
        """Kill one of them, and say whether there was one; what nobody else starts again is started again at once."""
        if victim in self._running:
            process = self._running[victim]
            process.kill()
            process.wait(timeout=30)
            self.kills.append(Kill(at=time.time(), victim=victim, pid=process.pid))
            self._start(victim)
            return True
        if victim == "run":
            return self._kill_a_run()
        text = {"code server": "grpc", "warm process": "resources.fork_server"}[victim]
        pid = self._seen_soon(lambda: self._child_of_daemon(text))
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            self.kills.append(Kill(at=time.time(), victim=victim, pid=pid))
        return pid is not None

    def _kill_a_run(self) -> bool:
        """Kill the oldest run at work, at a random moment of its work; False when there is none, or it ended."""
        run_id = self._seen_soon(self._oldest_at_work)
        if run_id is None:
            return False
        time.sleep(self.random.uniform(0, self._work_seconds))
        pid = claims_of(self.instance).holder(run_id)
        if pid is None:
            self._work_seconds /= 2  # runs are quicker here; there are not enough files to be late each time
            return False
        os.kill(pid, signal.SIGKILL)
        self._work_seconds = LONGEST_WORK_SECONDS
        self.kills.append(Kill(at=time.time(), victim="run", pid=pid, run_id=run_id))
        wait_for("its end", lambda: claims_of(self.instance).holder(run_id) != pid, timeout_seconds=60)
        return True

    def _seen_soon(self, ask: Callable[[], T | None]) -> T | None:
        """Return what is there within some seconds, or None."""
        deadline = time.monotonic() + LOOK_SECONDS
        while (found := ask()) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def _oldest_at_work(self) -> str | None:
        """Return the oldest run that a living process carries out."""
        claims = claims_of(self.instance)
        begun = self.instance.get_runs(dg.RunsFilter(statuses=AT_WORK))
        return next((run.run_id for run in reversed(begun) if claims.holder(run.run_id) is not None), None)

    def _child_of_daemon(self, text: str) -> int | None:
        daemon = self._running["daemon"].pid
        found = [pid for pid, said in processes_of(self.project.state).items() if text in said]
        return next((pid for pid in sorted(found) if _parent_of(pid) == daemon), None)

    def _start(self, name: str) -> None:
        with (self.project.root / f"{name}.log").open("a") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, *self._commands[name]],
                cwd=self.project.root,
                env=self.project.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def at_rest(project: CrashProject, instance: dg.DagsterInstance, events: int) -> Callable[[], bool]:
    """Return what says whether so many events were received, and nothing is left to do for any of them."""

    def is_at_rest() -> bool:
        counts = project.inbox.counts().get((TEAM, NAME), {})
        over = counts.get("done", 0) + counts.get("dead", 0)
        return over == sum(counts.values()) == events and not unfinished(instance)

    return is_at_rest


def unfinished(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Return the runs that are not over."""
    return [run for run in instance.get_runs() if not run.is_finished]


def makers(instance: dg.DagsterInstance, stage: str) -> dict[str, set[str]]:
    """Return the runs that made each partition of a stage; a run of several partitions tells of each one twice."""
    found: dict[str, set[str]] = {}
    cursor, more = None, True
    while more:
        page = instance.fetch_materializations(dg.AssetKey([TEAM, NAME, stage]), limit=1000, cursor=cursor)
        for record in page.records:
            found.setdefault(str(record.partition_key), set()).add(record.run_id)
        cursor, more = page.cursor, page.has_more
    return found
