"""Events, failures and an instant to test with."""

from datetime import UTC, datetime, timedelta
from typing import Any

from ml_assets.interfaces import Event, EventFailure, RetryPolicy

PIPELINE = ("flights", "arrival_delay")
OTHER = ("flights", "cancellation")
NOW = datetime(2013, 2, 1, 6, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DEDUP = timedelta(hours=24)
RETRY = RetryPolicy(attempts=3, backoff=MINUTE)


def event(**changes: Any) -> Event:
    """Return an event to test with, changed in the given fields."""
    fields: dict[str, Any] = {
        "source": "arrivals",
        "key": "EWR/2013-01.csv:7f3a",
        "pipeline": PIPELINE,
        "partition": "EWR|2013-01",
        "payload": {"place": "EWR/2013-01.csv", "bytes": 1234},
    }
    return Event(**fields | changes)


def failure(**changes: Any) -> EventFailure:
    """Return a failure to test with, changed in the given fields."""
    fields: dict[str, Any] = {"reason": "The registry did not answer.", "transient": True, "traceback": "Traceback …"}
    return EventFailure(**fields | changes)
