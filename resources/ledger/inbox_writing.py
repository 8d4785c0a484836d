"""Changing the event inbox on one connection that keeps other writers out; every step of an event is guarded in SQL."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from ml_assets.errors import InboxError
from ml_assets.inbox_rules import (
    buried_event,
    done_event,
    failed_event,
    identity_of,
    makers_of,
    place_of,
    released_event,
    require_one_pipeline,
    require_own,
    sort_received,
    superseded_event,
    unknown_batch,
    used_batch,
)
from ml_assets.interfaces import Batch, Event, EventFailure, InboxEvent, Receipt, RetryPolicy
from resources.ledger.inbox_reading import (
    has_batch,
    in_chunks,
    read_busy_partitions,
    read_carried,
    read_counter,
    read_dead,
    read_last,
    read_numbered,
    read_rates,
    read_waiting,
)
from resources.ledger.tables import inbox_batches, inbox_counters, inbox_counts, inbox_events

_MOVED = ("state", "attempts", "not_before", "batch", "run_id", "reason", "traceback")
"""What a step of an event can change."""

Steps = Sequence[tuple[InboxEvent, InboxEvent]]
"""(before, after) of each event."""


def receive_events(
    connection: sa.Connection,
    events: Sequence[Event],
    checked: Sequence[Event],
    dedup: timedelta,
    per_minute: int | None,
    now: datetime,
) -> Receipt:
    """Take up events, unless they are repeats or over the rate cap."""
    sources = {(event.pipeline, event.source) for event in events}
    result = sort_received(
        events,
        checked,
        known=read_last(connection, (identity_of(event) for event in events)),
        brought={} if per_minute is None else read_rates(connection, sources, now),
        last_number=read_counter(connection, "events"),
        dedup=dedup,
        per_minute=per_minute,
        now=now,
    )
    _insert(connection, result.receipt.new)
    _count_repeats(connection, result.counted, now)
    if result.receipt.new or result.counted:
        _touch(connection)
    return result.receipt


def bury_event(connection: sa.Connection, checked: Event, failure: EventFailure, now: datetime) -> InboxEvent:
    """Insert a dead letter, or count a repeat of the one there is."""
    last = read_last(connection, [identity_of(checked)]).get(identity_of(checked))
    if last is not None and last.state == "dead":
        _count_repeats(connection, {last.number: 1}, now)
        number = last.number
    else:
        number = read_counter(connection, "events") + 1
        _insert(connection, [buried_event(number, checked, failure, now)])
    _touch(connection)
    return read_numbered(connection, [number])[0]


def claim_events(
    connection: sa.Connection, numbers: Iterable[int], batch: str, lease: timedelta, now: datetime
) -> Batch | None:
    """Put those of the events that are free into a new batch."""
    if has_batch(connection, batch):
        raise used_batch(batch)
    waiting = read_waiting(connection, numbers)
    require_one_pipeline(batch, {event.event.pipeline for event in waiting})
    if not waiting:
        return None
    pipeline = waiting[0].event.pipeline
    busy = read_busy_partitions(connection, pipeline)
    free = [event for event in waiting if event.event.partition not in busy]
    if not free:
        return None
    team, name = pipeline
    row = {"name": batch, "team": team, "pipeline": name, "claimed_at": now, "leased_until": now + lease}
    connection.execute(inbox_batches.insert(), row)
    carried = [replace(event, state="claimed", batch=batch, run_id=None) for event in free]
    save_steps(connection, list(zip(free, carried, strict=True)))
    return Batch(
        name=batch,
        pipeline=pipeline,
        events=tuple(carried),
        run_id=None,
        claimed_at=now,
        leased_until=now + lease,
    )


def start_batch(connection: sa.Connection, batch: str, run_id: str) -> bool:
    """Bind a run to a batch that goes on and has no other."""
    columns = inbox_batches.c
    free = sa.and_(columns.name == batch, columns.ended_at.is_(None))
    free = sa.and_(free, sa.or_(columns.run_id.is_(None), columns.run_id == run_id))
    if connection.execute(inbox_batches.update().where(free).values(run_id=run_id)).rowcount == 0:
        return False
    claimed = [event for event in read_carried(connection, batch) if event.state == "claimed"]
    save_steps(connection, [(event, replace(event, state="running", run_id=run_id)) for event in claimed])
    return True


def finish_batch(
    connection: sa.Connection, batch: str, failures: Mapping[int, EventFailure], retry: RetryPolicy, now: datetime
) -> list[InboxEvent]:
    """End a batch, discard the dead letters that it made up for, and return its events that are dead now."""
    if not _end(connection, batch, now):
        return []
    carried = read_carried(connection, batch)
    require_own(batch, set(failures), {event.number for event in carried})
    steps = [
        (
            event,
            failed_event(event, failures[event.number], retry, now) if event.number in failures else done_event(event),
        )
        for event in carried
    ]
    save_steps(connection, steps)
    makers = makers_of(after for _, after in steps if after.state == "done")
    stale = read_dead(connection, steps[0][0].event.pipeline, makers) if makers else []
    stale = [event for event in stale if event.number < makers[event.event.partition].number]
    save_steps(connection, [(event, superseded_event(event, makers[event.event.partition])) for event in stale])
    ended = {event.number for event in stale}
    return [after for _, after in steps if after.state == "dead" and after.number not in ended]


def release_batch(connection: sa.Connection, batch: str, now: datetime) -> None:
    """End a batch that no run has, as if it had not been."""
    if not _end(connection, batch, now, inbox_batches.c.run_id.is_(None)):
        return
    save_steps(connection, [(event, released_event(event)) for event in read_carried(connection, batch)])


def save_steps(connection: sa.Connection, steps: Steps) -> None:
    """Write what became of events, those with the same changes at once.

    Raises:
        InboxError: If one of them is not in the state any more that it was read in.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for before, after in steps:
        changed = tuple(getattr(after, name) for name in _MOVED)
        groups.setdefault((before.state, *changed), []).append(before.number)
    for (state, *changed), numbers in groups.items():
        values = dict(zip(_MOVED, changed, strict=True))
        for some in in_chunks(numbers):
            guarded = sa.and_(inbox_events.c.number.in_(some), inbox_events.c.state == state)
            if connection.execute(inbox_events.update().where(guarded).values(values)).rowcount != len(some):
                raise InboxError(
                    f"Events {', '.join(map(str, some[:10]))} of the inbox were to go from {state} to "
                    f"{values['state']}, and some are no longer {state}. Nothing was changed; was the table "
                    "inbox_events changed past ml_assets?"
                )
    moved = Counter[tuple[str, str, str]]()
    for before, after in steps:
        moved[*before.event.pipeline, before.state] -= 1
        moved[*after.event.pipeline, after.state] += 1
    _count(connection, moved)
    if steps:
        _touch(connection)


def _end(connection: sa.Connection, batch: str, now: datetime, *conditions: sa.ColumnElement[bool]) -> bool:
    """Set when a batch ended; whether it went on until now.

    Raises:
        InboxError: If there is no such batch.
    """
    going_on = sa.and_(inbox_batches.c.name == batch, inbox_batches.c.ended_at.is_(None), *conditions)
    if connection.execute(inbox_batches.update().where(going_on).values(ended_at=now)).rowcount:
        return True
    if not has_batch(connection, batch):
        raise unknown_batch(batch)
    return False


def _insert(connection: sa.Connection, events: Sequence[InboxEvent]) -> None:
    """Insert events whose numbers follow the last one's."""
    if not events:
        return
    connection.execute(inbox_events.insert(), [_row(event) for event in events])
    _count(connection, Counter((*event.event.pipeline, event.state) for event in events))
    last = inbox_counters.update().where(inbox_counters.c.name == "events").values(value=events[-1].number)
    connection.execute(last)


def _row(kept: InboxEvent) -> dict[str, Any]:
    team, pipeline = kept.event.pipeline
    told = {name: getattr(kept.event, name) for name in ("source", "key", "partition", "payload")}
    names = ("number", "received_at", "seen_at", "repeats", *_MOVED)
    own = {name: getattr(kept, name) for name in names}
    return {"team": team, "pipeline": pipeline, "place": place_of(kept.event), **told, **own}


def _count_repeats(connection: sa.Connection, counted: Mapping[int, int], now: datetime) -> None:
    groups: dict[int, list[int]] = {}
    for number, times in counted.items():
        groups.setdefault(times, []).append(number)
    for times, numbers in groups.items():
        for some in in_chunks(numbers):
            own = inbox_events.update().where(inbox_events.c.number.in_(some))
            connection.execute(own.values(repeats=inbox_events.c.repeats + times, seen_at=now))


def _count(connection: sa.Connection, moved: Mapping[tuple[str, str, str], int]) -> None:
    columns = inbox_counts.c
    for (team, pipeline, state), change in moved.items():
        if change == 0:
            continue
        own = inbox_counts.update().where(columns.team == team, columns.pipeline == pipeline, columns.state == state)
        if connection.execute(own.values(events=columns.events + change)).rowcount == 0:
            row = {"team": team, "pipeline": pipeline, "state": state, "events": change}
            connection.execute(inbox_counts.insert(), row)


def _touch(connection: sa.Connection) -> None:
    changes = inbox_counters.update().where(inbox_counters.c.name == "changes")
    connection.execute(changes.values(value=inbox_counters.c.value + 1))
