"""What a look at the queue found, for people: what waits, for whom, why, and who has what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ml_assets.interfaces.compute import ComputeRules
from ml_assets.sharing.budgets import Budget
from ml_assets.sharing.runs import Choice, QueuedRun, RunningRun


@dataclass(frozen=True, kw_only=True)
class QueueReport:
    """A queue at one instant.

    Attributes:
        now: The instant.
        rules: By what runs are chosen; without teams, Dagster's own order holds: priority, then first come.
        slots: Most runs in progress at once; None for no such limit.
        queued: What waits, the oldest first.
        running: What is in progress.
        names: Run id → what it is, such as "flights/arrival_delay".
        choice: What would start now, and why the rest waits.
        budgets: Team → its month, for teams with a budget.
    """

    now: datetime
    rules: ComputeRules
    slots: int | None = None
    queued: tuple[QueuedRun, ...] = ()
    running: tuple[RunningRun, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    choice: Choice = field(default_factory=Choice)
    budgets: Mapping[str, Budget] = field(default_factory=dict)

    def why(self, run: QueuedRun) -> str:
        """Return why a run waits, for people."""
        if not self.rules.teams:
            return "its turn, by priority and time"
        reason = self.choice.waits.get(run.run_id)
        return "it starts at the next look" if reason is None else reason.text

    def held(self, team: str, resource: str) -> int:
        """Return how much a team has in use."""
        return sum(run.demand.get(resource, 0) for run in self.running if run.team == team)

    @property
    def teams(self) -> list[str]:
        """Return the teams that have rules, run or wait."""
        return sorted({*self.rules.teams, *(run.team for run in (*self.queued, *self.running))})
