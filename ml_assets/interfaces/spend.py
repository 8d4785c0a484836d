"""What is asked of the record of spend: what each step cost its team, kept once and summed by calendar month."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What one attempt at a step cost.

    Attributes:
        team: Who pays.
        pipeline: Name of the pipeline; empty when the run was of several, or of none.
        run_id: Dagster run.
        step_key: Step of the run.
        attempt: 1 for the first, counted within the run.
        profile: Compute profile; empty without one.
        cores: Processor cores that it had.
        gpus: Graphics processors that it had.
        seconds: How long it ran.
        price_per_hour: Price of the step, in `currency`.
        currency: ISO 4217 code of the price.
        ended_at: When it ended (UTC); the whole cost belongs to this month.
    """

    team: str
    pipeline: str
    run_id: str
    step_key: str
    attempt: int
    profile: str
    cores: int
    gpus: int
    seconds: float
    price_per_hour: float
    currency: str
    ended_at: datetime

    @property
    def amount(self) -> float:
        """Return the cost, in `currency`."""
        return self.seconds / 3600 * self.price_per_hour


@dataclass(frozen=True, kw_only=True)
class Spend:
    """What some steps cost together.

    Attributes:
        amount: Sum of the costs.
        core_hours: Cores × hours.
        gpu_hours: Graphics processors × hours.
        steps: Number of attempts at steps.
        runs: Number of runs that they belong to.
    """

    amount: float = 0.0
    core_hours: float = 0.0
    gpu_hours: float = 0.0
    steps: int = 0
    runs: int = 0


class SpendStore(Protocol):
    """What steps cost. Rows are added, never changed. Every method is one transaction."""

    def record(self, costs: Sequence[StepCost], *, now: datetime) -> int:
        """Keep costs that are not kept yet, and return how many that were.

        A cost is known by its run, step and attempt; what was kept first stays.

        Raises:
            LedgerError: If the database refuses.
        """
        ...

    def by_team(self, since: datetime, until: datetime, *, currency: str) -> dict[str, Spend]:
        """Return what each team spent on steps that ended from `since` on and before `until`, in one currency."""
        ...

    def by_pipeline(
        self, team: str, since: datetime, until: datetime, *, currency: str
    ) -> dict[tuple[str, str], Spend]:
        """Return what a team spent in such a time, by pipeline and profile."""
        ...

    def teams(self) -> list[str]:
        """Return the teams that ever spent anything, in any currency, sorted."""
        ...

    def of_runs(self, run_ids: Sequence[str]) -> dict[str, float]:
        """Return what was kept of some runs so far; a run without any cost is left out."""
        ...
