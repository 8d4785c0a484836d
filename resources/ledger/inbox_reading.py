"""Reading the event inbox on one connection; SQLAlchemy's errors pass through to whoever holds the connection."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from ml_assets.inbox_rules import BATCH_STATES, CLOCK_SKEW, LIVE_STATES, RATE_WINDOW, EventIdentity, KnownEvent
from ml_assets.interfaces import Batch, Event, EventState, InboxEvent, PipelinePath
from ml_assets.texts import is_storable
from resources.ledger.tables import inbox_batches, inbox_counters, inbox_counts, inbox_events

_AT_ONCE = 500
"""Values in one IN: few enough for any database's limit."""

T = TypeVar("T")
_EVENT = inbox_events.c
_KEPT = ("number", "state", "received_at", "seen_at", "repeats", "attempts", "not_before", "batch", "run_id")
_TOLD = ("reason", "traceback")


def in_chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the values in parts that fit into one IN."""
    for begin in range(0, len(values), _AT_ONCE):
        yield values[begin : begin + _AT_ONCE]


def event_of(row: Mapping[Any, Any]) -> InboxEvent:
    """Return the event that a stored row holds."""
    event = Event(
        source=row["source"],
        key=row["key"],
        pipeline=(row["team"], row["pipeline"]),
        partition=row["partition"],
        payload=row["payload"],
    )
    return InboxEvent(event=event, **{name: row[name] for name in (*_KEPT, *_TOLD)})


def read_last(connection: sa.Connection, identities: Iterable[EventIdentity]) -> dict[EventIdentity, KnownEvent]:
    """Return the last event of each identity that has one."""
    found: dict[EventIdentity, KnownEvent] = {}
    keys: dict[tuple[PipelinePath, str], set[str]] = {}
    for pipeline, source, key in identities:
        keys.setdefault((pipeline, source), set()).add(key)
    for (pipeline, source), wanted in keys.items():
        for row in _newest(connection, pipeline, source, _EVENT.key, sorted(wanted)):
            known = KnownEvent(number=row["number"], state=row["state"], received_at=row["received_at"])
            found[pipeline, source, row["key"]] = known
    return found


def read_last_of_places(
    connection: sa.Connection, pipeline: PipelinePath, source: str, places: Collection[str]
) -> dict[str, InboxEvent]:
    """Return the newest event of each place."""
    storable = sorted(place for place in set(places) if is_storable(place))
    rows = _newest(connection, pipeline, source, _EVENT.place, storable)
    return {row["place"]: event_of(row) for row in rows}


def _newest(
    connection: sa.Connection, pipeline: PipelinePath, source: str, column: sa.ColumnElement[str], values: Sequence[str]
) -> Iterator[Mapping[Any, Any]]:
    """Yield the newest row of each value of a column, from the index that ends in the number."""
    team, name = pipeline
    for some in in_chunks(values):
        own = sa.and_(_EVENT.team == team, _EVENT.pipeline == name, _EVENT.source == source, column.in_(some))
        newest = sa.select(sa.func.max(_EVENT.number)).where(own).group_by(column)
        yield from connection.execute(inbox_events.select().where(_EVENT.number.in_(newest))).mappings()


def read_rates(
    connection: sa.Connection, sources: Iterable[tuple[PipelinePath, str]], now: datetime
) -> dict[tuple[PipelinePath, str], int]:
    """Return how many events each source brought within the last minute."""
    rates = {}
    for (team, name), source in sources:
        own = sa.and_(_EVENT.team == team, _EVENT.pipeline == name, _EVENT.source == source)
        lately = sa.and_(_EVENT.received_at > now - RATE_WINDOW, _EVENT.received_at <= now + CLOCK_SKEW)
        query = sa.select(sa.func.count()).where(own, lately)
        rates[(team, name), source] = connection.execute(query).scalar_one()
    return rates


def read_ready(
    connection: sa.Connection,
    pipelines: Collection[PipelinePath],
    debounce: timedelta,
    longest: timedelta,
    now: datetime,
) -> list[InboxEvent]:
    """Return the waiting events of the partitions that are ready as a whole."""
    group = (_EVENT.team, _EVENT.pipeline, _EVENT.partition)
    late = now + CLOCK_SKEW
    restless = sa.and_(_EVENT.received_at > now - debounce, _EVENT.received_at <= late)
    due = sa.or_(_EVENT.not_before <= now, _EVENT.not_before > late + longest, _EVENT.received_at > late)
    ready = (
        sa.select(*group)
        .where(_EVENT.state.in_(LIVE_STATES), _of(pipelines))
        .group_by(*group)
        .having(
            sa.func.sum(sa.case((_EVENT.state == "waiting", 0), else_=1)) == 0,
            sa.func.sum(sa.case((restless, 1), else_=0)) == 0,
            sa.func.sum(sa.case((due, 1), else_=0)) > 0,
        )
        .subquery()
    )
    same = sa.and_(*(column == ready.c[column.name] for column in group))
    query = inbox_events.select().join(ready, same).where(_EVENT.state == "waiting").order_by(_EVENT.number)
    return _events(connection, query)


def read_waiting(connection: sa.Connection, numbers: Iterable[int]) -> list[InboxEvent]:
    """Return those of the numbered events that wait, in order of receipt."""
    return [event for event in read_numbered(connection, numbers) if event.state == "waiting"]


def read_numbered(connection: sa.Connection, numbers: Iterable[int]) -> list[InboxEvent]:
    """Return the numbered events that there are, in order of receipt."""
    found: list[InboxEvent] = []
    for some in in_chunks(sorted(set(numbers))):
        found += _events(connection, inbox_events.select().where(_EVENT.number.in_(some)).order_by(_EVENT.number))
    return found


def read_dead(connection: sa.Connection, pipeline: PipelinePath, partitions: Collection[str]) -> list[InboxEvent]:
    """Return a pipeline's dead letters of some partitions."""
    team, name = pipeline
    found: list[InboxEvent] = []
    for some in in_chunks(sorted(partitions)):
        own = sa.and_(_EVENT.state == "dead", _EVENT.team == team, _EVENT.pipeline == name, _EVENT.partition.in_(some))
        found += _events(connection, inbox_events.select().where(own).order_by(_EVENT.number))
    return found


def read_busy_partitions(connection: sa.Connection, pipeline: PipelinePath) -> set[str]:
    """Return the partitions that a batch has events of."""
    query = sa.select(_EVENT.partition).distinct().where(_EVENT.state.in_(BATCH_STATES), _of([pipeline]))
    return set(connection.execute(query).scalars())


def read_carried(connection: sa.Connection, batch: str) -> list[InboxEvent]:
    """Return the events that a batch has and that have not ended, in order of receipt."""
    own = sa.and_(_EVENT.batch == batch, _EVENT.state.in_(BATCH_STATES))
    return _events(connection, inbox_events.select().where(own).order_by(_EVENT.number))


def has_batch(connection: sa.Connection, batch: str) -> bool:
    """Whether there is, or was, a batch of this name."""
    query = sa.select(inbox_batches.c.name).where(inbox_batches.c.name == batch)
    return connection.execute(query).first() is not None


def read_batches(connection: sa.Connection, pipelines: Collection[PipelinePath] | None) -> list[Batch]:
    """Return the batches that go on, oldest first."""
    query = inbox_events.select().where(_EVENT.state.in_(BATCH_STATES)).order_by(_EVENT.number)
    carried: dict[str, list[InboxEvent]] = {}
    for event in _events(connection, query if pipelines is None else query.where(_of(pipelines))):
        carried.setdefault(str(event.batch), []).append(event)
    found: list[Batch] = []
    for names in in_chunks(sorted(carried)):
        rows = connection.execute(inbox_batches.select().where(inbox_batches.c.name.in_(names))).mappings()
        found += [
            Batch(
                name=row["name"],
                pipeline=(row["team"], row["pipeline"]),
                events=tuple(carried[row["name"]]),
                run_id=row["run_id"],
                claimed_at=row["claimed_at"],
                leased_until=row["leased_until"],
            )
            for row in rows
        ]
    return sorted(found, key=lambda batch: (batch.claimed_at, batch.name))


def read_events(
    connection: sa.Connection,
    pipelines: Collection[PipelinePath] | None,
    states: Collection[EventState] | None,
    limit: int | None,
) -> list[InboxEvent]:
    """Return the newest matching events, newest first."""
    query = inbox_events.select().order_by(_EVENT.number.desc()).limit(limit)
    if pipelines is not None:
        query = query.where(_of(pipelines))
    if states is None:
        return _events(connection, query)
    # One state at a time: each is read from the end of its index, however many events the others have.
    found = [
        event for state in sorted(set(states)) for event in _events(connection, query.where(_EVENT.state == state))
    ]
    return sorted(found, key=lambda event: -event.number)[:limit]


def read_counts(connection: sa.Connection) -> dict[PipelinePath, dict[EventState, int]]:
    """Return how many events each pipeline has in each state that it has any in."""
    counts: dict[PipelinePath, dict[EventState, int]] = {}
    columns = inbox_counts.c
    query = inbox_counts.select().where(columns.events > 0).order_by(columns.team, columns.pipeline, columns.state)
    for row in connection.execute(query):
        counts.setdefault((row.team, row.pipeline), {})[row.state] = row.events
    return counts


def read_counter(connection: sa.Connection, name: str) -> int:
    """Return one of the inbox's two numbers."""
    query = sa.select(inbox_counters.c.value).where(inbox_counters.c.name == name)
    return connection.execute(query).scalar_one()


def _of(pipelines: Collection[PipelinePath]) -> sa.ColumnElement[bool]:
    return sa.tuple_(_EVENT.team, _EVENT.pipeline).in_(sorted(set(pipelines)))


def _events(connection: sa.Connection, query: sa.Select) -> list[InboxEvent]:
    return [event_of(row) for row in connection.execute(query).mappings()]
