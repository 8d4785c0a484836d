"""SqlInbox: the event inbox in the ledger's database, SQLite or Postgres."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta

from ml_assets.inbox_rules import checked_event, discarded_event, replayed_event, unknown_event
from ml_assets.interfaces import (
    Batch,
    Event,
    EventFailure,
    EventState,
    InboxEvent,
    PipelinePath,
    Receipt,
    RetryPolicy,
)
from ml_assets.interfaces.inbox import LONGEST_BACKOFF
from resources.ledger.database import SqlStore

_LOCK = "inbox"
"""Name of the lock that all writers of the inbox take on Postgres; no pipeline has a name without a slash."""


class SqlInbox(SqlStore):
    """An `Inbox` beside the ledger; made and shared as every `SqlStore`.

    Writers follow each other: what one reads in its transaction stays true until that ends. Do not call one inside
    an exclusive transaction of the ledger: on SQLite it would wait for that to end.
    """

    def receive(
        self, events: Sequence[Event], *, dedup: timedelta, per_minute: int | None = None, now: datetime
    ) -> Receipt:
        """Take up events, unless they are repeats or over the rate cap; see `Inbox.receive`.

        Raises:
            InboxError: If one of them cannot be taken up; then none is.
        """
        if not events:
            return Receipt()
        checked = [checked_event(event) for event in events]
        with self._database.writing("Receiving events", [_LOCK]) as connection:
            from resources.ledger.inbox_writing import receive_events

            return receive_events(connection, events, checked, dedup, per_minute, now)

    def ready(
        self,
        pipelines: Collection[PipelinePath],
        *,
        debounce: timedelta,
        longest: timedelta = LONGEST_BACKOFF,
        now: datetime,
    ) -> list[InboxEvent]:
        """Return the events that a run may start for now, in order of receipt; see `Inbox.ready`."""
        if not pipelines:
            return []
        with self._database.reading("Reading what is ready") as connection:
            from resources.ledger.inbox_reading import read_ready

            return read_ready(connection, pipelines, debounce, longest, now)

    def claim(self, numbers: Collection[int], batch: str, *, lease: timedelta, now: datetime) -> Batch | None:
        """Put waiting events into a new batch; see `Inbox.claim`.

        Raises:
            InboxError: If the name was used before, or the events are of several pipelines.
        """
        with self._database.writing(f"Claiming the batch {batch}", [_LOCK]) as connection:
            from resources.ledger.inbox_writing import claim_events

            return claim_events(connection, numbers, batch, lease, now)

    def batches(self, pipelines: Collection[PipelinePath] | None = None) -> list[Batch]:
        """Return the batches that have events in state claimed or running, oldest first."""
        if pipelines is not None and not pipelines:
            return []
        with self._database.reading("Reading the batches") as connection:
            from resources.ledger.inbox_reading import read_batches

            return read_batches(connection, pipelines)

    def start(self, batch: str, run_id: str, *, now: datetime) -> bool:
        """Bind a run to a batch; whether it has the batch."""
        del now
        with self._database.writing(f"Starting the batch {batch}", [_LOCK]) as connection:
            from resources.ledger.inbox_writing import start_batch

            return start_batch(connection, batch, run_id)

    def finish(
        self, batch: str, failures: Mapping[int, EventFailure], *, retry: RetryPolicy, now: datetime
    ) -> list[InboxEvent]:
        """End a batch, and return the new dead letters; see `Inbox.finish`.

        Raises:
            InboxError: If there is no such batch, or a failure is of an event that it does not have.
        """
        with self._database.writing(f"Finishing the batch {batch}", [_LOCK]) as connection:
            from resources.ledger.inbox_writing import finish_batch

            return finish_batch(connection, batch, failures, retry, now)

    def release(self, batch: str, *, now: datetime) -> None:
        """Let the events of a batch that no run has wait again; see `Inbox.release`.

        Raises:
            InboxError: If there is no such batch.
        """
        with self._database.writing(f"Releasing the batch {batch}", [_LOCK]) as connection:
            from resources.ledger.inbox_writing import release_batch

            release_batch(connection, batch, now)

    def bury(self, event: Event, failure: EventFailure, *, now: datetime) -> InboxEvent:
        """Record a dead letter of something that no run can be made of.

        Raises:
            InboxError: If the event cannot be stored.
        """
        checked = checked_event(event)
        with self._database.writing("Recording a dead letter", [_LOCK]) as connection:
            from resources.ledger.inbox_writing import bury_event

            return bury_event(connection, checked, failure, now)

    def events(
        self,
        *,
        pipelines: Collection[PipelinePath] | None = None,
        states: Collection[EventState] | None = None,
        limit: int | None = 1000,
    ) -> list[InboxEvent]:
        """Return the newest matching events, newest first; None matches all, and as a limit is none."""
        if pipelines is not None and not pipelines:
            return []
        with self._database.reading("Reading events") as connection:
            from resources.ledger.inbox_reading import read_events

            return read_events(connection, pipelines, states, limit)

    def event(self, number: int) -> InboxEvent | None:
        """Return an event by its number."""
        with self._database.reading("Reading an event") as connection:
            from resources.ledger.inbox_reading import read_numbered

            return next(iter(read_numbered(connection, [number])), None)

    def last_of(self, pipeline: PipelinePath, source: str, places: Collection[str]) -> dict[str, InboxEvent]:
        """Return the newest event of each place (its payload's "place"), whatever its state."""
        if not places:
            return {}
        with self._database.reading("Reading the events of places") as connection:
            from resources.ledger.inbox_reading import read_last_of_places

            return read_last_of_places(connection, pipeline, source, places)

    def replay(self, number: int, *, by: str, now: datetime) -> InboxEvent:
        """Let a dead letter (or a discarded one) wait again, with no attempts counted.

        Raises:
            InboxError: If there is no such event, or it is in another state.
        """
        return self._step(f"Replaying event {number}", number, lambda event: replayed_event(event, by, now))

    def discard(self, number: int, *, by: str, reason: str, now: datetime) -> InboxEvent:
        """Say that a dead letter does not matter.

        Raises:
            InboxError: If there is no such event, or it is in another state.
        """
        del now
        return self._step(f"Discarding event {number}", number, lambda event: discarded_event(event, by, reason))

    def counts(self) -> dict[PipelinePath, dict[EventState, int]]:
        """Return how many events each pipeline has in each state, repeats not counted."""
        with self._database.reading("Counting events") as connection:
            from resources.ledger.inbox_reading import read_counts

            return read_counts(connection)

    def mark(self) -> str:
        """Return a text that changes whenever anything in the inbox changes; one row is read for it."""
        with self._database.reading("Reading the inbox's mark") as connection:
            from resources.ledger.inbox_reading import read_counter

            return str(read_counter(connection, "changes"))

    def _step(self, action: str, number: int, step: Callable[[InboxEvent], InboxEvent]) -> InboxEvent:
        with self._database.writing(action, [_LOCK]) as connection:
            from resources.ledger.inbox_reading import read_numbered
            from resources.ledger.inbox_writing import save_steps

            found = read_numbered(connection, [number])
            if not found:
                raise unknown_event(number)
            after = step(found[0])
            save_steps(connection, [(found[0], after)])
            return after
