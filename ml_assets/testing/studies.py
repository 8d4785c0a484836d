"""Studies in memory for tests; see `ml_assets.testing.studies_suite` for what every `Studies` does."""

import hashlib
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ml_assets.errors import StudyError, StudyLostError
from ml_assets.interfaces import Study, StudyPlan, Trial, TrialDesk, TrialResult
from ml_assets.search_space import from_cube

_LEAST_KNOWN = 3


@dataclass
class FakeStudy:
    """One study in memory, for its leader."""

    title: str
    kept: dict[int, Trial] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    led: bool = False
    claimed: set[int] = field(default_factory=set)
    abandoned: set[int] = field(default_factory=set)
    reached: dict[int, tuple[int, int]] = field(default_factory=dict)

    def trials(self) -> list[Trial]:
        """Return all trials."""
        return [self._known(number) for number in sorted(self.kept)]

    def facts(self) -> dict[str, Any]:
        """Return the notes."""
        self.keep()
        return dict(self.notes)

    def note(self, name: str, value: Any) -> None:
        """Keep a note."""
        self.keep()
        self.notes[name] = value

    def add(self, trials: Sequence[Trial], *, claimed: int = 0) -> None:
        """Store new trials."""
        self.keep()
        for number, trial in enumerate(trials, start=len(self.kept)):
            if trial.number != number:
                raise StudyError(f"{self.title}: trial {trial.number} would become number {number}")
        self.kept |= {trial.number: Trial(number=trial.number, params=dict(trial.params)) for trial in trials}
        self.claimed |= {trial.number for trial in trials[:claimed]}

    def running(self) -> list[Trial]:
        """Return the trials that were not told."""
        return [trial for trial in self.trials() if trial.state == "running"]

    def claim(self, *, below: int | None = None) -> Trial | None:
        """Take a trial; what an earlier leader had taken is resumed."""
        free = [t for t in self.running() if t.result is None and t.number not in self.claimed]
        free = [t for t in free if below is None or t.number < below]
        if not free:
            return None
        trial = free[0]
        if trial.number in self.abandoned:
            trial = replace(trial, resumes=trial.resumes + 1, fruitless=trial.fruitless + 1)
            self.kept[trial.number] = trial
        self.claimed.add(trial.number)
        return trial

    def advanced(self, number: int, fold: int, step: int) -> bool:
        """Keep that a trial got further."""
        is_further = (fold, step) > self.reached.get(number, (-1, -1))
        if is_further:
            self.reached[number] = fold, step
            self.kept[number] = replace(self._known(number), fruitless=0)
        return is_further

    def died(self, number: int) -> int:
        """Count a death."""
        self.kept[number] = replace(self._known(number), deaths=self.kept[number].deaths + 1)
        return self.kept[number].deaths

    def fold(self, number: int, index: int, value: float) -> None:
        """Keep a fold."""
        trial = self._known(number)
        self.kept[number] = replace(trial, folds=(*trial.folds[:index], value), fruitless=0)

    def record(self, number: int, result: TrialResult) -> None:
        """Keep a result."""
        self.kept[number] = replace(self._known(number), result=result)

    def tell(self, results: Mapping[int, TrialResult]) -> None:
        """Finish trials."""
        self.keep()
        self.kept |= {n: replace(self.kept[n], state=result.state, result=result) for n, result in results.items()}

    def keep(self) -> None:
        """Refuse whoever does not lead."""
        if not self.led:
            raise StudyLostError(f"{self.title}: nobody leads it")

    def restart(self) -> None:
        """Forget everything."""
        self.keep()
        self.kept, self.notes = {}, {}

    def _known(self, number: int) -> Trial:
        self.keep()
        return self.kept[number]


class FakePruning:
    """Ends a trial that is worse than the median of at least three others at its step."""

    def __init__(self, plan: StudyPlan, known: Sequence[Trial]) -> None:
        self._sign = 1.0 if plan.direction == "minimize" else -1.0
        self._known = [t.result.reports for t in known if t.state == "completed" and t.result is not None]
        self._last = 0.0

    def report(self, step: int, value: float) -> bool:
        """Take a value and say whether to end the trial."""
        self._last = value
        others = [reports[step] for reports in self._known if step in reports]
        return len(others) >= _LEAST_KNOWN and self._sign * value > self._sign * statistics.median(others)

    def marks(self) -> dict[str, float]:
        """Return the last report."""
        return {"last": self._last}


class FakeStudies:
    """A `Studies` in memory, whose every sampler draws by chance.

    Attributes:
        studies: By the plan's name.
    """

    def __init__(self) -> None:
        self.studies: dict[str, FakeStudy] = {}
        self._inside: set[str] = set()

    @contextmanager
    def lead(self, plan: StudyPlan, meanwhile: Callable[[TrialDesk], bool] | None = None) -> Iterator[Study]:
        """Lead a study; one that is led already would be waited for for ever, so that nothing comes `meanwhile`."""
        study = self.studies.setdefault(plan.name, FakeStudy(title=plan.title))
        if study.led:
            raise StudyError(f"{plan.title} is led already")
        study.led = True
        try:
            yield study
        finally:
            study.led = False
            study.abandoned |= study.claimed
            study.claimed = set()

    @contextmanager
    def one_at_a_time(self, plan: StudyPlan) -> Iterator[None]:
        """Refuse a second one inside, which would wait for ever in one process."""
        if plan.name in self._inside:
            raise StudyError(f"{plan.title}: somebody is inside already")
        self._inside.add(plan.name)
        try:
            yield
        finally:
            self._inside.remove(plan.name)

    def suggest(self, plan: StudyPlan, number: int, history: Sequence[Trial]) -> dict[str, Any]:
        """Return parameters drawn by chance from seed and number."""
        assert [trial.number for trial in history] == list(range(number))
        seed = hashlib.sha256(f"{plan.seed}/{number}".encode()).digest()
        drawn = random.Random(seed)  # noqa: S311 - no secret
        return from_cube(plan.space, [drawn.random() for _ in plan.space])

    def pruning(self, plan: StudyPlan, trial: Trial, history: Sequence[Trial]) -> FakePruning:
        """Return a pruner by the median."""
        assert [known.number for known in history] == list(range(trial.number))
        return FakePruning(plan, history)

    def importance(self, plan: StudyPlan, trials: Sequence[Trial]) -> dict[str, float]:
        """Return equal shares."""
        return {parameter.name: 1 / len(plan.space) for parameter in plan.space} if trials else {}
