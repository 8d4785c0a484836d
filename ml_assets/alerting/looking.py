"""Looks at what changed since the last look, and returns the alerts that may be new."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from ml_assets.alerting.raising import awaiting_approval, breaker_opened, dead_letters, gates_failed, incidents
from ml_assets.approvals.waivers import live_waiver
from ml_assets.errors import MlAssetsError
from ml_assets.interfaces import Alert, Inbox, Ledger, PipelinePath, PolicySource, Record, Verdict
from ml_assets.stages.step import launchers_of

JUDGED = ("raw_data", "features", "evaluation")
"""Stages whose gates may be closed; the other checks are warnings, or ask for approval."""
OVERLAP = timedelta(minutes=5)
"""Rows are read again for this long: a run stamps its rows before its transaction is seen by others."""
MOST_DEAD = 1000
INBOX = "inbox"
UNREADABLE = (MlAssetsError, AttributeError, KeyError, TypeError, ValueError)
"""What reading a pipeline's policy or its tampered rows may raise."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What was seen of one source: a pipeline's rows, the inbox, or the engine's freshness.

    Attributes:
        mark: What it looked like.
        seen_at: When it was read last (UTC).
        told: Digests of the alerts that it gave then; they are known, and not raised again.
    """

    mark: str
    seen_at: datetime
    told: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """What is remembered between looks. All but `start` only saves work: an alert is raised once in any case.

    Attributes:
        start: When alerts were looked for first; verdicts and incidents before it are history (UTC).
        channels: Over which alerts were sent then.
        ledger: Mark of the whole ledger.
        places: Source → what was seen of it.
    """

    start: datetime
    channels: tuple[str, ...]
    ledger: str = ""
    places: Mapping[str, Place] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str | None, channels: tuple[str, ...], now: datetime) -> Self:
        """Return the cursor that `text` wrote, or a new one; with other channels, one that has told nothing yet."""
        try:
            values: dict[str, Any] = json.loads(text or "{}")
            same = tuple(values["channels"]) == channels
            places = {
                name: Place(mark=mark if same else "", seen_at=_instant(at), told=tuple(told) if same else ())
                for name, (mark, at, told) in values["places"].items()
            }
            ledger = values["ledger"] if same else ""
            return cls(start=_instant(values["start"]), channels=channels, ledger=ledger, places=places)
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls(start=now, channels=channels)

    @property
    def text(self) -> str:
        """Return it as JSON."""
        places = {name: [p.mark, p.seen_at.timestamp(), p.told] for name, p in self.places.items()}
        values = {"start": self.start.timestamp(), "channels": self.channels, "ledger": self.ledger, "places": places}
        return json.dumps(values, separators=(",", ":"), sort_keys=True)

    def is_at(self, name: str, mark: str) -> bool:
        """Whether a source looks as it did."""
        return name in self.places and self.places[name].mark == mark

    def take(self, name: str, mark: str, found: Iterable[Alert], now: datetime) -> tuple[list[Alert], Self]:
        """Return the alerts of a source that were not told at its last look, and the cursor after it."""
        known = self.places[name].told if name in self.places else ()
        digests = {hashlib.sha256(alert.key.encode()).hexdigest()[:16]: alert for alert in found}
        place = Place(mark=mark, seen_at=now, told=tuple(digests))
        fresh = [alert for digest, alert in digests.items() if digest not in known]
        return fresh, replace(self, places={**self.places, name: place})


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where it is looked.

    Attributes:
        ledger: Verdicts, decisions and records.
        inbox: Dead letters.
        policy: Says which waivers count.
        pipelines: Whose alerts they are.
    """

    ledger: Ledger
    inbox: Inbox
    policy: PolicySource
    pipelines: Sequence[PipelinePath]


def look(sources: Sources, cursor: Cursor, now: datetime) -> tuple[list[Alert], Cursor, list[str]]:
    """Return the alerts that may be new, the next cursor, and what could not be read.

    While ledger and inbox are as they were, only their marks are asked for.

    Args:
        sources: Where to look.
        cursor: Of the last look.
        now: The instant.
    """
    found: list[Alert] = []
    unread: list[str] = []
    mark = sources.ledger.mark()
    if mark != cursor.ledger:
        for path in sources.pipelines:
            try:
                alerts, cursor = _look_at_pipeline(sources, path, cursor, now)
            except UNREADABLE as error:  # one pipeline must not keep the others' alerts back
                unread.append(f"{'/'.join(path)}: {type(error).__name__}: {error}")
            else:
                found += alerts
        cursor = replace(cursor, ledger="" if unread else mark)
    inbox = sources.inbox.mark()
    if not cursor.is_at(INBOX, inbox):
        dead = sources.inbox.events(pipelines=sources.pipelines, states=["dead"], limit=MOST_DEAD)
        alerts, cursor = cursor.take(INBOX, inbox, dead_letters(reversed(dead)), now)
        found += alerts
    return found, cursor, unread


def _look_at_pipeline(
    sources: Sources, path: PipelinePath, cursor: Cursor, now: datetime
) -> tuple[list[Alert], Cursor]:
    name, ledger = "/".join(path), sources.ledger
    heads = "".join(f"{stream[0]}{head.position}" for stream, head in sorted(ledger.heads(path).items()))
    if cursor.is_at(name, heads):
        return [], cursor
    last = cursor.places.get(name)
    after = cursor.start if last is None else max(cursor.start, last.seen_at - OVERLAP)
    records = ledger.records(path)
    verdicts = [verdict for stage in JUDGED for verdict in ledger.verdicts((*path, stage))]
    found = [
        *gates_failed(verdicts, after=after, waived=_waived(sources, path, records, now)),
        *awaiting_approval(ledger.decisions(path)),
        *breaker_opened(path, [record for record in records if record.kind == "automation"]),
        *incidents(records, after=after),
    ]
    return cursor.take(name, heads, found, now)


def _waived(
    sources: Sources, path: PipelinePath, records: Sequence[Record], now: datetime
) -> Callable[[Verdict], bool]:
    """Return whether a waiver counts now, by the rules of whoever reads the data; none does without a policy."""
    given = [record for record in records if record.kind == "waiver"]

    def is_waived(verdict: Verdict) -> bool:
        try:
            policy, people = sources.policy.effective(path), sources.policy.people()
            launched_by = launchers_of(sources.ledger, verdict)
            return live_waiver(verdict, given, policy, people, at=now, launched_by=launched_by) is not None
        except UNREADABLE:
            return False

    return is_waived if given else lambda _: False


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
