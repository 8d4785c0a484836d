"""Runs as sharing sees them: whose they are, what they need at once, how long they wait."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Literal

from ml_assets.interfaces.compute import Ageing

RUNS = "runs"
"""Resource of which each run takes one: the places for runs in progress (`max_concurrent_runs`)."""


@dataclass(frozen=True, kw_only=True)
class QueuedRun:
    """A run that waits.

    Attributes:
        run_id: Dagster run.
        team: Whose it is.
        demand: Resource → how much it takes; what it does not name it does not need.
        priority: A higher one goes first within its team.
        submitted: When it was asked for.
        price_per_hour: Of its most expensive step; 0 when it costs nothing.
    """

    run_id: str
    team: str
    demand: Mapping[str, int]
    priority: int = 0
    submitted: datetime
    price_per_hour: float = 0.0

    @cached_property
    def size(self) -> tuple[tuple[str, int], ...]:
        """Return its demand as a key: runs of one size fit or do not fit alike."""
        return tuple(sorted(self.demand.items()))

    def is_overdue(self, ageing: Ageing, now: datetime) -> bool:
        """Whether it has waited so long that it may hold back others."""
        return now - self.submitted >= ageing.longest_wait

    def aged_priority(self, ageing: Ageing, now: datetime) -> int:
        """Return its priority with one more for each step of ageing that it has waited."""
        return self.priority + max(0, (now - self.submitted) // ageing.step)


@dataclass(frozen=True, kw_only=True)
class RunningRun:
    """A run that holds resources.

    Attributes:
        run_id: Dagster run.
        team: Whose it is.
        demand: Resource → how much it holds.
        started: When it began to hold them; None when that is not known yet.
    """

    run_id: str
    team: str
    demand: Mapping[str, int]
    started: datetime | None = None


ReasonKind = Literal["resources", "held", "limit", "budget", "never", "engine"]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a run waits.

    Attributes:
        kind: "resources": they are in use; "held": what is free is kept for a run that goes first; "limit": its team's
            own; "budget": its team has spent it; "never": it asks for more than there is; "engine": the run queue's
            own limits.
        text: A sentence part for people, without a full stop.
    """

    kind: ReasonKind
    text: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What becomes of every queued run now.

    Attributes:
        start: Those that start, in order.
        waits: Run id → why it waits, for all others.
    """

    start: tuple[QueuedRun, ...] = ()
    waits: Mapping[str, Reason] = field(default_factory=dict)
