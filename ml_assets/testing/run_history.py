"""FakeRuns: an engine that runs what it is asked for at once, and lets each run end as it is told."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ml_assets.retraining.runs import TrainingRun
from ml_assets.retraining.turn import Start


@dataclass(kw_only=True)
class FakeRuns:
    """A `RunHistory` in memory.

    Attributes:
        ending: Given a start returns what becomes of its run; its run id is set here.
        started: What was asked for and had no run yet, in order: one run a run key, as in the engine.
        runs: Run key → its run.
    """

    ending: Callable[[Start], TrainingRun]
    started: list[Start] = field(default_factory=list)
    runs: dict[str, TrainingRun] = field(default_factory=dict)

    def find(self, run_key: str) -> TrainingRun | None:
        """Return the run that was made for a key, or None when there is none."""
        return self.runs.get(run_key)

    def submit(self, start: Start) -> None:
        """Make a run for a start, unless its key has one."""
        if start.run_key not in self.runs:
            self.started.append(start)
            self.runs[start.run_key] = replace(self.ending(start), run_id=f"run-{len(self.started)}")
