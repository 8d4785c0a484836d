"""FakeInbox, with the suite that every inbox passes and the examples it is tested with."""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ml_assets.inbox_rules import (
    BATCH_STATES,
    CLOCK_SKEW,
    LIVE_STATES,
    RATE_WINDOW,
    EventIdentity,
    KnownEvent,
    buried_event,
    checked_event,
    discarded_event,
    done_event,
    failed_event,
    identity_of,
    makers_of,
    place_of,
    released_event,
    replayed_event,
    require_one_pipeline,
    require_own,
    sort_received,
    superseded_event,
    unknown_batch,
    unknown_event,
    used_batch,
)
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
from ml_assets.testing.inbox_examples import NOW, PIPELINE, event, failure
from ml_assets.testing.inbox_suite import InboxSuite

__all__ = ["NOW", "PIPELINE", "FakeInbox", "InboxSuite", "event", "failure"]


@dataclass(kw_only=True)
class _BatchRow:
    """A batch's row: it is over once `ended`."""

    pipeline: PipelinePath
    claimed_at: datetime
    leased_until: datetime
    run_id: str | None = None
    ended: bool = False


@dataclass
class FakeInbox:
    """An inbox in memory, as strict as a database about what it takes.

    Attributes:
        kept: Every event by its number.
    """

    kept: dict[int, InboxEvent] = field(default_factory=dict)
    _batches: dict[str, _BatchRow] = field(default_factory=dict)
    _changes: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def receive(
        self, events: Sequence[Event], *, dedup: timedelta, per_minute: int | None = None, now: datetime
    ) -> Receipt:
        """Take up events, unless they are repeats or over the rate cap."""
        checked = [checked_event(event) for event in events]
        with self._lock:
            brought: dict[tuple[PipelinePath, str], int] = {}
            for kept in self.kept.values():
                if now - RATE_WINDOW < kept.received_at <= now + CLOCK_SKEW:
                    source = (kept.event.pipeline, kept.event.source)
                    brought[source] = brought.get(source, 0) + 1
            result = sort_received(
                events,
                checked,
                known=self._last(),
                brought=brought,
                last_number=len(self.kept),
                dedup=dedup,
                per_minute=per_minute,
                now=now,
            )
            self._save(result.receipt.new)
            for number, times in result.counted.items():
                self._count_repeats(number, times, now)
            return result.receipt

    def ready(
        self,
        pipelines: Collection[PipelinePath],
        *,
        debounce: timedelta,
        longest: timedelta = LONGEST_BACKOFF,
        now: datetime,
    ) -> list[InboxEvent]:
        """Return the events that a run may start for now, in order of receipt."""
        found: list[InboxEvent] = []
        partitions: dict[tuple[PipelinePath, str], list[InboxEvent]] = {}
        for kept in self._in_state(LIVE_STATES):
            partitions.setdefault((kept.event.pipeline, kept.event.partition), []).append(kept)
        for (pipeline, _), live in partitions.items():
            free = pipeline in pipelines and all(kept.state == "waiting" for kept in live)
            late = now + CLOCK_SKEW
            settled = not any(now - debounce < kept.received_at <= late for kept in live)
            due = any(
                kept.not_before <= now or kept.not_before > late + longest or kept.received_at > late for kept in live
            )
            if free and settled and due:
                found += live
        return sorted(found, key=lambda kept: kept.number)

    def claim(self, numbers: Collection[int], batch: str, *, lease: timedelta, now: datetime) -> Batch | None:
        """Put waiting events into a new batch; those that are no longer free are left out, and None means all were."""
        with self._lock:
            if batch in self._batches:
                raise used_batch(batch)
            waiting = [self.kept[n] for n in sorted(numbers) if n in self.kept and self.kept[n].state == "waiting"]
            require_one_pipeline(batch, {kept.event.pipeline for kept in waiting})
            busy = {(kept.event.pipeline, kept.event.partition) for kept in self._in_state(BATCH_STATES)}
            free = [kept for kept in waiting if (kept.event.pipeline, kept.event.partition) not in busy]
            if not free:
                return None
            row = _BatchRow(pipeline=free[0].event.pipeline, claimed_at=now, leased_until=now + lease)
            self._batches[batch] = row
            self._save([replace(kept, state="claimed", batch=batch, run_id=None) for kept in free])
            return self._batch(batch, row)

    def batches(self, pipelines: Collection[PipelinePath] | None = None) -> list[Batch]:
        """Return the batches that have events in state claimed or running, oldest first."""
        found = [self._batch(name, row) for name, row in self._batches.items() if not row.ended]
        wanted = [batch for batch in found if pipelines is None or batch.pipeline in pipelines]
        return sorted(wanted, key=lambda batch: (batch.claimed_at, batch.name))

    def start(self, batch: str, run_id: str, *, now: datetime) -> bool:
        """Bind a run to a batch; whether it has the batch."""
        del now
        with self._lock:
            row = self._batches.get(batch)
            if row is None or row.ended or row.run_id not in {None, run_id}:
                return False
            row.run_id = run_id
            self._save(replace(kept, state="running", run_id=run_id) for kept in self._carried(batch))
            return True

    def finish(
        self, batch: str, failures: Mapping[int, EventFailure], *, retry: RetryPolicy, now: datetime
    ) -> list[InboxEvent]:
        """End a batch, discard what it made up for, and return the new dead letters."""
        with self._lock:
            if self._row(batch).ended:
                return []
            carried = self._carried(batch)
            require_own(batch, set(failures), {kept.number for kept in carried})
            ended = [
                failed_event(kept, failures[kept.number], retry, now) if kept.number in failures else done_event(kept)
                for kept in carried
            ]
            self._batches[batch].ended = True
            self._save(ended)
            makers = makers_of(kept for kept in ended if kept.state == "done")
            self._save(
                superseded_event(kept, makers[kept.event.partition])
                for kept in self._in_state(["dead"])
                if kept.event.pipeline == self._batches[batch].pipeline
                and kept.event.partition in makers
                and kept.number < makers[kept.event.partition].number
            )
            return [kept for kept in map(self.kept.__getitem__, sorted(failures)) if kept.state == "dead"]

    def release(self, batch: str, *, now: datetime) -> None:
        """Let the events of a batch that no run has wait again without counting an attempt."""
        del now
        with self._lock:
            row = self._row(batch)
            if not row.ended and row.run_id is None:
                self._save(released_event(kept) for kept in self._carried(batch))
                row.ended = True

    def bury(self, event: Event, failure: EventFailure, *, now: datetime) -> InboxEvent:
        """Record a dead letter; a repeat of one that is dead is counted."""
        checked = checked_event(event)
        with self._lock:
            last = self._last().get(identity_of(event))
            if last is not None and last.state == "dead":
                self._count_repeats(last.number, 1, now)
                return self.kept[last.number]
            dead = buried_event(len(self.kept) + 1, checked, failure, now)
            self._save([dead])
            return dead

    def events(
        self,
        *,
        pipelines: Collection[PipelinePath] | None = None,
        states: Collection[EventState] | None = None,
        limit: int | None = 1000,
    ) -> list[InboxEvent]:
        """Return the newest matching events, newest first; None matches all, and as a limit is none."""
        found = [kept for kept in reversed(self.kept.values()) if pipelines is None or kept.event.pipeline in pipelines]
        return [kept for kept in found if states is None or kept.state in states][:limit]

    def event(self, number: int) -> InboxEvent | None:
        """Return an event by its number."""
        return self.kept.get(number)

    def last_of(self, pipeline: PipelinePath, source: str, places: Collection[str]) -> dict[str, InboxEvent]:
        """Return the newest event of each place (its payload's "place"), whatever its state."""
        own = (kept for kept in self.kept.values() if (kept.event.pipeline, kept.event.source) == (pipeline, source))
        return {place_of(kept.event): kept for kept in own if place_of(kept.event) in places}

    def replay(self, number: int, *, by: str, now: datetime) -> InboxEvent:
        """Let a dead letter (or a discarded one) wait again, with no attempts counted."""
        return self._step(number, lambda kept: replayed_event(kept, by, now))

    def discard(self, number: int, *, by: str, reason: str, now: datetime) -> InboxEvent:
        """Say that a dead letter does not matter."""
        del now
        return self._step(number, lambda kept: discarded_event(kept, by, reason))

    def counts(self) -> dict[PipelinePath, dict[EventState, int]]:
        """Return how many events each pipeline has in each state, repeats not counted."""
        counts: dict[PipelinePath, dict[EventState, int]] = {}
        for kept in self.kept.values():
            own = counts.setdefault(kept.event.pipeline, {})
            own[kept.state] = own.get(kept.state, 0) + 1
        return counts

    def mark(self) -> str:
        """Return a text that changes whenever anything in the inbox changes."""
        return str(self._changes)

    def _last(self) -> dict[EventIdentity, KnownEvent]:
        return {
            identity_of(kept.event): KnownEvent(number=kept.number, state=kept.state, received_at=kept.received_at)
            for kept in self.kept.values()
        }

    def _step(self, number: int, step: Callable[[InboxEvent], InboxEvent]) -> InboxEvent:
        with self._lock:
            if number not in self.kept:
                raise unknown_event(number)
            self._save([step(self.kept[number])])
            return self.kept[number]

    def _save(self, events: Iterable[InboxEvent]) -> None:
        changed = {kept.number: kept for kept in events}
        self.kept.update(changed)
        self._changes += bool(changed)

    def _count_repeats(self, number: int, times: int, now: datetime) -> None:
        kept = self.kept[number]
        self._save([replace(kept, repeats=kept.repeats + times, seen_at=now)])

    def _in_state(self, states: Collection[EventState]) -> list[InboxEvent]:
        return [kept for kept in self.kept.values() if kept.state in states]

    def _carried(self, batch: str) -> list[InboxEvent]:
        return [kept for kept in self._in_state(BATCH_STATES) if kept.batch == batch]

    def _row(self, batch: str) -> _BatchRow:
        if batch not in self._batches:
            raise unknown_batch(batch)
        return self._batches[batch]

    def _batch(self, name: str, row: _BatchRow) -> Batch:
        return Batch(
            name=name,
            pipeline=row.pipeline,
            events=tuple(self._carried(name)),
            run_id=row.run_id,
            claimed_at=row.claimed_at,
            leased_until=row.leased_until,
        )
