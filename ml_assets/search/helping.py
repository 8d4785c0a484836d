"""Helps the leader of a study: evaluates trials that it has asked for, and hands in what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ml_assets.interfaces import Trial, TrialDesk
from ml_assets.search.evaluating import Search, TrialPool
from ml_assets.search.trials import known_to


@dataclass
class Helper:
    """Evaluates trials as long as there are any to claim; `Studies.lead` calls it while another process leads.

    Attributes:
        search: What is searched, as the leader has it.
        evaluated: How many trials it handed in.
    """

    search: Search
    evaluated: int = 0
    _trials: list[Trial] = field(default_factory=list)

    def __call__(self, desk: TrialDesk) -> bool:
        """Evaluate what can be claimed now until there is nothing, and return whether there was.

        Raises:
            StudyLostError: If this process was silent for so long that others took over what it had claimed.
        """
        self._trials = []  # the study may have begun anew
        pool = TrialPool(desk, self.search, lambda number: self._known(desk, number))
        try:
            pool.fill()
            had_any = not pool.is_idle
            while not pool.is_idle:
                for number, result in pool.turn().items():
                    desk.record(number, result)
                    self.evaluated += 1
                pool.fill()
        finally:
            pool.end()
        return had_any

    def _known(self, desk: TrialDesk, number: int) -> Sequence[Trial]:
        """Return what a trial's pruner may know: trials of earlier rounds do not change any more."""
        if self.search.plan.pruner == "none":
            return ()  # nobody asks, and a long study takes its time to read
        begins = number - number % self.search.plan.parallel
        if len(self._trials) <= number or any(trial.state == "running" for trial in self._trials[:begins]):
            self._trials = desk.trials()
        return known_to(self.search.plan, number, self._trials)
