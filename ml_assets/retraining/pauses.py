"""Pauses: while one holds, nothing of the pipelines it covers starts by itself."""

from dataclasses import dataclass
from datetime import datetime

from ml_assets.errors import LedgerError
from ml_assets.interfaces import LedgerView, PipelinePath, Record

ALL = "*"
EVERYTHING: PipelinePath = (ALL, ALL)


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Why nothing starts by itself.

    Attributes:
        scope: ("*", "*") for all pipelines, (team, "*") for a team's, or one pipeline.
        by: Who paused.
        reason: Why, in a sentence.
        since: When (UTC).
    """

    scope: PipelinePath
    by: str
    reason: str
    since: datetime

    @property
    def covers(self) -> str:
        """Return in words what is paused."""
        team, pipeline = self.scope
        if team == ALL:
            return "all pipelines"
        return f"all pipelines of {team}" if pipeline == ALL else f"{team}/{pipeline}"

    def __str__(self) -> str:
        """Return one sentence for a reader, without its full stop, which the reason may have."""
        return f"{self.by} paused {self.covers} on {self.since:%Y-%m-%d %H:%M} UTC: {self.reason.removesuffix('.')}"


def scopes_of(path: PipelinePath) -> tuple[PipelinePath, ...]:
    """Return the scopes that cover a pipeline, widest first.

    >>> scopes_of(("flights", "arrival_delay"))
    (('*', '*'), ('flights', '*'), ('flights', 'arrival_delay'))
    """
    return tuple(dict.fromkeys([EVERYTHING, (path[0], ALL), path]))


def paused(ledger: LedgerView, path: PipelinePath) -> Pause | None:
    """Return the widest pause that holds for a pipeline now, or None; three short reads of the ledger."""
    return next((pause for scope in scopes_of(path) if (pause := pause_of(ledger, scope)) is not None), None)


def pause_of(ledger: LedgerView, scope: PipelinePath) -> Pause | None:
    """Return the pause of exactly this scope, or None."""
    records = [record for record in ledger.records(scope, kind="pause") if record.subject in ("pause", "resume")]
    if not records or records[-1].subject != "pause":
        return None
    last = records[-1]
    if last.recorded_at is None:
        raise LedgerError(f"A pause of {'/'.join(scope)} has no time of its own. Check `ml-assets ledger verify`.")
    return Pause(
        scope=scope,
        by=str(last.body.get("by", "somebody")),
        reason=str(last.body.get("reason", "no reason was given")),
        since=last.recorded_at,
    )


def pause(ledger: LedgerView, scope: PipelinePath, *, by: str, reason: str, now: datetime) -> Pause:
    """Pause a scope, or give a pause of the same scope a new reason, and return what holds."""
    _append(ledger, scope, "pause", by, reason, now)
    return Pause(scope=scope, by=by, reason=reason, since=now)


def resume(ledger: LedgerView, scope: PipelinePath, *, by: str, reason: str, now: datetime) -> Pause | None:
    """End the pause of exactly this scope and return it; None, and nothing recorded, when there was none."""
    held = pause_of(ledger, scope)
    if held is not None:
        _append(ledger, scope, "resume", by, reason, now)
    return held


def _append(ledger: LedgerView, scope: PipelinePath, subject: str, by: str, reason: str, now: datetime) -> None:
    record = Record(
        pipeline=scope, kind="pause", subject=subject, body={"by": by, "reason": reason.strip()}, recorded_at=now
    )
    ledger.append(record)
