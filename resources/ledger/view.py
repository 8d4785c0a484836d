"""The view of one pipeline's exclusive transaction on a SQL ledger."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from ml_assets.errors import LedgerError
from ml_assets.interfaces import AssetPath, ChainHead, Decision, PipelinePath, Record, RecordKind, Verdict
from ml_assets.ledger_rows import (
    Kind,
    Row,
    decision_row,
    pipeline_streams,
    record_row,
    stream_name,
    verdict_row,
)
from resources.ledger.statements import (
    append_record,
    append_rows,
    read_decisions,
    read_heads,
    read_mark,
    read_records,
    read_verdicts,
)


class Explaining(Protocol):
    """Turns what the database refuses into LedgerErrors that say what was being done."""

    def __call__(self, action: str) -> AbstractContextManager[None]:
        """Enter a block in which one thing is done."""
        ...


class ExclusiveView:
    """A `LedgerView` on the write transaction of one pipeline, for as long as that lasts."""

    def __init__(self, connection: sa.Connection, pipeline: PipelinePath, explaining: Explaining) -> None:
        self._connection, self._pipeline, self._explaining = connection, pipeline, explaining
        self._ended = False
        self.failed: LedgerError | None = None

    def end(self) -> None:
        """Refuse every later use."""
        self._ended = True

    def record_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Append all of them.

        Raises:
            LedgerError: If one cannot be stored, or is of another pipeline.
        """
        now = datetime.now(UTC)
        rows = [verdict_row(verdict, now) for verdict in verdicts]
        if rows:
            self._append("Recording verdicts", "verdicts", rows)

    def verdicts(
        self,
        asset: AssetPath,
        partition: str | None = None,
        *,
        data_version: str | None = None,
        policy_version: str | None = None,
    ) -> list[Verdict]:
        """Return the matching verdicts, oldest first; None matches all."""
        with self._using("Reading verdicts") as connection:
            return read_verdicts(connection, asset, partition, data_version, policy_version)

    def record_decision(self, decision: Decision) -> None:
        """Append one decision.

        Raises:
            LedgerError: If it cannot be stored, or is of another pipeline.
        """
        self._append("Recording a decision", "decisions", [decision_row(decision, datetime.now(UTC))])

    def decisions(self, pipeline: PipelinePath) -> list[Decision]:
        """Return the pipeline's decisions, oldest first."""
        with self._using("Reading decisions") as connection:
            return read_decisions(connection, pipeline)

    def append(self, record: Record, *, after: str | None = None) -> Record:
        """Append one record and return it with its hashes.

        Raises:
            LedgerConflictError: If the last record of the same stream is not `after`; the transaction goes on.
            LedgerError: If it cannot be stored, or is of another pipeline.
        """
        row = record_row(record, datetime.now(UTC))
        self._check_own("records", [row])
        with self._using(f"Recording the {record.kind}") as connection:
            return append_record(connection, row, after)

    def records(
        self, pipeline: PipelinePath, *, kind: RecordKind | None = None, subject: str | None = None
    ) -> list[Record]:
        """Return the pipeline's matching records of both streams in the order of recording; None matches all."""
        with self._using("Reading records") as connection:
            return read_records(connection, pipeline, kind, subject)

    def heads(self, pipeline: PipelinePath | None = None) -> dict[str, ChainHead]:
        """Return the last row of every stream (of one pipeline) that has any, by the stream's name."""
        with self._using("Reading the heads") as connection:
            return read_heads(connection, pipeline)

    def mark(self) -> str:
        """Return a text that changes whenever anything is appended, in this transaction too."""
        with self._using("Reading the ledger's mark") as connection:
            return read_mark(connection)

    def _append(self, action: str, kind: Kind, rows: Sequence[Row]) -> None:
        self._check_own(kind, rows)
        with self._using(action) as connection:
            append_rows(connection, kind, rows)

    def _check_own(self, kind: Kind, rows: Iterable[Row]) -> None:
        own = pipeline_streams(self._pipeline, kind)
        for row in rows:
            if (name := stream_name(kind, row)) not in own:
                raise LedgerError(
                    f"The exclusive transaction of {'/'.join(self._pipeline)} cannot append to {name}. "
                    f"Expected a row of {' or '.join(own)}; append to other pipelines after the transaction."
                )

    @contextmanager
    def _using(self, action: str) -> Iterator[sa.Connection]:
        """Yield the connection; after an error of the database nothing may be committed any more."""
        if self._ended:
            raise LedgerError(
                f"{action} failed: the exclusive transaction of {'/'.join(self._pipeline)} has ended. "
                "Use the view only inside its `with` block, and the ledger itself afterwards."
            )
        try:
            with self._explaining(action):
                yield self._connection
        except LedgerError as error:
            if isinstance(error.__cause__, sa_exc.SQLAlchemyError):
                self.failed = error
            raise
