"""Verdicts, decisions and records as the flat rows that a ledger stores; what no database can hold is refused here."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal, TypeVar, get_args

from ml_assets.errors import LedgerError
from ml_assets.interfaces import (
    AssetPath,
    Decision,
    DecisionOutcome,
    PipelinePath,
    Record,
    RecordKind,
    Verdict,
)

Kind = Literal["verdicts", "decisions", "records"]
OneRow = TypeVar("OneRow", bound=Mapping[Any, Any])
Row = dict[str, Any]
"""Column → value: text, None, a list or dict of JSON, or an instant in UTC as datetime."""

KINDS: tuple[Kind, ...] = ("decisions", "records", "verdicts")
STREAMS: Mapping[str, Kind] = {
    "automation": "records",
    "decisions": "decisions",
    "records": "records",
    "verdicts": "verdicts",
}
"""First word of a stream's name → table that holds its rows."""
AUTOMATED: frozenset[RecordKind] = frozenset({"automation", "pause"})
"""Kinds of records that nobody signs; among the others, each would make the statements signed before it stale."""
JSON_COLUMNS = frozenset({"evidence", "body", "launched_by"})
CHAIN_COLUMNS = frozenset({"sequence", "stream", "position", "previous_hash", "row_hash"})
"""What a table has beside a row's content: where the row stands, and the hashes that hold it there."""

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(value: Any) -> str:
    r"""Return the one JSON text of a value: sorted keys, no spaces, no NaN, ASCII only.

    >>> canonical_json({"b": [1.5, None], "a": "é"})
    '{"a":"\\u00e9","b":[1.5,null]}'

    Raises:
        ValueError: If it holds NaN or an infinity.
        TypeError: If it holds something that JSON has no form for.
    """
    return _ENCODER.encode(value)


def verdict_row(verdict: Verdict, now: datetime) -> Row:
    """Return a verdict's row, recorded `now` unless it says when.

    Raises:
        LedgerError: If a field cannot be stored.
    """
    what = f"the verdict of {verdict.check!r} on {verdict.asset}"
    row = {
        "recorded_at": _instant(verdict.recorded_at, now, what),
        "asset": joined_asset(verdict.asset),
        "partition": verdict.partition,
        "data_version": verdict.data_version,
        "policy_version": verdict.policy_version,
        "check_name": verdict.check,
        "outcome": verdict.outcome,
        "severity": verdict.severity,
        "reason": verdict.reason,
        "run_id": verdict.run_id,
        "policy_digest": verdict.policy_digest,
    }
    return _checked_texts(row, what) | {"evidence": _plain("evidence", verdict.evidence, what)}


def verdict_of(row: Mapping[Any, Any]) -> Verdict:
    """Return the verdict that a stored row holds."""
    fields = {name: value for name, value in _content(row).items() if name not in {"asset", "check_name"}}
    return Verdict(asset=tuple(row["asset"].split("/")), check=row["check_name"], **fields)


def decision_row(decision: Decision, now: datetime) -> Row:
    """Return a decision's row, recorded `now` unless it says when.

    Raises:
        LedgerError: If a field cannot be stored.
    """
    what = f"the decision on {decision.pipeline}, {decision.partition}"
    _require_word("outcome", decision.outcome, get_args(DecisionOutcome), what)
    team, pipeline = checked_pipeline(decision.pipeline)
    row = {
        "recorded_at": _instant(decision.recorded_at, now, what),
        "team": team,
        "pipeline": pipeline,
        "partition": decision.partition,
        "outcome": decision.outcome,
        "reason": decision.reason,
        "model_name": decision.model_name,
        "model_version": decision.model_version,
        "champion_version": decision.champion_version,
        "data_version": decision.data_version,
        "policy_version": decision.policy_version,
        "run_id": decision.run_id,
        "model_digest": decision.model_digest,
        "evaluation_digest": decision.evaluation_digest,
        "policy_digest": decision.policy_digest,
        "decided_by": decision.decided_by,
    }
    return _checked_texts(row, what) | {
        "evidence": _plain("evidence", decision.evidence, what),
        "launched_by": _plain("launched_by", list(decision.launched_by), what),
    }


def decision_of(row: Mapping[Any, Any]) -> Decision:
    """Return the decision that a stored row holds."""
    fields = {name: value for name, value in _content(row).items() if name not in {"team", "pipeline", "launched_by"}}
    fields["evidence"] = fields["evidence"] if isinstance(fields["evidence"], dict) else {}
    return Decision(pipeline=(row["team"], row["pipeline"]), launched_by=_names(row["launched_by"]), **fields)


def _names(value: Any) -> tuple[str, ...]:
    """Return names as they were stored; whatever is none, as somebody unknown."""
    return tuple(name if isinstance(name, str) else "" for name in value) if isinstance(value, list) else ("",)


def record_row(record: Record, now: datetime) -> Row:
    """Return a record's row, recorded `now` unless it says when.

    Raises:
        LedgerError: If a field cannot be stored.
    """
    what = f"the {record.kind} of {record.pipeline}"
    _require_word("kind", record.kind, get_args(RecordKind), what)
    team, pipeline = checked_pipeline(record.pipeline)
    row = {
        "recorded_at": _instant(record.recorded_at, now, what),
        "team": team,
        "pipeline": pipeline,
        "kind": record.kind,
        "subject": record.subject,
    }
    return _checked_texts(row, what) | {"body": _plain("body", record.body, what)}


def record_of(row: Mapping[Any, Any]) -> Record:
    """Return the record that a stored row holds, with its stream and hashes."""
    return Record(
        pipeline=(row["team"], row["pipeline"]),
        kind=row["kind"],
        subject=row["subject"],
        body=row["body"] if isinstance(row["body"], dict) else {},
        stream=row["stream"],
        previous_hash=row["previous_hash"],
        row_hash=row["row_hash"],
        recorded_at=row["recorded_at"],
    )


def stream_name(kind: Kind, row: Mapping[Any, Any]) -> str:
    """Return the stream that a new row is appended to by its content.

    >>> stream_name("verdicts", {"asset": "flights/arrival_delay/models/logistic"})
    'verdicts/flights/arrival_delay'
    """
    return home_streams(kind, row)[0]


def home_streams(kind: Kind, row: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the streams in which a stored row may stand by its content; the first one is where it goes now.

    Records of automation were kept in "records" before they had a stream of their own, and stay where they are.

    >>> home_streams("records", {"kind": "pause", "team": "flights", "pipeline": "arrival_delay"})
    ('automation/flights/arrival_delay', 'records/flights/arrival_delay')
    """
    path = row["asset"].split("/", 2)[:2] if kind == "verdicts" else (row["team"], row["pipeline"])
    words = ("automation", "records") if kind == "records" and row["kind"] in AUTOMATED else (kind,)
    return tuple("/".join((word, *path)) for word in words)


def pipeline_streams(pipeline: PipelinePath, kind: Kind | None = None) -> dict[str, Kind]:
    """Return the table of each of a pipeline's streams (in one table), by the stream's name."""
    return {"/".join((word, *pipeline)): table for word, table in STREAMS.items() if kind in {None, table}}


def in_order(rows: Iterable[OneRow]) -> list[OneRow]:
    """Return stored rows of several streams in the order of recording.

    Within a stream the positions say the order, which the hashes hold; the sequence, which no hash holds, only says
    how the streams lie between each other.

    Args:
        rows: Rows with "stream", "position" and "sequence", sorted by stream and position.
    """
    streams = [list(members) for _, members in groupby(rows, key=itemgetter("stream"))]
    return list(merge(*streams, key=itemgetter("sequence")))


def joined_asset(asset: AssetPath) -> str:
    """Return an asset's path as one text.

    Raises:
        LedgerError: If it is empty or ambiguous.
    """
    if not asset or any(not segment or "/" in segment for segment in asset):
        raise LedgerError(
            f"The asset path {asset!r} cannot be stored in the ledger. Expected at least one segment, none "
            "of them empty or with a '/'."
        )
    return "/".join(asset)


def checked_pipeline(pipeline: PipelinePath) -> PipelinePath:
    """Return a pipeline's path.

    Raises:
        LedgerError: If the team or the name is empty or has a '/', so that its streams were ambiguous.
    """
    if any(not segment or "/" in segment for segment in pipeline):
        raise LedgerError(
            f"The pipeline {pipeline!r} cannot be stored in the ledger. Expected (team, pipeline), none of them "
            "empty or with a '/'."
        )
    return pipeline


def _require_word(name: str, word: str, words: Sequence[str], what: str) -> None:
    if word not in words:
        raise LedgerError(f"The {name} of {what} is {word!r}; expected one of {', '.join(words)}.")


def _content(row: Mapping[Any, Any]) -> Row:
    return {name: value for name, value in row.items() if name not in CHAIN_COLUMNS}


def _instant(recorded_at: datetime | None, now: datetime, what: str) -> datetime:
    if recorded_at is None:
        return now
    if recorded_at.utcoffset() is None:
        raise LedgerError(
            f"recorded_at of {what} is {recorded_at.isoformat()} without a time zone. Expected UTC, or None."
        )
    return recorded_at.astimezone(UTC)


def _checked_texts(row: Row, what: str) -> Row:
    """Return the row; refuse texts that one of the databases cannot hold."""
    for name, value in row.items():
        if isinstance(value, str) and ("\x00" in value or not _encodes(value)):
            raise LedgerError(
                f"{name} of {what} is {value[:80]!r}, which holds a character that databases cannot store. "
                "Expected text without NUL and lone surrogates; write such values with repr()."
            )
    return row


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(name: str, value: Any, what: str) -> Any:
    """Return a value as JSON gives it back, so that its hash today is its hash when it is read."""
    try:
        return json.loads(canonical_json(dict(value) if isinstance(value, Mapping) else value))
    except (TypeError, ValueError) as error:
        raise LedgerError(
            f"The {name} of {what} is not JSON: {error}. Expected dicts with text keys, lists, text, "
            "finite numbers, booleans and None; write None for a number that is not defined."
        ) from error
