"""What a trial reports on its way and whether that ends it, also when its training goes on in another process."""

import json
from collections.abc import Callable, Mapping, Sequence

from ml_assets.interfaces import Checkpoint, PrunedTrial, TrialResult, TrialState

_REPORTS = "search_reports.json"


class Watch:
    """The reports of a trial, and its pruner.

    Args:
        pruning: The pruner's view of the trial; None when nothing is pruned.

    Attributes:
        reports: Step → value.
        stops: Whether the pruner has ended the trial.
    """

    def __init__(self, pruning: PrunedTrial | None) -> None:
        self.pruning = pruning
        self.reports: dict[int, float] = {}
        self.stops = False

    @property
    def last(self) -> float:
        """Return the newest report."""
        return self.reports[max(self.reports)]

    def report(self, step: int, value: float) -> bool:
        """Take the value after a step, and return whether the trial ends."""
        self.reports[step] = value
        self.stops = self.pruning is not None and self.pruning.report(step, value)
        return self.stops

    def result(self, state: TrialState, value: float) -> TrialResult:
        """Return how the trial ended."""
        assert state != "running"  # noqa: S101 - tells the type checker
        marks = {} if self.pruning is None else self.pruning.marks()
        return TrialResult(state=state, value=value, reports=self.reports, marks=marks)


class WatchedRounds:
    """A checkpoint of a training in rounds that holds the reports too: who resumes the one has the other.

    The reports are numbered from 1: trainings of different lengths report after the same parts of themselves.

    Args:
        checkpoint: Where the training is kept.
        watch: Takes the reports.
    """

    def __init__(self, checkpoint: Checkpoint, watch: Watch) -> None:
        self._checkpoint, self._watch = checkpoint, watch
        self._rounds: list[int] = []
        self._pending: tuple[int, dict[str, bytes]] | None = None

    @property
    def problems(self) -> Sequence[str]:
        """Return what was found damaged so far."""
        return self._checkpoint.problems

    def report(self, rounds: int, value: float) -> bool:
        """Take the value after so many rounds, and return whether the trial ends."""
        if rounds in self._rounds:  # told again, since it was not saved whether it had been told
            return False
        if self._pending is not None and self._pending[0] != rounds:
            self._write()
        self._rounds.append(rounds)
        if self._watch.report(len(self._rounds), value):
            return True  # not saved: whoever resumes is told so again
        if self._pending is not None:
            self._write()
        return False

    def save(self, step: int, files: Mapping[str, bytes]) -> None:
        """Keep the state, once its own report is known when that comes after it."""
        if self._pending is not None:
            self._write()
        self._pending = (step, dict(files))
        if step in self._rounds:
            self._write()

    def load(self) -> tuple[int, dict[str, bytes]] | None:
        """Return the newest whole state, after taking its reports."""
        found = self._checkpoint.load()
        if found is None:
            return None
        step, files = found
        for rounds, value in json.loads(files.pop(_REPORTS, b"[]")):
            self.report(rounds, value)
        return step, files

    def clear(self) -> None:
        """Remove everything of this training."""
        self._pending = None
        self._checkpoint.clear()

    def _write(self) -> None:
        assert self._pending is not None  # noqa: S101 - tells the type checker
        step, files = self._pending
        reports = [[rounds, self._watch.reports[index + 1]] for index, rounds in enumerate(self._rounds)]
        self._checkpoint.save(step, files | {_REPORTS: json.dumps(reports).encode()})
        self._pending = None


class ToldCheckpoint:
    """A checkpoint of a training that tells from which step it goes on.

    Args:
        checkpoint: Where the training is kept.
        resumed: Takes the step.
    """

    def __init__(self, checkpoint: Checkpoint, resumed: Callable[[int], None]) -> None:
        self._checkpoint, self._resumed = checkpoint, resumed

    @property
    def problems(self) -> Sequence[str]:
        """Return what was found damaged so far."""
        return self._checkpoint.problems

    def save(self, step: int, files: Mapping[str, bytes]) -> None:
        """Keep the state."""
        self._checkpoint.save(step, files)

    def load(self) -> tuple[int, dict[str, bytes]] | None:
        """Return the newest whole state, after telling its step."""
        found = self._checkpoint.load()
        if found is not None:
            self._resumed(found[0])
        return found

    def clear(self) -> None:
        """Remove everything of this training."""
        self._checkpoint.clear()
