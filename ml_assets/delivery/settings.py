"""What a pipeline's policy says of its events: when they become a run, how many at once, how often again."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from ml_assets.inbox_rules import CLOCK_SKEW
from ml_assets.interfaces import EffectivePolicy, InboxEvent, RetryPolicy

LEASE = timedelta(seconds=60)
"""How long whoever claimed a batch may take to submit its run; Dagster gives a sensor's tick a minute."""
FILES = "arrivals"
"""Source of events that files are; a file was unchanged for some time before it became one."""


@dataclass(frozen=True, kw_only=True)
class DeliverySettings:
    """How a pipeline's events are carried into runs.

    Attributes:
        dedup: A repeat of an event within this time is dropped.
        per_minute: New events that one source may bring in a minute.
        debounce: Quiet time of a partition before its run starts.
        settle: How long a file was unchanged before it was taken up; so much of its partition's quiet time is over.
        max_partitions: Most partitions of one run.
        retry: How often failed events are tried again.
    """

    dedup: timedelta
    per_minute: int
    debounce: timedelta
    settle: timedelta
    max_partitions: int
    retry: RetryPolicy

    @classmethod
    def of(cls, policy: EffectivePolicy) -> Self:
        """Return the settings of a pipeline's policy."""
        return cls(
            dedup=timedelta(hours=policy.number("inbox.dedup_hours")),
            per_minute=int(policy.number("inbox.events_per_minute")),
            debounce=timedelta(seconds=policy.number("inbox.debounce_seconds")),
            settle=timedelta(seconds=policy.number("arrivals.settle_seconds")),
            max_partitions=int(policy.number("inbox.batch_partitions")),
            retry=RetryPolicy(
                attempts=int(policy.number("inbox.attempts")),
                backoff=timedelta(seconds=policy.number("inbox.backoff_seconds")),
            ),
        )

    def wait_after(self, source: str) -> timedelta:
        """Return how long after an event of a source came its partition's run may start."""
        return max(timedelta(0), self.debounce - self.settle) if source == FILES else self.debounce

    def is_quiet(self, event: InboxEvent, now: datetime) -> bool:
        """Whether the quiet time after an event is over."""
        age = now - event.received_at
        return age >= self.wait_after(event.event.source) or age < -CLOCK_SKEW
