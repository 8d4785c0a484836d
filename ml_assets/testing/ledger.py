"""FakeLedger, with the suite that every ledger passes and the examples it is tested with."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from datetime import UTC, datetime

from ml_assets.chain import ChainRow, chain_problems, continued
from ml_assets.errors import LedgerConflictError, LedgerError
from ml_assets.interfaces import (
    NO_HASH,
    AssetPath,
    ChainHead,
    ChainProblem,
    Decision,
    LedgerView,
    PipelinePath,
    Record,
    RecordKind,
    Verdict,
)
from ml_assets.ledger_rows import (
    CHAIN_COLUMNS,
    KINDS,
    Kind,
    Row,
    checked_pipeline,
    decision_of,
    decision_row,
    home_streams,
    joined_asset,
    pipeline_streams,
    record_of,
    record_row,
    stream_name,
    verdict_of,
    verdict_row,
)
from ml_assets.testing.ledger_examples import ASSET, PIPELINE, decision, record, verdict
from ml_assets.testing.ledger_suite import LedgerSuite

__all__ = ["ASSET", "PIPELINE", "FakeLedger", "LedgerSuite", "decision", "record", "verdict"]

Tables = dict[Kind, list[Row]]
_WAIT_SECONDS = 30


class _FakeRows(ABC):
    """Reading and appending, wherever the tables are."""

    @abstractmethod
    def _reading(self) -> Tables:
        """Return the tables as they are now."""

    @abstractmethod
    def _writing(self, action: str, kind: Kind, rows: Sequence[Row]) -> AbstractContextManager[Tables]:
        """Enter a block that may append these rows to the tables it is given."""

    def record_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Append all of them, or none when one cannot be stored."""
        now = datetime.now(UTC)
        rows = [verdict_row(verdict, now) for verdict in verdicts]
        with self._writing("Recording verdicts", "verdicts", rows) as tables:
            _append(tables, "verdicts", rows)

    def verdicts(
        self,
        asset: AssetPath,
        partition: str | None = None,
        *,
        data_version: str | None = None,
        policy_version: str | None = None,
    ) -> list[Verdict]:
        """Return the matching verdicts, oldest first; None matches all."""
        wanted = {"partition": partition, "data_version": data_version, "policy_version": policy_version}
        return [verdict_of(row) for row in _matching(self._reading()["verdicts"], asset=joined_asset(asset), **wanted)]

    def record_decision(self, decision: Decision) -> None:
        """Append one decision."""
        row = decision_row(decision, datetime.now(UTC))
        with self._writing("Recording a decision", "decisions", [row]) as tables:
            _append(tables, "decisions", [row])

    def decisions(self, pipeline: PipelinePath) -> list[Decision]:
        """Return the pipeline's decisions, oldest first."""
        team, name = pipeline
        return [decision_of(row) for row in _matching(self._reading()["decisions"], team=team, pipeline=name)]

    def append(self, record: Record, *, after: str | None = None) -> Record:
        """Append one record and return it with its hashes.

        Raises:
            LedgerConflictError: If the last record of the same stream is not `after`.
        """
        row = record_row(record, datetime.now(UTC))
        with self._writing(f"Recording the {record.kind}", "records", [row]) as tables:
            head = _heads(tables, "records").get(stream_name("records", row))
            found = NO_HASH if head is None else head.row_hash
            if after is not None and after != found:
                raise LedgerConflictError(f"The last record has the hash {found}, expected {after}.")
            return record_of(deepcopy(_append(tables, "records", [row])[0]))

    def records(
        self, pipeline: PipelinePath, *, kind: RecordKind | None = None, subject: str | None = None
    ) -> list[Record]:
        """Return the pipeline's matching records of both streams in the order of recording; None matches all."""
        team, name = pipeline
        wanted = {"team": team, "pipeline": name, "kind": kind, "subject": subject}
        found = _matching(self._reading()["records"], **wanted)
        return [record_of(row) for row in found if row["stream"] in home_streams("records", row)]

    def heads(self, pipeline: PipelinePath | None = None) -> dict[str, ChainHead]:
        """Return the last row of every stream (of one pipeline) that has any, by the stream's name."""
        heads = {name: head for kind in KINDS for name, head in _heads(self._reading(), kind).items()}
        wanted = heads.keys() if pipeline is None else pipeline_streams(pipeline)
        return {name: heads[name] for name in sorted(wanted) if name in heads}

    def mark(self) -> str:
        """Return a text that changes whenever anything is appended."""
        return str(sum(len(rows) for rows in self._reading().values()))


class FakeLedger(_FakeRows):
    """A ledger in memory, as strict as a database about what it takes.

    Args:
        wait_seconds: How long a write waits for another thread's exclusive transaction.
    """

    def __init__(self, *, wait_seconds: float = _WAIT_SECONDS) -> None:
        self.tables: Tables = {kind: [] for kind in KINDS}
        self._wait_seconds = wait_seconds
        self._lock = threading.RLock()
        self._exclusive: PipelinePath | None = None

    def hash_at(self, stream: str, position: int) -> str | None:
        """Return the hash of the row at a position of a stream, or None when there is no such row."""
        rows = (row for kind in KINDS for row in self.tables[kind])
        return next((r["row_hash"] for r in rows if (r["stream"], r["position"]) == (stream, position)), None)

    def verify(self, pipeline: PipelinePath | None = None) -> list[ChainProblem]:
        """Walk the chains (of one pipeline) and return every row that is not what was recorded."""
        problems: list[ChainProblem] = []
        for kind in KINDS:
            own = None if pipeline is None else pipeline_streams(pipeline, kind)
            stored = enumerate(self.tables[kind])
            rows = [_chain_row(n, row) for n, row in stored if own is None or row["stream"] in own]
            rows.sort(key=lambda row: (row.stream, row.position, row.sequence))
            problems += chain_problems(kind, rows)
        return problems

    @contextmanager
    def exclusive(self, pipeline: PipelinePath) -> Iterator[LedgerView]:
        """Enter one transaction that excludes every other thread's writes; nothing is kept when the block raises."""
        checked_pipeline(pipeline)
        with self._changing("The exclusive transaction") as tables:
            self._exclusive = pipeline
            view = _FakeView(tables, pipeline)
            try:
                yield view
            finally:
                view.ended = True
                self._exclusive = None

    def _reading(self) -> Tables:
        return self.tables

    def _writing(self, action: str, kind: Kind, rows: Sequence[Row]) -> AbstractContextManager[Tables]:
        del kind, rows
        return self._changing(action)

    @contextmanager
    def _changing(self, action: str) -> Iterator[Tables]:
        """Yield a copy of the tables that takes their place when the block ends well."""
        if not self._lock.acquire(timeout=self._wait_seconds):
            raise LedgerError(f"{action} failed: it waited {self._wait_seconds:g} seconds for another one.")
        try:
            if self._exclusive is not None:
                raise LedgerError(
                    f"{action} was asked of the ledger inside this thread's own exclusive transaction of "
                    f"{'/'.join(self._exclusive)}. Use the view that `exclusive` gave."
                )
            tables: Tables = {kind: list(rows) for kind, rows in self.tables.items()}
            yield tables
            self.tables = tables
        finally:
            self._lock.release()


class _FakeView(_FakeRows):
    """The view of an exclusive transaction, on a copy of the tables."""

    def __init__(self, tables: Tables, pipeline: PipelinePath) -> None:
        self._tables, self._pipeline, self.ended = tables, pipeline, False

    def _reading(self) -> Tables:
        if self.ended:
            raise LedgerError(f"The exclusive transaction of {'/'.join(self._pipeline)} has ended.")
        return self._tables

    @contextmanager
    def _writing(self, action: str, kind: Kind, rows: Sequence[Row]) -> Iterator[Tables]:
        for row in rows:
            if stream_name(kind, row) not in pipeline_streams(self._pipeline):
                raise LedgerError(
                    f"{action}: the exclusive transaction of {'/'.join(self._pipeline)} cannot append to "
                    f"{stream_name(kind, row)}."
                )
        yield self._reading()


def _append(tables: Tables, kind: Kind, rows: Iterable[Row]) -> list[Row]:
    chained = continued(kind, rows, _heads(tables, kind))
    tables[kind] += chained
    return chained


def _heads(tables: Tables, kind: Kind) -> dict[str, ChainHead]:
    return {row["stream"]: ChainHead(position=row["position"], row_hash=row["row_hash"]) for row in tables[kind]}


def _matching(rows: Iterable[Row], **wanted: str | None) -> list[Row]:
    """Return copies of the rows with the wanted values; None matches all."""
    asked = {name: value for name, value in wanted.items() if value is not None}
    return [deepcopy(row) for row in rows if all(row[name] == value for name, value in asked.items())]


def _chain_row(sequence: int, row: Row) -> ChainRow:
    place = {name: row[name] for name in CHAIN_COLUMNS - {"sequence"}}
    content = {name: value for name, value in row.items() if name not in CHAIN_COLUMNS}
    return ChainRow(sequence=sequence, content=content, **place)
