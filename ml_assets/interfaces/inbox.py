"""What is asked of the event inbox: each event from outside is carried into exactly one run, or is a dead letter."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from ml_assets.interfaces.names import PipelinePath

EventState = Literal["waiting", "claimed", "running", "done", "dead", "discarded"]
"""waiting: for its run; claimed: a batch has it, no run is known; running: its run is; done: its partition was made;
dead: given up, a person must look; discarded: a person said that it does not matter, or a newer event made up for
it."""

LONGEST_BACKOFF = timedelta(hours=6)
"""No failed event waits longer for its next run, unless a retry policy says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened outside and concerns one partition.

    Attributes:
        source: What told of it: "arrivals", "http", "object-store" or "upstream:<asset>"; rates are capped by it.
        key: Idempotency key, unique in its pipeline and source for the time of the dedup window.
        pipeline: (team, pipeline).
        partition: Data partition that is to be made (anew), such as "EWR|2013-01".
        payload: JSON-ready facts, such as the place, size and digest of a file; neither rows nor secrets.
    """

    source: str
    key: str
    pipeline: PipelinePath
    partition: str
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class InboxEvent:
    """An event as the inbox keeps it.

    Attributes:
        number: Order of receipt, from 1; its name for people.
        event: What was received.
        state: See `EventState`.
        received_at: When it came first (UTC).
        seen_at: When it, or a repeat of it, came last (UTC).
        repeats: How often it came again inside the dedup window.
        attempts: Runs that failed for it.
        not_before: Before this instant no run starts for it (UTC).
        batch: The batch that carries it, or carried it to its end; None while it waits.
        run_id: Dagster run of the batch, or of its last attempt; None when there was none yet.
        reason: Why it failed last, who replayed or discarded it and why, or which newer event superseded it; empty
            when it never failed.
        traceback: Traceback of the last failure; empty when there is none.
    """

    number: int
    event: Event
    state: EventState
    received_at: datetime
    seen_at: datetime
    repeats: int = 0
    attempts: int = 0
    not_before: datetime
    batch: str | None = None
    run_id: str | None = None
    reason: str = ""
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of received events.

    Attributes:
        new: Those taken up.
        repeated: Those that are known already; counted, and dropped.
        refused: Those over the rate cap: not taken, so their source must offer them again.
    """

    new: tuple[InboxEvent, ...] = ()
    repeated: tuple[Event, ...] = ()
    refused: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Events of one pipeline that one run carries.

    Attributes:
        name: Also the run's key: no two runs of one name do the work.
        pipeline: (team, pipeline).
        events: Its events, in order of receipt.
        run_id: Its run, or None when none is known yet.
        claimed_at: When it was made (UTC).
        leased_until: Until then only the process that made it may submit its run (UTC).
    """

    name: str
    pipeline: PipelinePath
    events: tuple[InboxEvent, ...]
    run_id: str | None
    claimed_at: datetime
    leased_until: datetime


@dataclass(frozen=True, kw_only=True)
class EventFailure:
    """Why an event's partition was not made.

    Attributes:
        reason: One sentence or more, for a reader.
        transient: Whether trying again may help: an outage, a killed process. A wrong file is not transient.
        traceback: Of the step, when there is one.
    """

    reason: str
    transient: bool
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often failed events are tried again.

    Attributes:
        attempts: Runs that may fail for an event before it is a dead letter, at least 1.
        backoff: Wait after the first failure; it doubles with each further one.
        longest: No wait is longer.
    """

    attempts: int
    backoff: timedelta
    longest: timedelta = LONGEST_BACKOFF


class Inbox(Protocol):
    """A durable inbox. Every method is one transaction: a process killed at any moment leaves all or nothing of it.

    Delivery: a source offers an event until `receive` returned it as new or repeated (at least once). `claim` puts
    waiting events into a batch, and an event is in one batch at a time. Whoever submits the batch's run uses the
    batch's name as the run's key, then says `start`. The run itself says `start` before it works, and the first run
    to do so has the batch: any other one is told False and ends without work. Events are done, wait again, or are
    dead letters once `finish` has said what became of the run.
    """

    def receive(
        self, events: Sequence[Event], *, dedup: timedelta, per_minute: int | None = None, now: datetime
    ) -> Receipt:
        """Take up events, unless they are repeats or over the rate cap.

        Args:
            events: In the order in which they happened; repeats within the sequence count too.
            dedup: An event whose (pipeline, source, key) came first less than this before `now` is a repeat; later
                it is a new event. A repeat of an event that still waits, runs, or is dead is a repeat for as long.
            per_minute: New events that one source of one pipeline may bring within a minute; None for no cap.
            now: The instant, UTC.

        Raises:
            InboxError: If a text is empty, too long or cannot be stored, or a payload is not JSON; none is taken then.
        """
        ...

    def ready(
        self,
        pipelines: Collection[PipelinePath],
        *,
        debounce: timedelta,
        longest: timedelta = LONGEST_BACKOFF,
        now: datetime,
    ) -> list[InboxEvent]:
        """Return the events that a run may start for now, in order of receipt.

        Not before an event's `not_before`; not while a batch has an event of the same partition; and only when the
        last event of the partition came at least `debounce` ago (repeats do not count). A partition's events are
        ready together as soon as one of them is: a new event, such as a corrected file, ends the wait for a retry.
        An event from more than a minute after `now` came before the clock was put back, and waits for nothing. The
        same holds for a `not_before` that is further away than `longest`, the retry policy's longest wait, can be.
        """
        ...

    def claim(self, numbers: Collection[int], batch: str, *, lease: timedelta, now: datetime) -> Batch | None:
        """Put waiting events into a new batch; those that are no longer free are left out, and None means all were.

        An event is free when it waits and no batch has an event of its partition.

        Raises:
            InboxError: If the name was used before, or the events are of several pipelines.
        """
        ...

    def batches(self, pipelines: Collection[PipelinePath] | None = None) -> list[Batch]:
        """Return the batches that have events in state claimed or running, oldest first."""
        ...

    def start(self, batch: str, run_id: str, *, now: datetime) -> bool:
        """Bind a run to a batch; whether it has the batch: False when another run has, or the batch is over."""
        ...

    def finish(
        self, batch: str, failures: Mapping[int, EventFailure], *, retry: RetryPolicy, now: datetime
    ) -> list[InboxEvent]:
        """End a batch: events without a failure are done, others wait again or are dead; return the new dead letters.

        Finishing a batch that is over changes nothing. A failed event counts an attempt; one whose failure is not
        transient is dead at once. Dead letters of a partition that a done event has made, and that were received
        before it, are discarded: it made up for them.

        Raises:
            InboxError: If there never was such a batch, or a failure is of an event that the batch does not have.
        """
        ...

    def release(self, batch: str, *, now: datetime) -> None:
        """Let a batch's events wait again without counting an attempt, as when its run was never made.

        Changes nothing when a run has the batch (it may be at work: `finish` it), or the batch is over.

        Raises:
            InboxError: If there never was such a batch.
        """
        ...

    def bury(self, event: Event, failure: EventFailure, *, now: datetime) -> InboxEvent:
        """Record a dead letter of something that no run can be made of; a repeat of one that is dead is counted."""
        ...

    def events(
        self,
        *,
        pipelines: Collection[PipelinePath] | None = None,
        states: Collection[EventState] | None = None,
        limit: int | None = 1000,
    ) -> list[InboxEvent]:
        """Return the newest matching events, newest first; None matches all, and as a limit is none."""
        ...

    def event(self, number: int) -> InboxEvent | None:
        """Return an event by its number."""
        ...

    def last_of(self, pipeline: PipelinePath, source: str, places: Collection[str]) -> dict[str, InboxEvent]:
        """Return the newest event of each place (its payload's "place"), whatever its state."""
        ...

    def replay(self, number: int, *, by: str, now: datetime) -> InboxEvent:
        """Let a dead letter (or a discarded one) wait again, with no attempts counted.

        Raises:
            InboxError: If there is no such event, or it is in another state.
        """
        ...

    def discard(self, number: int, *, by: str, reason: str, now: datetime) -> InboxEvent:
        """Say that a dead letter does not matter; raises InboxError as `replay` does."""
        ...

    def counts(self) -> dict[PipelinePath, dict[EventState, int]]:
        """Return how many events each pipeline has in each state, repeats not counted."""
        ...

    def mark(self) -> str:
        """Return a text that changes whenever anything in the inbox changes; cheap to ask."""
        ...
