"""A search whose work is counted: trials of ten parts each, led by processes that tests kill."""

import hashlib
import multiprocessing
import os
import random
import signal
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_assets.interfaces import CheckpointStore, Studies, StudyPlan, Trial, TrialResult
from ml_assets.search.evaluating import Search
from ml_assets.search.leading import run_search
from ml_assets.search.processes import Progress
from ml_assets.search.watching import Watch, WatchedRounds
from ml_assets.testing.studies_suite import objective, small_plan
from resources.checkpoints import CheckpointFolder
from resources.studies import SqlStudies

FORK = multiprocessing.get_context("fork")
PARTS = 10
TIME_LIMIT_SECONDS = 500


@dataclass(frozen=True)
class WorkLog:
    """Notes of work that processes have done, and how many there may be until the test lets them go on.

    A process that is to be killed waits for it where it is, however late the kill comes.

    Args:
        folder: Where the notes lie.
    """

    folder: Path

    def note(self, text: str) -> None:
        """Append a line in one write."""
        note = os.open(self.folder / "work", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(note, f"{text}\n".encode())
        os.close(note)

    def lines(self) -> list[str]:
        """Return all notes."""
        file = self.folder / "work"
        return file.read_text().splitlines() if file.exists() else []

    def hold_at(self, count: int | None) -> None:
        """Have whoever is about to do more wait once there are so many notes; None lets all go on."""
        draft = self.folder / "limit.part"
        draft.write_text("" if count is None else str(count))
        draft.replace(self.folder / "limit")

    def pass_on(self) -> None:
        """Wait for as long as there may be no more notes."""
        file = self.folder / "limit"
        while file.exists() and (limit := file.read_text()) and len(self.lines()) >= int(limit):
            time.sleep(0.005)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Evaluates trials part by part, each noted in a file and saved in a checkpoint.

    Attributes:
        folder: Where the notes and checkpoints lie.
        studies: Prunes.
        plan: The study.
        seconds: Of one part; with `delays` up to so many, by chance.
        delays: Whether every process is as fast as it likes.
    """

    folder: Path
    studies: Studies
    plan: StudyPlan
    seconds: float = 0.01
    delays: bool = False

    def __call__(self, trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        """Evaluate a trial from its checkpoint on."""
        checkpoints: CheckpointStore = CheckpointFolder(str(self.folder / "data"))
        watch = Watch(None if self.plan.pruner == "none" else self.studies.pruning(self.plan, trial, known))
        rounds = WatchedRounds(checkpoints.open(f"shop/returns/trial/{trial.number}"), watch)
        found = rounds.load()
        value = objective(dict(trial.params))
        for part in range(1 if found is None else found[0] + 1, PARTS + 1):
            self._work(trial.number, part)
            if rounds.report(part, value * (1 + 1 / part)) and part < PARTS:
                return watch.result("pruned", watch.last)
            rounds.save(part, {"state": b"half a model"})
        rounds.clear()
        return watch.result("completed", value)

    def _work(self, number: int, part: int) -> None:
        log = WorkLog(self.folder)
        log.pass_on()
        time.sleep(random.SystemRandom().uniform(0, self.seconds) if self.delays else self.seconds)
        log.note(f"{number} {part}")


def parts_done(folder: Path) -> list[str]:
    """Return a line for every part of a trial that was worked on, also again."""
    return WorkLog(folder).lines()


def _lead_and_tell(url: str, folder: Path, plan: StudyPlan, trials: int, *, slots: int) -> None:
    """Lead the study in a process of its own, and leave behind why it failed."""
    try:
        lead(url, folder, plan, trials, slots=slots)
    except BaseException:
        (folder / "failure").write_text(traceback.format_exc(), encoding="utf-8")
        raise


def lead(url: str, folder: Path, plan: StudyPlan, trials: int, *, slots: int = 1, **work: Any) -> None:
    """Lead the study to its end."""
    studies = SqlStudies(url)
    evaluate = Work(folder=folder, studies=studies, plan=plan, **work)
    search = Search(plan=plan, trials=trials, slots=slots, threads=1, time_limit=None, evaluate=evaluate)
    with studies.lead(plan) as study:
        run_search(studies, study, search)


def shown(url: str, plan: StudyPlan) -> list[tuple[Any, ...]]:
    """Return what must not depend on crashes and speed: number, parameters, state, value, reports and marks."""
    with SqlStudies(url).lead(plan) as study:
        trials = study.trials()
    results = [(t, t.result) for t in trials if t.result is not None]
    assert len(results) == len(trials)
    return [(t.number, dict(t.params), t.state, r.value, dict(r.reports), dict(r.marks)) for t, r in results]


def interrupted(
    url: str, folder: Path, plan: StudyPlan, trials: int, *, kills: Sequence[tuple[int, str]], slots: int = 1
) -> int:
    """Lead a study to its end in processes of which some are killed; return how many were.

    Args:
        url: Of the ledger.
        folder: Of the work.
        plan: The study.
        trials: How many.
        kills: (parts worked on before, "leader" or "worker"), in order; nobody works on more parts before the kill.
        slots: Processes at once.
    """
    killed = 0
    pending = list(kills)
    log = WorkLog(folder)
    log.hold_at(pending[0][0] if pending else None)
    deadline = time.monotonic() + TIME_LIMIT_SECONDS
    while True:
        leader = FORK.Process(target=_lead_and_tell, args=(url, folder, plan, trials), kwargs={"slots": slots})
        leader.start()
        try:
            while leader.is_alive():
                assert time.monotonic() < deadline, "the search did not end"
                if pending and len(parts_done(folder)) >= pending[0][0]:
                    victim = _worker_of(leader.pid or 0) if pending[0][1] == "worker" else leader.pid
                    if victim is not None and _kill(victim):
                        killed += 1
                        pending.pop(0)
                        log.hold_at(pending[0][0] if pending else None)
                        if victim == leader.pid:
                            break
                time.sleep(0.002)
        finally:
            leader.kill()
            leader.join()
        if leader.exitcode == 0:
            return killed
        failure = folder / "failure"
        why = failure.read_text(encoding="utf-8") if failure.exists() else ""
        assert leader.exitcode == -signal.SIGKILL, f"the leader ended with {leader.exitcode}\n{why}"


def random_kills(seed: int, trials: int, count: int = 5) -> list[tuple[int, str]]:
    """Return points in a search at which leaders and workers are killed; of a trial's workers at most one."""
    drawn = random.Random(seed)  # noqa: S311 - points, no secrets
    numbers = sorted(drawn.sample(range(trials), count))
    who = [drawn.choice(["leader", "worker"]) for _ in numbers]
    return [(number * PARTS + drawn.randrange(1, PARTS), each) for number, each in zip(numbers, who, strict=True)]


def plan_named(name: str, **changes: Any) -> StudyPlan:
    """Return a plan with a name made of a word."""
    return small_plan(name=hashlib.sha256(name.encode()).hexdigest(), **changes)


def _worker_of(leader: int) -> int | None:
    """Return a living child of a process."""
    try:
        children = Path(f"/proc/{leader}/task/{leader}/children").read_text(encoding="utf-8").split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((int(child) for child in children if _is_alive(child)), None)


def _is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
