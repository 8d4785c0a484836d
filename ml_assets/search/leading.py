"""Leads a study: asks for rounds of trials, has them evaluated in processes, and tells their results in order.

Whatever dies, what is stored decides how it goes on: a trial's parameters are stored before it runs, its result as
soon as it is known, and a round is told whole. A sampler sees told rounds only. So the trials of a study are the
same however often it was interrupted, and whichever process was faster.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait

from ml_assets.errors import LedgerError, StudyError
from ml_assets.interfaces import Studies, Study, StudyPlan, Trial, TrialResult
from ml_assets.search.processes import TellFold, TrialProcess
from ml_assets.search.trials import best_of, known_to, propose

MAX_DEATHS = 3
"""Deaths of a trial's process after which the trial has failed."""
KEEP_SECONDS = 10.0
"""How often a leader says that it is there, a fraction of how long it may be silent."""

_FAILED = "failed"

Evaluate = Callable[[Trial, Sequence[Trial], TellFold], TrialResult]
"""Evaluates (trial, trials that its pruner may know, how to tell of a fold) in the trial's own process."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a study is to be run; none of it changes what a trial finds.

    Attributes:
        plan: The study.
        trials: How many there are to be.
        slots: Processes at once.
        threads: Numeric threads of each.
        time_limit: Seconds of searching after which no further round begins; None for no limit.
        evaluate: Evaluates one trial.
        on_told: Is given every told trial once, in order, also after a crash in between; may be given it again then.
    """

    plan: StudyPlan
    trials: int
    slots: int
    threads: int
    time_limit: float | None
    evaluate: Evaluate
    on_told: Callable[[Trial], None] = lambda _: None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search came to.

    Attributes:
        trials: All trials, in order.
        best: The best completed one.
        kept: How many were told before this process began to lead.
        resumed: How many were running when an earlier leader died.
        out_of_time: Whether the time limit ended it.
    """

    trials: tuple[Trial, ...]
    best: Trial
    kept: int
    resumed: int
    out_of_time: bool


def forget_failure(study: Study) -> None:
    """Begin a study anew whose search failed: it may have been for lack of memory, or the like."""
    if study.facts().get(_FAILED):
        study.restart()


def run_search(studies: Studies, study: Study, search: Search) -> Found:
    """Run a study to its end, or tell what it found when it has ended before.

    Args:
        studies: Where the study is.
        study: The study, led by this process.
        search: What to do.

    Raises:
        StudyError: If more than half of the trials failed, or none was completed.
        StudyLostError: If another process leads the study meanwhile.
    """
    return _Leader(studies, study, search).run()


@dataclass
class _Leader:
    studies: Studies
    study: Study
    search: Search
    trials: list[Trial] = field(default_factory=list)
    kept_at: float = field(default_factory=time.monotonic)

    def run(self) -> Found:
        search, facts = self.search, self.study.facts()
        self.trials = self.study.trials()[: search.trials]
        told = [trial for trial in self.trials if trial.state != "running"]
        interrupted = self.trials[len(told) :]
        for trial in told:
            search.on_told(trial)
            self._keep()
        self._refuse_failures()
        resumed = [trial.number for trial in interrupted if trial.result is None]
        for number in resumed:
            self.study.resumed(number)
            self.trials[number] = replace(self.trials[number], resumes=self.trials[number].resumes + 1)
        spent = float(facts.get("seconds", 0.0))
        if interrupted:
            spent = self._timed(interrupted, spent)
        while len(self.trials) < search.trials and not self._is_over(spent):
            proposed = propose(self.studies, search.plan, self.trials, search.trials)
            self.study.add(proposed)
            self.trials += proposed
            spent = self._timed(proposed, spent)
        best = best_of(search.plan.direction, self.trials)
        if best is None:
            raise self._failure("none of its trials was completed")
        return Found(
            trials=tuple(self.trials),
            best=best,
            kept=len(told),
            resumed=len(resumed),
            out_of_time=len(self.trials) < search.trials,
        )

    def _is_over(self, spent: float) -> bool:
        return self.search.time_limit is not None and spent >= self.search.time_limit

    def _finish(self, trials: Sequence[Trial]) -> None:
        """Evaluate the running trials of a round, each in a process, and tell their results."""
        if not trials:
            return
        results = {trial.number: trial.result for trial in trials if trial.result is not None}
        waiting = deque(trial.number for trial in trials if trial.result is None)
        live: list[TrialProcess] = []
        try:
            while waiting or live:
                while waiting and len(live) < self.search.slots:
                    live.append(self._start(waiting.popleft()))
                wait([waitable for process in live for waitable in process.waitables], timeout=KEEP_SECONDS)
                for process in list(live):
                    # Asked before its messages are read: what it said before its end has arrived then.
                    has_ended = process.has_ended()
                    self._hear(process)
                    if process.result is None and not has_ended:
                        continue
                    process.end()
                    live.remove(process)
                    result = process.result or self._mourn(process, waiting)
                    if result is not None:
                        results[process.number] = result
                        if waiting or live:
                            self.study.record(process.number, result)
                self._keep()
        finally:
            for process in live:
                process.end()
        self._tell({number: results[number] for number in sorted(results)})

    def _timed(self, trials: Sequence[Trial], spent: float) -> float:
        """Finish trials, and return the seconds of searching after them; kept where a time limit counts them."""
        began = time.monotonic()
        self._finish(trials)
        if self.search.time_limit is not None:
            spent += time.monotonic() - began
            self.study.note("seconds", round(spent, 3))
        return spent

    def _keep(self) -> None:
        """Say now and then that this process still leads; a database that is away for a moment ends no trial."""
        if time.monotonic() - self.kept_at > KEEP_SECONDS:
            self.kept_at = time.monotonic()
            with suppress(LedgerError):  # every write asks again who leads
                self.study.keep()

    def _start(self, number: int) -> TrialProcess:
        trial, known = self.trials[number], known_to(self.search.plan, number, self.trials)
        evaluate = self.search.evaluate
        return TrialProcess(number, lambda tell: evaluate(trial, known, tell), threads=self.search.threads)

    def _hear(self, process: TrialProcess) -> None:
        """Keep the folds that a trial has finished."""
        for index, value in process.finished_folds():
            self.study.fold(process.number, index, value)
            trial = self.trials[process.number]
            self.trials[process.number] = replace(trial, folds=(*trial.folds[:index], value))

    def _mourn(self, process: TrialProcess, waiting: deque[int]) -> TrialResult | None:
        """Have a trial whose process died evaluated again, or return that it failed."""
        deaths = self.study.died(process.number)
        self.trials[process.number] = replace(self.trials[process.number], deaths=deaths)
        if deaths < MAX_DEATHS:
            waiting.appendleft(process.number)
            return None
        return TrialResult(state="failed", reason=f"{process.death()}, for the {MAX_DEATHS}rd time")

    def _tell(self, results: Mapping[int, TrialResult]) -> None:
        self.study.tell(results)
        for number, result in results.items():
            self.trials[number] = replace(self.trials[number], state=result.state, result=result)
            self.search.on_told(self.trials[number])
        self._refuse_failures()

    def _refuse_failures(self) -> None:
        failed = [trial for trial in self.trials if trial.state == "failed"]
        if 2 * len(failed) > self.search.trials:
            raise self._failure(f"{len(failed)} of its {self.search.trials} trials failed")

    def _failure(self, what: str) -> StudyError:
        """Return why the search failed, after noting it: the next search of this name begins anew."""
        self.study.note(_FAILED, what)
        reasons = dict.fromkeys(t.result.reason for t in self.trials if t.result and t.result.reason)
        listed = "".join(f"\n  {reason}" for reason in list(reasons)[:5])
        why = f" because of:{listed}" if listed else "."
        return StudyError(
            f"The search {self.search.plan.title} failed: {what}{why}\n"
            "Narrow search.space to what the estimator takes, give the step more memory, or ask for more trials."
        )
