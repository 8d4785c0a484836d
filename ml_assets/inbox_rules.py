"""The rules of the event inbox, apart from any database: what an event may be, and what becomes of it."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ml_assets.errors import InboxError
from ml_assets.interfaces.inbox import Event, EventFailure, EventState, InboxEvent, Receipt, RetryPolicy
from ml_assets.interfaces.names import PipelinePath
from ml_assets.ledger_rows import canonical_json
from ml_assets.texts import is_storable, storable_text

RATE_WINDOW = timedelta(minutes=1)
CLOCK_SKEW = timedelta(minutes=1)
"""What came later from now than this was stamped by a clock that was put back since; it counts as long ago."""
MOST_LEVELS = 20
"""Of a payload's nesting."""
LIVE_STATES: tuple[EventState, ...] = ("waiting", "claimed", "running")
BATCH_STATES: tuple[EventState, ...] = ("claimed", "running")
GIVEN_UP_STATES: tuple[EventState, ...] = ("dead", "discarded")

_ALWAYS_REPEATED: frozenset[EventState] = frozenset({*LIVE_STATES, "dead"})
_MOST_BYTES = {"team": 200, "pipeline": 200, "source": 200, "key": 1500, "partition": 1500, "place": 1500}
"""A row of an index on Postgres holds 2,704 bytes; these are the texts that are looked up."""


def checked_event(event: Event) -> Event:
    """Return an event as the inbox keeps it: its payload as JSON gives it back.

    Raises:
        InboxError: If a text is empty, too long, or of characters that databases cannot store, or the payload is
            not JSON.
    """
    what = f"The event {event.key[:80]!r} of {event.source[:80]!r} for {'/'.join(event.pipeline)[:80]}"
    texts = dict(zip(("team", "pipeline"), event.pipeline, strict=True))
    texts |= {"source": event.source, "key": event.key, "partition": event.partition}
    for name, text in texts.items():
        if not text:
            raise InboxError(f"{what} cannot be taken up: its {name} is empty. Expected some text.")
    for name, text in (texts | {"place": place_of(event)}).items():
        if not is_storable(text):
            raise InboxError(
                f"{what} cannot be taken up: its {name} holds a character that databases cannot store. Expected text "
                "without NUL and lone surrogates; write such values with repr()."
            )
        if len(text.encode()) > _MOST_BYTES[name]:
            raise InboxError(
                f"{what} cannot be taken up: its {name} has {len(text.encode()):,} bytes in UTF-8. Expected at most "
                f"{_MOST_BYTES[name]:,}; use a digest of it."
            )
    if not _is_shallow(dict(event.payload), MOST_LEVELS):
        raise InboxError(
            f"{what} cannot be taken up: its payload is nested deeper than {MOST_LEVELS} levels. Expected a flat one, "
            "with the place of anything bigger."
        )
    try:
        payload = json.loads(canonical_json(dict(event.payload)))
    except (TypeError, ValueError) as error:
        raise InboxError(
            f"{what} cannot be taken up: its payload is not JSON: {error}. Expected dicts with text keys, lists, "
            "text, finite numbers, booleans and None."
        ) from error
    return replace(event, payload=payload)


def _is_shallow(value: Any, levels: int) -> bool:
    """Whether a payload is nested no deeper; how deep JSON can be read depends on how deep its reader is called."""
    if not isinstance(value, Mapping | list | tuple):
        return True
    inner = value.values() if isinstance(value, Mapping) else value
    return levels > 0 and all(_is_shallow(each, levels - 1) for each in inner)


def place_of(event: Event) -> str:
    """Return the place that an event's payload names, or nothing."""
    place = event.payload.get("place")
    return place if isinstance(place, str) else ""


EventIdentity = tuple[PipelinePath, str, str]
"""(pipeline, source, key)."""


@dataclass(frozen=True, kw_only=True)
class KnownEvent:
    """What must be known of the last event of a key, to tell whether another one is a repeat of it."""

    number: int
    state: EventState
    received_at: datetime


@dataclass(frozen=True, kw_only=True)
class SortedEvents:
    """Received events as they are to be stored.

    Attributes:
        receipt: What became of each.
        counted: Number of an event that was known before → how often it came again.
    """

    receipt: Receipt
    counted: Mapping[int, int]


def identity_of(event: Event) -> EventIdentity:
    """Return what makes two events repeats of each other."""
    return event.pipeline, event.source, event.key


def sort_received(
    events: Sequence[Event],
    checked: Sequence[Event],
    *,
    known: Mapping[EventIdentity, KnownEvent],
    brought: Mapping[tuple[PipelinePath, str], int],
    last_number: int,
    dedup: timedelta,
    per_minute: int | None,
    now: datetime,
) -> SortedEvents:
    """Tell new events, repeats and those over the rate cap apart, in their order.

    Args:
        events: As they were offered.
        checked: The same, as `checked_event` gave them back.
        known: The last event of each identity that has one.
        brought: How many events each source of each pipeline brought within `RATE_WINDOW` before `now`.
        last_number: Number of the inbox's last event.
        dedup: See `Inbox.receive`.
        per_minute: See `Inbox.receive`.
        now: The instant, UTC.
    """
    last, rates = dict(known), Counter(brought)
    new: dict[int, InboxEvent] = {}
    repeated, refused, counted = [], [], Counter[int]()
    for event, stored in zip(events, checked, strict=True):
        identity, source = identity_of(event), (event.pipeline, event.source)
        before = last.get(identity)
        if before is not None and is_repeat(before.state, before.received_at, dedup, now):
            repeated.append(event)
            counted[before.number] += 1
        elif per_minute is not None and rates[source] >= per_minute:
            refused.append(event)
        else:
            number = last_number + len(new) + 1
            new[number] = new_event(number, stored, now)
            last[identity] = KnownEvent(number=number, state="waiting", received_at=now)
            rates[source] += 1
    taken = tuple(replace(event, repeats=counted.pop(number, 0)) for number, event in new.items())
    receipt = Receipt(new=taken, repeated=tuple(repeated), refused=tuple(refused))
    return SortedEvents(receipt=receipt, counted=counted)


def is_repeat(state: EventState, received_at: datetime, dedup: timedelta, now: datetime) -> bool:
    """Whether an event is a repeat, given the last one of its key: of one that goes on or is dead it always is."""
    return state in _ALWAYS_REPEATED or now - received_at < dedup


def new_event(number: int, event: Event, now: datetime) -> InboxEvent:
    """Return an event as it begins to wait."""
    return InboxEvent(number=number, event=event, state="waiting", received_at=now, seen_at=now, not_before=now)


def buried_event(number: int, event: Event, failure: EventFailure, now: datetime) -> InboxEvent:
    """Return an event that is dead at once."""
    return replace(new_event(number, event, now), state="dead", **_why(failure))


def done_event(event: InboxEvent) -> InboxEvent:
    """Return an event whose partition was made."""
    return replace(event, state="done")


def failed_event(event: InboxEvent, failure: EventFailure, retry: RetryPolicy, now: datetime) -> InboxEvent:
    """Return an event after a run that failed for it: it waits again, or is dead.

    It is dead when trying again cannot help, or after `retry.attempts` runs; otherwise it waits for
    `retry.backoff`, twice as long after each further failure, and never longer than `retry.longest`.
    """
    attempts = event.attempts + 1
    event = replace(event, attempts=attempts, **_why(failure))
    if not failure.transient or attempts >= retry.attempts:
        return replace(event, state="dead")
    doublings = min(attempts - 1, 60)  # more would overflow a timedelta before `longest` cuts it
    seconds = min(retry.backoff.total_seconds() * 2.0**doublings, retry.longest.total_seconds())
    return replace(event, state="waiting", batch=None, not_before=now + timedelta(seconds=seconds))


def released_event(event: InboxEvent) -> InboxEvent:
    """Return an event that waits again as if its batch had not been."""
    return replace(event, state="waiting", batch=None)


def replayed_event(event: InboxEvent, by: str, now: datetime) -> InboxEvent:
    """Return a dead or discarded event as it waits again, with no attempts counted.

    Raises:
        InboxError: If it is in another state.
    """
    _require_given_up(event, "replayed", GIVEN_UP_STATES)
    reason = storable_text(f"Replayed by {by}. Before: {event.reason}")
    return replace(event, state="waiting", attempts=0, not_before=now, batch=None, run_id=None, reason=reason)


def discarded_event(event: InboxEvent, by: str, reason: str) -> InboxEvent:
    """Return a dead event that does not matter; its traceback stays.

    Raises:
        InboxError: If it is in another state.
    """
    _require_given_up(event, "discarded", ("dead",))
    return replace(
        event, state="discarded", reason=storable_text(f"Discarded by {by}: {reason} Before: {event.reason}")
    )


def superseded_event(event: InboxEvent, by: InboxEvent) -> InboxEvent:
    """Return a dead event that a newer one of its partition made up for; its traceback stays."""
    reason = storable_text(f"Superseded by event {by.number}, which made the partition. Before: {event.reason}")
    return replace(event, state="discarded", reason=reason)


def makers_of(done: Iterable[InboxEvent]) -> dict[str, InboxEvent]:
    """Return the newest of some done events for each partition; what came before it is made up for."""
    return {event.event.partition: event for event in sorted(done, key=lambda event: event.number)}


def unknown_event(number: int) -> InboxError:
    """Return the error that says that there is no such event."""
    return InboxError(f"The inbox has no event {number}; `ml-assets dead-letters list` shows the dead ones.")


def unknown_batch(batch: str) -> InboxError:
    """Return the error that says that there is no such batch."""
    return InboxError(
        f"The inbox has no batch {batch!r}, so that it cannot be ended. Expected a name that `claim` was given; was "
        "the ledger's database replaced meanwhile?"
    )


def used_batch(batch: str) -> InboxError:
    """Return the error that says that a batch's name was used before."""
    return InboxError(
        f"The batch {batch!r} has been claimed before. A name is a run's key, which counts once: take a new one."
    )


def require_one_pipeline(batch: str, pipelines: set[tuple[str, str]]) -> None:
    """Refuse a batch of several pipelines.

    Raises:
        InboxError: If there are several.
    """
    if len(pipelines) > 1:
        names = ", ".join(sorted("/".join(path) for path in pipelines))
        raise InboxError(f"The batch {batch!r} would have events of {names}; expected those of one pipeline.")


def require_own(batch: str, failures: set[int], numbers: set[int]) -> None:
    """Refuse failures of events that a batch does not have.

    Raises:
        InboxError: If there is one.
    """
    if foreign := sorted(failures - numbers):
        raise InboxError(
            f"The batch {batch!r} has no event {', '.join(map(str, foreign[:10]))}; it has "
            f"{', '.join(map(str, sorted(numbers)[:10]))}. Nothing was ended: name only its own events as failed."
        )


def _require_given_up(event: InboxEvent, action: str, states: tuple[EventState, ...]) -> None:
    if event.state not in states:
        raise InboxError(
            f"Event {event.number} of {'/'.join(event.event.pipeline)} is {event.state}, and cannot be {action}. "
            f"Expected one that is {' or '.join(states)}; `ml-assets dead-letters list` shows those."
        )


def _why(failure: EventFailure) -> dict[str, str]:
    return {"reason": storable_text(failure.reason), "traceback": storable_text(failure.traceback)}
