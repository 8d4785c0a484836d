"""Leads a study: asks for rounds of trials, has them evaluated, and tells their results in order.

Whatever dies, what is stored decides how it goes on: a trial's parameters are stored before it runs, its result as
soon as it is known, and a round is told whole. A sampler sees told rounds only. So the trials of a study are the
same however often it was interrupted, whichever process was faster, and however many processes evaluate them.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ml_assets.errors import StudyError
from ml_assets.interfaces import Studies, Study, Trial, TrialResult
from ml_assets.search.evaluating import Search, TrialPool
from ml_assets.search.patience import Patience, pause_seconds
from ml_assets.search.trials import best_of, known_to, propose

ASK_SECONDS = 1.0
"""How often a leader asks at least for the results of trials that other processes evaluate."""

_FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search came to.

    Attributes:
        trials: All trials, in order.
        best: The best completed one.
        kept: How many were told before this process began to lead.
        resumed: How many this process took over from processes that had gone.
        out_of_time: Whether the time limit ended it.
    """

    trials: tuple[Trial, ...]
    best: Trial
    kept: int
    resumed: int
    out_of_time: bool


def forget_failure(study: Study, attempt: str, *, helped: bool = False) -> None:
    """Begin a study anew whose search failed in an earlier attempt: it may have been for lack of memory, or the like.

    Args:
        study: The study.
        attempt: What the processes have in common that search together.
        helped: Whether this process evaluated trials of it, whoever's attempt that was.

    Raises:
        StudyError: If it failed in this attempt, or with this process's help: a failure is everybody's.
    """
    failed = study.facts().get(_FAILED)
    if failed and (helped or failed["attempt"] == attempt):
        raise StudyError(failed["message"])
    if failed:
        study.restart()


def run_search(studies: Studies, study: Study, search: Search, *, attempt: str = "") -> Found:
    """Run a study to its end, or tell what it found when it has ended before.

    Args:
        studies: Where the study is.
        study: The study, led by this process.
        search: What to do.
        attempt: As `forget_failure` takes it.

    Raises:
        StudyError: If more than half of the trials failed, or none was completed.
        StudyLostError: If another process leads the study meanwhile.
    """
    return _Leader(studies, study, search, attempt).run()


@dataclass
class _Leader:
    studies: Studies
    study: Study
    search: Search
    attempt: str
    trials: list[Trial] = field(default_factory=list)
    pool: TrialPool = field(init=False)

    def __post_init__(self) -> None:
        plan = self.search.plan
        # Fewer trials may be asked for than an earlier leader had begun.
        self.pool = TrialPool(
            self.study,
            self.search,
            lambda number: known_to(plan, number, self.trials),
            below=self.search.trials,
        )

    def run(self) -> Found:
        search, facts = self.search, self.study.facts()
        self.trials = self.study.trials()[: search.trials]
        told = [trial for trial in self.trials if trial.state != "running"]
        interrupted = self.trials[len(told) :]
        for trial in told:
            search.on_told(trial)
            self.pool.keep()
        if _FAILED in facts:
            raise StudyError(facts[_FAILED]["message"])
        self._refuse_failures()
        spent = float(facts.get("seconds", 0.0))
        if interrupted:
            spent = self._timed(interrupted, spent)
        while len(self.trials) < search.trials and not self._is_over(spent):
            proposed = propose(self.studies, search.plan, self.trials, search.trials, self.pool.keep)
            self.study.add(proposed, claimed=search.slots)
            self.trials += proposed
            self.pool.put(proposed[: search.slots])
            spent = self._timed(proposed, spent)
        best = best_of(search.plan.direction, self.trials)
        if best is None:
            raise self._failure("none of its trials was completed")
        return Found(
            trials=tuple(self.trials),
            best=best,
            kept=len(told),
            resumed=self.pool.resumed,
            out_of_time=len(self.trials) < search.trials,
        )

    def _is_over(self, spent: float) -> bool:
        return self.search.time_limit is not None and spent >= self.search.time_limit

    def _finish(self, trials: Sequence[Trial]) -> None:
        """Evaluate the running trials of a round, with whoever helps, and tell their results."""
        results = {trial.number: trial.result for trial in trials if trial.result is not None}
        open_numbers = {trial.number for trial in trials} - set(results)
        patience = Patience()
        asked_at = news_at = time.monotonic()
        try:
            while open_numbers:
                # Trials that this process has not claimed may be free, or others evaluate them.
                elsewhere = bool(open_numbers - set(self.pool.taken))
                self.pool.fill(claims=elsewhere)
                elsewhere = bool(open_numbers - set(self.pool.taken))
                pause = pause_seconds(time.monotonic() - news_at, longest=ASK_SECONDS) if elsewhere else None
                ended = self.pool.turn(pause)
                results |= ended
                open_numbers -= set(ended)
                for number, result in ended.items():
                    if open_numbers:
                        self.study.record(number, result)
                if pause is not None and time.monotonic() - asked_at >= pause:
                    asked_at = time.monotonic()
                    with patience.asking():
                        running = self.study.running()
                        handed_in = {t.number: t for t in running if t.number in open_numbers and t.result}
                        self.trials = [handed_in.get(trial.number, trial) for trial in self.trials]
                        results |= {number: trial.result for number, trial in handed_in.items() if trial.result}
                        open_numbers -= set(handed_in)
                        news_at = asked_at if handed_in else news_at
        finally:
            self.pool.end()
        self._tell({number: results[number] for number in sorted(results)})

    def _timed(self, trials: Sequence[Trial], spent: float) -> float:
        """Finish trials, and return the seconds of searching after them; kept where a time limit counts them."""
        began = time.monotonic()
        self._finish(trials)
        if self.search.time_limit is not None:
            spent += time.monotonic() - began
            self.study.note("seconds", round(spent, 3))
        return spent

    def _tell(self, results: Mapping[int, TrialResult]) -> None:
        self.study.tell(results)
        for number, result in results.items():
            trial = self.pool.taken.pop(number, self.trials[number])
            self.trials[number] = replace(trial, state=result.state, result=result)
            self.search.on_told(self.trials[number])
        self._refuse_failures()

    def _refuse_failures(self) -> None:
        failed = [trial for trial in self.trials if trial.state == "failed"]
        if 2 * len(failed) > self.search.trials:
            raise self._failure(f"{len(failed)} of its {self.search.trials} trials failed")

    def _failure(self, what: str) -> StudyError:
        """Return why the search failed, after noting it: the next attempt begins anew."""
        reasons = dict.fromkeys(t.result.reason for t in self.trials if t.result and t.result.reason)
        listed = "".join(f"\n  {reason}" for reason in list(reasons)[:5])
        why = f" because of:{listed}" if listed else "."
        message = (
            f"The search {self.search.plan.title} failed: {what}{why}\n"
            "Narrow search.space to what the estimator takes, give the step more memory, or ask for more trials."
        )
        self.study.note(_FAILED, {"attempt": self.attempt, "message": message})
        return StudyError(message)
