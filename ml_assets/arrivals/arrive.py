"""One look at a pipeline's landing folder: good files become events, bad ones go to quarantine."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from ml_assets.arrivals.inspect import Accepted, Rejected, Unchanged, Waiting, inspect
from ml_assets.arrivals.known import KnownFiles, storable
from ml_assets.arrivals.listing import Candidate, Cursor, scan
from ml_assets.arrivals.one_file import listed_alone, name_of
from ml_assets.arrivals.pattern import ArrivalPattern
from ml_assets.arrivals.quarantine import ChangedMeanwhileError, quarantine
from ml_assets.arrivals.settings import SOURCE, ArrivalSettings
from ml_assets.arrivals.usual_size import UsualSizes
from ml_assets.errors import SourceError
from ml_assets.interfaces import DataStore, Event, EventFailure, Inbox, InboxEvent, Receipt
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.sources import LandingZone

NO_PARTITION = "-"
"""Partition of a dead letter about a file whose name means none."""

_LONGEST_PLACE = 400

Fate = Literal["accepted", "unchanged", "waiting", "gone", "quarantined", "buried"]


class ArrivalServices(Protocol):
    """What arrivals need of the world; `Services` of the stages has it."""

    @property
    def landing(self) -> LandingZone:
        """Return where files arrive."""
        ...

    @property
    def inbox(self) -> Inbox:
        """Return where events go."""
        ...

    @property
    def data_store(self) -> DataStore:
        """Return where it is noted what partitions were made of."""
        ...


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A file that was put aside.

    Attributes:
        place: Where it had landed.
        moved_to: Where it is now; its reason lies beside it.
        reason: Why.
    """

    place: str
    moved_to: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """What one look brought.

    Attributes:
        cursor: For the next look; store it only after this one's result was used.
        receipt: What the inbox took.
        quarantined: Bad files that were put aside.
        buried: Dead letters of bad files that could not be put aside.
        waiting: Files that come again: not complete yet, over the rate cap, or left for want of time.
        reasons: Why some of them wait, a sentence each, at most ten.
        in_vain: Of files whose bytes came before and were given up: what starts them again, at most ten.
    """

    cursor: Cursor
    receipt: Receipt = field(default_factory=Receipt)
    quarantined: tuple[Quarantined, ...] = ()
    buried: tuple[InboxEvent, ...] = ()
    waiting: int = 0
    reasons: tuple[str, ...] = ()
    in_vain: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Became:
    """What became of one file.

    Attributes:
        fate: "received", "repeated" or "refused" by the inbox; "unchanged": dealt with before; "waiting": offer it
            again; "gone": not there; "not_ours": none of the pipeline's; "quarantined"; "buried": a dead letter.
        reason: Why, for a reader; empty when it was received, and of what was dealt with before unless in vain.
        event: As the inbox has it, when it was received or buried.
        quarantined: Where it was put, when it was.
    """

    fate: Literal[Fate, "received", "repeated", "refused", "not_ours"]
    reason: str = ""
    event: InboxEvent | None = None
    quarantined: Quarantined | None = None


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """What became of one candidate before the inbox was asked."""

    fate: Fate
    reason: str = ""
    event: Event | None = None
    quarantined: Quarantined | None = None
    buried: InboxEvent | None = None


@dataclass(frozen=True, kw_only=True)
class _Desk:
    """Everything that judging one candidate needs."""

    services: ArrivalServices
    pipeline: LoadedPipeline
    pattern: ArrivalPattern
    settings: ArrivalSettings
    known: KnownFiles
    sizes: UsualSizes
    now: datetime

    def judge(self, candidate: Candidate) -> _Judged:
        """Inspect one candidate, and put it aside when it is bad."""
        if self.known.is_same_version(candidate):
            return _Judged(fate="unchanged", reason=self.known.given_up(candidate))
        found = inspect(
            self.services.landing,
            self.pipeline.spec,
            candidate,
            settings=self.settings,
            usual_size=self.sizes.of,
            now=self.now,
            is_known=lambda partition, sha256: self.known.is_same_content(candidate, partition, sha256),
            pattern=self.pattern,
        )
        if isinstance(found, Accepted):
            return _Judged(fate="accepted", event=self.known.event(candidate, found))
        if isinstance(found, Rejected):
            return self._put_aside(candidate, found)
        if isinstance(found, Waiting):
            return _Judged(fate="waiting", reason=storable(found.reason))
        if isinstance(found, Unchanged):
            return _Judged(fate="unchanged", reason=self.known.given_up(candidate))
        return _Judged(fate="gone", reason="The file is no longer there.")

    def is_in_vain(self, candidate: Candidate, judged: _Judged) -> bool:
        """Whether bytes that were given up were landed again; a file that only lies there still is not told anew."""
        return judged.fate == "unchanged" and judged.reason != "" and not self.known.is_same_version(candidate)

    def _put_aside(self, candidate: Candidate, rejected: Rejected) -> _Judged:
        try:
            last = self.known.last.get(storable(candidate.place))
            place = quarantine(
                self.services.landing,
                self.pipeline.spec,
                candidate,
                rejected,
                after_event=0 if last is None else last.number,
                now=self.now,
            )
        except ChangedMeanwhileError as error:
            return _Judged(fate="waiting", reason=str(error))
        except SourceError as error:
            return _Judged(fate="buried", reason=storable(str(error)), buried=self._bury(candidate, rejected, error))
        reason = storable(rejected.reason)
        moved = Quarantined(place=storable(candidate.place), moved_to=place, reason=reason)
        return _Judged(fate="quarantined", reason=reason, quarantined=moved)

    def _bury(self, candidate: Candidate, rejected: Rejected, error: SourceError) -> InboxEvent:
        place, stamp = storable(candidate.place)[-_LONGEST_PLACE:], f"{candidate.stamp:012x}"
        event = Event(
            source=SOURCE,
            key=f"{place}@{stamp}",
            pipeline=self.known.path,
            partition=rejected.partition or NO_PARTITION,
            payload={"place": place, "size": candidate.size, "stamp": stamp, "reason": storable(rejected.reason)},
        )
        failure = EventFailure(reason=storable(str(error)), transient=False)
        return self.services.inbox.bury(event, failure, now=self.now)


def arrive(
    services: ArrivalServices,
    pipeline: LoadedPipeline,
    cursor: Cursor,
    *,
    settings: ArrivalSettings,
    now: datetime,
    time_budget_seconds: float = 20.0,
    clock: Callable[[], float] = time.monotonic,
) -> Arrived:
    """Look for files that arrived, and return what became of them.

    Doing it again with an older cursor, after a kill at any moment, finds the same files and loses or doubles none.

    Args:
        services: Landing zone, inbox and data store.
        pipeline: The pipeline.
        cursor: Of the last look; an empty one at first.
        settings: Limits of the policy.
        now: The instant, UTC.
        time_budget_seconds: No further file is opened after this time; at least one is, and the others come again.
        clock: Seconds that only grow.

    Raises:
        OSError: If the landing folder cannot be listed.
    """
    end = clock() + time_budget_seconds
    pattern = ArrivalPattern.of(pipeline.spec)
    found = scan(services.landing, pattern, cursor, now=now)
    if not found.candidates:
        return Arrived(cursor=cursor.after(found, ()))
    desk = _desk(services, pipeline, pattern, settings, found.candidates, now)
    judged: list[tuple[Candidate, _Judged]] = []
    for candidate in found.candidates:
        judged.append((candidate, desk.judge(candidate)))
        if clock() >= end:
            break
    receipt = _receive(services.inbox, [one.event for _, one in judged if one.event], settings, now)
    refused = {event.key for event in receipt.refused}
    dealt_with = [
        candidate
        for candidate, one in judged
        if one.fate != "waiting" and not (one.event is not None and one.event.key in refused)
    ]
    reasons = [one.reason for _, one in judged if one.fate == "waiting"]
    return Arrived(
        cursor=cursor.after(found, dealt_with),
        receipt=receipt,
        quarantined=tuple(one.quarantined for _, one in judged if one.quarantined),
        buried=tuple(one.buried for _, one in judged if one.buried),
        waiting=len(found.candidates) - len(dealt_with),
        reasons=tuple(reasons[:10]),
        in_vain=tuple(f"{storable(c.place)}: {one.reason}" for c, one in judged if desk.is_in_vain(c, one))[:10],
    )


def arrive_one(
    services: ArrivalServices,
    pipeline: LoadedPipeline,
    place: str,
    *,
    settings: ArrivalSettings,
    now: datetime,
) -> Became:
    """Do with one file what `arrive` does with those that it finds; the next `arrive` then knows it.

    Args:
        services: Landing zone, inbox and data store.
        pipeline: The pipeline.
        place: The file's URL in the form of `source.url`, or its full path or URL.
        settings: Limits of the policy.
        now: The instant, UTC.
    """
    pattern = ArrivalPattern.of(pipeline.spec)
    name = name_of(services.landing, pattern, place)
    if name is None:
        return Became(fate="not_ours", reason=f"{storable(place)} is none of {pipeline.spec.source.url!r}.")
    candidate = listed_alone(services.landing, pattern, name)
    if candidate is None:
        return Became(fate="gone", reason=f"There is no file {storable(place)}.")
    one = _desk(services, pipeline, pattern, settings, (candidate,), now).judge(candidate)
    if one.event is None:
        return Became(
            fate=one.fate if one.fate != "accepted" else "unchanged",
            reason=one.reason,
            event=one.buried,
            quarantined=one.quarantined,
        )
    receipt = _receive(services.inbox, [one.event], settings, now)
    if receipt.new:
        return Became(fate="received", event=receipt.new[0])
    if receipt.refused:
        return Became(fate="refused", reason=f"More than {settings.per_minute} new events within a minute.")
    return Became(fate="repeated", reason="The inbox knows this version of the file.")


def _desk(
    services: ArrivalServices,
    pipeline: LoadedPipeline,
    pattern: ArrivalPattern,
    settings: ArrivalSettings,
    candidates: tuple[Candidate, ...],
    now: datetime,
) -> _Desk:
    path = (pipeline.spec.team, pipeline.spec.name)
    return _Desk(
        services=services,
        pipeline=pipeline,
        pattern=pattern,
        settings=settings,
        known=KnownFiles.of(services.inbox, services.data_store, path, candidates),
        sizes=UsualSizes(services.inbox, pipeline.spec),
        now=now,
    )


def _receive(inbox: Inbox, events: list[Event], settings: ArrivalSettings, now: datetime) -> Receipt:
    if not events:
        return Receipt()
    return inbox.receive(events, dedup=settings.dedup, per_minute=settings.per_minute, now=now)
