"""Retraining attempts as the ledger's "automation" records tell them: started, tried again, ended."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from ml_assets.interfaces import Record
from ml_assets.retraining.decision import gist

Ending = Literal["succeeded", "refused", "failed", "lost"]
"""succeeded: a candidate was decided on and no gate refused it; lost: the run died of something outside of it."""
RETRY_AFTER = (timedelta(minutes=5), timedelta(minutes=30))
"""How long after a lost run the attempt's next one may start; a run lost after them counts as failed."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How one run of an attempt ended.

    Attributes:
        number: Which run, from 1.
        ending: See `Ending`.
        at: When that was recorded (UTC).
        run_id: The engine's run; empty when there never was one.
        reason: Why it did not succeed.
        core_hours: What it cost.
    """

    number: int
    ending: Ending
    at: datetime
    run_id: str
    reason: str
    core_hours: float


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One decision to retrain, with the runs that were started for it.

    Attributes:
        key: Names it; the run of number n has the run key "<key>:<n>".
        period: Time partition that is trained for.
        causes: Cause → digest of the evidence that it was started for.
        inputs: Digest of the data that it learns from and is evaluated on.
        starts: When each run was started (UTC).
        ends: How they ended.
    """

    key: str
    period: str
    causes: Mapping[str, str]
    inputs: str
    starts: tuple[datetime, ...]
    ends: tuple[End, ...] = ()

    @property
    def run_key(self) -> str:
        """Return the key of its newest run."""
        return f"{self.key}:{len(self.starts)}"

    @property
    def is_open(self) -> bool:
        """Whether a run of it is under way."""
        return len(self.ends) < len(self.starts)

    @property
    def retry_at(self) -> datetime | None:
        """Return from when its next run may start; None when there will be none."""
        if self.is_open or self.ends[-1].ending != "lost" or len(self.ends) > len(RETRY_AFTER):
            return None
        return self.ends[-1].at + RETRY_AFTER[len(self.ends) - 1]

    @property
    def ending(self) -> Ending | None:
        """Return how it ended at last, or None while a run is under way or will be tried again."""
        if self.is_open or self.retry_at is not None:
            return None
        return "failed" if self.ends[-1].ending == "lost" else self.ends[-1].ending


@dataclass(frozen=True, kw_only=True)
class Request:
    """Somebody's wish to retrain.

    Attributes:
        by: Who asked.
        reason: Why, in a sentence.
        at: When (UTC).
        evidence: Hash of its record.
    """

    by: str
    reason: str
    at: datetime
    evidence: str


@dataclass(frozen=True, kw_only=True)
class History:
    """Everything that automation recorded of one pipeline.

    Attributes:
        attempts: Oldest first.
        request: The newest request of a person, answered or not.
        last: Body of the last decision that was recorded; None when there is none.
        head: Hash of the last record that was read; empty when there is none.
    """

    attempts: tuple[Attempt, ...] = ()
    request: Request | None = None
    last: Mapping[str, Any] | None = field(default=None, repr=False)
    head: str = ""

    @property
    def newest(self) -> Attempt | None:
        """Return the newest attempt, or None."""
        return self.attempts[-1] if self.attempts else None

    @property
    def failures(self) -> int:
        """Return how many attempts failed or were refused in a row, up to now."""
        count = 0
        for attempt in reversed(self.attempts):
            if attempt.ending is None:
                continue
            if attempt.ending == "succeeded":
                break
            count += 1
        return count

    def starts_since(self, instant: datetime) -> list[datetime]:
        """Return when runs were started after an instant, oldest first."""
        return sorted(at for attempt in self.attempts for at in attempt.starts if at > instant)

    def core_hours_since(self, instant: datetime) -> float:
        """Return what the runs cost that ended after an instant."""
        return sum(end.core_hours for attempt in self.attempts for end in attempt.ends if end.at > instant)


def read_history(records: Iterable[Record]) -> History:
    """Return what a pipeline's records of kind "automation" say, oldest first."""
    attempts: dict[str, Attempt] = {}
    request: Request | None = None
    last: Mapping[str, Any] | None = None
    head = ""
    for record in records:
        body, at, head = record.body, record.recorded_at, record.row_hash
        if at is None or not _is_whole(body):
            continue
        match body.get("event"):
            case "request":
                request = Request(by=body["by"], reason=body["reason"], at=at, evidence=record.row_hash)
            case "decision":
                last = body
                if body["outcome"] == "retrain":
                    attempts[body["key"]] = _started(attempts.get(body["key"]), record, at)
            case "ended" if body["key"] in attempts:
                attempt = attempts[body["key"]]
                attempts[attempt.key] = replace(attempt, ends=(*attempt.ends, _end(body, at)))
    return History(attempts=tuple(attempts.values()), request=request, last=last, head=head)


def _is_whole(body: Mapping[str, Any]) -> bool:
    """Whether a record has what its event needs: the ledger forgets nothing, so a broken one must stop no pipeline."""
    try:
        match body.get("event"):
            case "request":
                return isinstance(body["by"], str) and isinstance(body["reason"], str)
            case "decision":
                told = [*(guard["sentence"] for guard in body["guards"]), *(c["sentence"] for c in body["causes"])]
                hash((gist("", body), body["inputs"], *(cause["evidence"] for cause in body["causes"]), *told))
            case "ended":
                hash((body["key"], body["ending"], body["run_id"], body["reason"]))
                return isinstance(body["number"], int) and isinstance(body["core_hours"], int | float)
            case _:
                return False
    except (KeyError, TypeError):
        return False
    return True


def _started(attempt: Attempt | None, record: Record, at: datetime) -> Attempt:
    if attempt is not None:
        return replace(attempt, starts=(*attempt.starts, at))
    body = record.body
    return Attempt(
        key=body["key"],
        period=record.subject,
        causes={cause["name"]: cause["evidence"] for cause in body["causes"] if cause["counts"]},
        inputs=body["inputs"],
        starts=(at,),
    )


def _end(body: Mapping[str, Any], at: datetime) -> End:
    return End(
        number=body["number"],
        ending=body["ending"],
        at=at,
        run_id=body["run_id"],
        reason=body["reason"],
        core_hours=body["core_hours"],
    )
