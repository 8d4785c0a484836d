"""Hash chains: how a ledger's row is hashed, how rows continue their streams, and which rows were tampered with."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from ml_assets.errors import LedgerError
from ml_assets.interfaces import NO_HASH, ChainHead, ChainProblem, Ledger, PipelinePath
from ml_assets.ledger_rows import Kind, Row, canonical_json, home_streams, pipeline_streams, stream_name

_MOST_COMPARED = 100
"""Changed rows of one stream that are compared with each other, to tell a changed order from a changed content."""

_ANCHOR_FORMAT = 1
_GENESIS = ChainHead(position=0, row_hash=NO_HASH)


class ChainRow(NamedTuple):
    """One stored row, as it is verified.

    Attributes:
        sequence: Order of recording over all streams of its table.
        stream: Stream that the row says it is in.
        position: Position that the row says it has, from 1.
        previous_hash: Hash of the row before, as stored.
        row_hash: Hash of this row, as stored.
        content: All other columns, or None when one of them cannot be read any more.
    """

    sequence: int
    stream: str
    position: int
    previous_hash: str
    row_hash: str
    content: Row | None


def row_hash(content: Mapping[str, object], *, stream: str, position: int, previous_hash: str) -> str:
    """Return the SHA-256 of a row's content, its place and the hash before, as 64 hexadecimal digits.

    Args:
        content: Column → JSON value; instants as datetimes with a time zone. A missing column is not a None.
        stream: Name of the stream.
        position: Position in the stream, from 1.
        previous_hash: Hash of the row before, `NO_HASH` for the first.

    Raises:
        TypeError: If a value has no form in JSON.
        ValueError: If a number is NaN or infinite.
    """
    document = dict(content)
    recorded_at = document.get("recorded_at")
    if isinstance(recorded_at, datetime):
        document["recorded_at"] = recorded_at.astimezone(UTC).isoformat(timespec="microseconds")
    document["stream"], document["position"], document["previous_hash"] = stream, position, previous_hash
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def continued(kind: Kind, rows: Iterable[Row], heads: Mapping[str, ChainHead]) -> list[Row]:
    """Return rows with their place and hashes, each after the last one of its stream.

    Args:
        kind: Table of the rows.
        rows: Contents in the order of recording.
        heads: Last row of every stream that has one.
    """
    last, chained = dict(heads), []
    for content in rows:
        stream = stream_name(kind, content)
        before = last.get(stream, _GENESIS)
        place = {"stream": stream, "position": before.position + 1, "previous_hash": before.row_hash}
        head = ChainHead(position=before.position + 1, row_hash=row_hash(content, **place))
        chained.append({**content, **place, "row_hash": head.row_hash})
        last[stream] = head
    return chained


def chain_problems(kind: Kind, rows: Iterable[ChainRow]) -> Iterator[ChainProblem]:
    """Yield every row that was changed, removed, reordered or inserted, stream by stream and by position.

    Only what is wrong is kept in memory. Whoever rewrites a row and all rows after it, or cuts off the last ones,
    leaves a chain that is sound in itself; `check_anchor` finds that.

    Args:
        kind: Table of the rows.
        rows: All rows of each stream, sorted by stream, position and sequence.
    """
    for stream, members in groupby(rows, key=attrgetter("stream")):
        walk = _Walk(kind, stream)
        for position, group in groupby(members, key=attrgetter("position")):
            walk.take(position, list(group))
        yield from walk.problems()


@dataclass
class _Walk:
    """The way through one stream: what was seen last, and what was wrong so far."""

    kind: Kind
    stream: str
    expected: int = 1
    before: Sequence[ChainRow] = ()
    before_is_sound: bool = True
    shift: int = 1
    changed: list[ChainRow] = field(default_factory=list)
    moved: dict[int, int] = field(default_factory=dict)
    found: list[tuple[int, str]] = field(default_factory=list)

    def take(self, position: int, rows: list[ChainRow]) -> None:
        """Check the rows that hold one position."""
        follows = position == self.expected
        if position > self.expected:
            self.found.append((self.expected, _missing(self.expected, position - 1)))
        if len(rows) > 1:
            numbers = ", ".join(str(row.sequence) for row in rows)
            self.found.append(
                (position, f"inserted or forked: {len(rows)} rows hold this position (sequences {numbers})")
            )
        sound = len(rows) == 1 and self._is_sound(rows[0])
        if sound and follows and self.before_is_sound:
            self._check_link(rows[0])
        self.before, self.before_is_sound = rows, sound
        self.expected = max(self.expected, position + 1)

    def problems(self) -> list[ChainProblem]:
        """Return what was wrong, by position, after the last row was taken."""
        self._explain_changed()
        recorded = set(self.moved.values())
        for position, origin in self.moved.items():
            lost = "" if position in recorded else "; the row that was recorded here is missing"
            self.found.append((position, f"order changed: this row was recorded at position {origin}{lost}"))
        for row in self.changed:
            text = _changed(row)
            if row.position in recorded:
                text = "inserted: the row that was recorded here has been moved to another position"
            self.found.append((row.position, text))
        return [ChainProblem(stream=self.stream, position=p, problem=text) for p, text in sorted(self.found)]

    def _is_sound(self, row: ChainRow) -> bool:
        """Return whether a row has the hash it was recorded with, and note it when not."""
        if _hash_at(row, row.position) == row.row_hash:
            return self._is_at_home(row)
        for shift in (self.shift, 1, -1):
            if row.content is not None and _hash_at(row, row.position + shift) == row.row_hash:
                self.shift = shift
                self.moved[row.position] = row.position + shift
                return False
        if len(self.changed) < _MOST_COMPARED:
            self.changed.append(row)
        else:
            self.found.append((row.position, _changed(row)))
        return False

    def _is_at_home(self, row: ChainRow) -> bool:
        homes = home_streams(self.kind, row.content or {})
        if self.stream not in homes:
            self.found.append((row.position, f"inserted: by its content this row belongs to {homes[0]}"))
        return self.stream in homes

    def _check_link(self, row: ChainRow) -> None:
        """Check that a sound row continues the sound row before it."""
        if row.previous_hash != (self.before[0].row_hash if self.before else NO_HASH):
            if not self.before:
                self.found.append((row.position, "inserted: the first row does not begin the chain"))
                return
            text = f"changed and hashed again: row {row.position} continues another hash than this row has"
            self.found.append((row.position - 1, text))
        elif self.before and row.sequence <= self.before[0].sequence:
            text = f"its sequence {row.sequence} is not after the {self.before[0].sequence} before it"
            self.found.append((row.position, f"order changed: {text}"))

    def _explain_changed(self) -> None:
        """Find out which of the changed rows have only changed places with one another."""
        for row in list(self.changed):
            origin = next((o.position for o in self.changed if _was_recorded_as(row, o)), None)
            if origin is not None:
                self.moved[row.position] = origin
        self.changed = [row for row in self.changed if row.position not in self.moved]


def _was_recorded_as(row: ChainRow, other: ChainRow) -> bool:
    """Return whether a row was recorded at another row's position: with its own hashes, or with the other's."""
    if row.content is None or row.position == other.position:
        return False
    whole = _hash_at(row, other.position) == row.row_hash
    return whole or _hash_at(row._replace(previous_hash=other.previous_hash), other.position) == other.row_hash


def _hash_at(row: ChainRow, position: int) -> str | None:
    if row.content is None:
        return None
    try:
        return row_hash(row.content, stream=row.stream, position=position, previous_hash=row.previous_hash)
    except (TypeError, ValueError):
        return None


def _missing(first: int, last: int) -> str:
    return "removed: this row is missing" if first == last else f"removed: rows {first} to {last} are missing"


def _changed(row: ChainRow) -> str:
    if row.content is None:
        return "changed: a column cannot be read any more"
    return f"changed: the content (sequence {row.sequence}) is not what was recorded, or was inserted"


class AnchorStore(Protocol):
    """One place where anchors are kept, out of reach of whoever can write the ledger."""

    @property
    def url(self) -> str:
        """Return the place, for messages."""
        ...

    def write(self, heads: Mapping[str, ChainHead], now: datetime) -> str:
        """Write an anchor, whole or not at all, and return the address of its file.

        Raises:
            LedgerError: If the newest anchor knows a longer or another stream, or the place cannot be written.
        """
        ...

    def read(self) -> dict[str, Any] | None:
        """Return the newest anchor's document, or None when there is none.

        Raises:
            LedgerError: If the place or the newest file cannot be read.
        """
        ...


def anchor_document(heads: Mapping[str, ChainHead]) -> dict[str, Any]:
    """Return the JSON document that remembers where every stream ended."""
    streams = {s: {"position": h.position, "row_hash": h.row_hash} for s, h in sorted(heads.items())}
    return {"format": _ANCHOR_FORMAT, "streams": streams}


def anchored_heads(document: Mapping[str, Any]) -> dict[str, ChainHead]:
    """Return the heads that an anchor's document remembers.

    Raises:
        LedgerError: If it is not an anchor of this format.
    """
    try:
        if document["format"] != _ANCHOR_FORMAT:
            raise LedgerError(
                f"The anchor has format {document['format']!r}; this release of ml_assets reads {_ANCHOR_FORMAT}. "
                "A newer release has written it: upgrade ml_assets here."
            )
        return {
            str(stream): ChainHead(position=int(head["position"]), row_hash=str(head["row_hash"]))
            for stream, head in document["streams"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LedgerError(
            f"The anchor's document cannot be read ({type(error).__name__}: {error}). Expected what "
            "`ml-assets ledger anchor` writes; look at who changed the file."
        ) from error


def check_anchor(
    document: Mapping[str, Any], ledger: Ledger, pipeline: PipelinePath | None = None
) -> list[ChainProblem]:
    """Return the streams (of one pipeline) that no longer hold what they held when they were anchored.

    Args:
        document: As `anchor_document` returned it.
        ledger: What is compared.
        pipeline: Only this pipeline's streams; all when None.

    Raises:
        LedgerError: If the document is no anchor.
    """
    heads, problems = ledger.heads(pipeline), []
    wanted = None if pipeline is None else set(pipeline_streams(pipeline))
    for stream, anchored in sorted(anchored_heads(document).items()):
        if wanted is not None and stream not in wanted:
            continue
        found, end = ledger.hash_at(stream, anchored.position), heads.get(stream, _GENESIS).position
        if found == anchored.row_hash:
            continue
        text = f"rewritten: the anchor knows this row with the hash {anchored.row_hash[:12]}…"
        if found is None:
            text = f"cut off: the anchor knows {anchored.position} rows; now the stream ends at row {end}"
        problems.append(ChainProblem(stream=stream, position=anchored.position, problem=text))
    return problems
