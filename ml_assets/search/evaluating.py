"""Evaluates trials of a study in processes: claims them, starts them, hears of them, and says how they ended."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait

from ml_assets.errors import LedgerError
from ml_assets.interfaces import StudyPlan, Trial, TrialDesk, TrialResult
from ml_assets.search.patience import Patience
from ml_assets.search.processes import Progress, TrialProcess

MAX_DEATHS = 3
"""Deaths of a trial's process after which the trial has failed."""
ALONE_AFTER = 3
"""Fruitless resumes of a trial after which it is evaluated alone: what takes its whole step down shows itself then."""
MAX_FRUITLESS = 6
"""Fruitless resumes of a trial after which it has failed."""
KEEP_SECONDS = 10.0
"""How often a process says that it is there, a fraction of how long it may be silent."""

Evaluate = Callable[[Trial, Sequence[Trial], Progress], TrialResult]
"""Evaluates (trial, trials that its pruner may know, whom to tell how far it is) in the trial's own process."""


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


@dataclass
class TrialPool:
    """The trials that this process evaluates at once.

    Attributes:
        desk: Where they are claimed and handed in.
        search: How they are evaluated.
        known: Returns the trials that a trial may know of, by its number.
        below: Trials from this number on are not claimed; None for all.
        taken: Trials by number, as far as this process knows them.
        waiting: Numbers of claimed trials that are to be started.
        resumed: How many it took over from processes that had gone.
    """

    desk: TrialDesk
    search: Search
    known: Callable[[int], Sequence[Trial]]
    below: int | None = None
    taken: dict[int, Trial] = field(default_factory=dict)
    waiting: deque[int] = field(default_factory=deque)
    resumed: int = 0
    _live: list[TrialProcess] = field(default_factory=list)
    _patience: Patience = field(default_factory=Patience)
    _kept_at: float = field(default_factory=time.monotonic)

    @property
    def is_idle(self) -> bool:
        """Return whether it has nothing to do."""
        return not self._live and not self.waiting

    def put(self, trials: Sequence[Trial]) -> None:
        """Take trials that this process has claimed already."""
        self.taken |= {trial.number: trial for trial in trials}
        self.waiting.extend(trial.number for trial in trials)

    def fill(self, *, claims: bool = True) -> None:
        """Start trials while there is a free slot, first those that wait, then such as can be claimed."""
        while len(self._live) < self.search.slots and not any(self._is_alone(p.number) for p in self._live):
            if not self.waiting:
                trial = None
                if claims:
                    with self._patience.asking():
                        trial = self.desk.claim(below=self.below)
                if trial is None:
                    return
                self.resumed += trial.resumes > 0
                self.put([trial])
            if self._is_alone(self.waiting[0]) and self._live:
                return
            self._start(self.waiting.popleft())

    def turn(self, seconds: float | None = None) -> Mapping[int, TrialResult]:
        """Wait until something happens, and return the results of the trials that have ended.

        Args:
            seconds: Longest time to wait; `KEEP_SECONDS` when absent.
        """
        waitables = [waitable for process in self._live for waitable in process.waitables]
        wait(waitables, timeout=KEEP_SECONDS if seconds is None else seconds)
        ended: dict[int, TrialResult] = {}
        for process in list(self._live):
            # Asked before its messages are read: what it said before its end has arrived then.
            has_ended = process.has_ended()
            self._hear(process)
            if process.result is None and not has_ended:
                continue
            process.end()
            self._live.remove(process)
            result = process.result or self._mourn(process)
            if result is not None:
                ended[process.number] = result
        self.keep()
        return ended

    def keep(self) -> None:
        """Say now and then that this process is there; a database that is away for a moment ends no trial."""
        if time.monotonic() - self._kept_at > KEEP_SECONDS:
            self._kept_at = time.monotonic()
            with suppress(LedgerError):  # every write asks again whose the trial is
                self.desk.keep()

    def end(self) -> None:
        """Kill what is still evaluated."""
        for process in self._live:
            process.end()
        self._live.clear()

    def _is_alone(self, number: int) -> bool:
        return self.taken[number].fruitless >= ALONE_AFTER

    def _start(self, number: int) -> None:
        trial, known, evaluate = self.taken[number], self.known(number), self.search.evaluate
        work: Callable[[Progress], TrialResult] = lambda progress: evaluate(trial, known, progress)  # noqa: E731
        if trial.fruitless >= MAX_FRUITLESS:
            reason = (
                f"what evaluated it was gone {trial.fruitless} times in a row before it got any further, at last while "
                "it was evaluated alone, perhaps for lack of memory"
            )
            work = lambda _: TrialResult(state="failed", reason=reason)  # noqa: E731
        self._live.append(TrialProcess(number, work, threads=self.search.threads))

    def _hear(self, process: TrialProcess) -> None:
        """Keep the folds that a trial has finished, and where it went on."""
        number = process.number
        for index, value in process.finished_folds():
            self.desk.fold(number, index, value)
            trial = self.taken[number]
            self.taken[number] = replace(trial, folds=(*trial.folds[:index], value), fruitless=0)
        if process.resumed is not None and self.taken[number].resumes:
            if self.desk.advanced(number, *process.resumed):
                self.taken[number] = replace(self.taken[number], fruitless=0)
            process.resumed = None

    def _mourn(self, process: TrialProcess) -> TrialResult | None:
        """Have a trial whose process died evaluated again, or return that it failed."""
        number = process.number
        deaths = self.desk.died(number)
        self.taken[number] = replace(self.taken[number], deaths=deaths)
        if deaths < MAX_DEATHS:
            self.waiting.appendleft(number)
            return None
        return TrialResult(state="failed", reason=f"{process.death()}, for the {MAX_DEATHS}rd time")
