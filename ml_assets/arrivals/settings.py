"""What a pipeline's policy says of arriving files."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from ml_assets.interfaces import EffectivePolicy

SOURCE = "arrivals"
"""Source of the events that files are."""


@dataclass(frozen=True, kw_only=True)
class ArrivalSettings:
    """Limits of arriving files, and how fast they may become events.

    Attributes:
        settle: How long a file must be unchanged before it counts as complete.
        size_ratio: Largest size of a file, as a multiple of what is usual.
        max_bytes: Largest size of a file.
        dedup: A repeat of an event within this time is dropped.
        per_minute: New events that a pipeline's files may bring in a minute.
    """

    settle: timedelta
    size_ratio: float
    max_bytes: int
    dedup: timedelta
    per_minute: int

    @classmethod
    def of(cls, policy: EffectivePolicy) -> Self:
        """Return the settings of a pipeline's policy."""
        return cls(
            settle=timedelta(seconds=policy.number("arrivals.settle_seconds")),
            size_ratio=policy.number("arrivals.size_ratio"),
            max_bytes=int(policy.number("arrivals.max_mb") * 1_000_000),
            dedup=timedelta(hours=policy.number("inbox.dedup_hours")),
            per_minute=int(policy.number("inbox.events_per_minute")),
        )
