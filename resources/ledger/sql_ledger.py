"""SqlLedger: verdicts, decisions and records as append-only, hash-chained rows in SQLite or Postgres."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from ml_assets.errors import LedgerError
from ml_assets.interfaces import (
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
    KINDS,
    STREAMS,
    Kind,
    Row,
    checked_pipeline,
    decision_row,
    joined_asset,
    record_row,
    stream_name,
    verdict_row,
)
from resources.ledger.database import SqlStore


class SqlLedger(SqlStore):
    """The ledger in a SQL database. The schema is made or upgraded on first use, by one process at a time.

    Made and shared as every `SqlStore`.
    """

    def record_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Append all of them in one transaction.

        Raises:
            LedgerError: If a verdict has a field that cannot be stored (none is recorded then), or the
                database cannot be written.
        """
        now = datetime.now(UTC)
        self._append("Recording verdicts", "verdicts", [verdict_row(verdict, now) for verdict in verdicts])

    def verdicts(
        self,
        asset: AssetPath,
        partition: str | None = None,
        *,
        data_version: str | None = None,
        policy_version: str | None = None,
    ) -> list[Verdict]:
        """Return the matching verdicts, oldest first; None matches all.

        Raises:
            LedgerError: If the database cannot be read.
        """
        joined_asset(asset)
        with self._database.reading("Reading verdicts") as connection:
            from resources.ledger.statements import read_verdicts

            return read_verdicts(connection, asset, partition, data_version, policy_version)

    def record_decision(self, decision: Decision) -> None:
        """Append one decision.

        Raises:
            LedgerError: If a field cannot be stored, or the database cannot be written.
        """
        self._append("Recording a decision", "decisions", [decision_row(decision, datetime.now(UTC))])

    def decisions(self, pipeline: PipelinePath) -> list[Decision]:
        """Return the pipeline's decisions, oldest first.

        Raises:
            LedgerError: If the database cannot be read.
        """
        with self._database.reading("Reading decisions") as connection:
            from resources.ledger.statements import read_decisions

            return read_decisions(connection, pipeline)

    def append(self, record: Record, *, after: str | None = None) -> Record:
        """Append one record and return it with its hashes.

        Args:
            record: What to record; its stream and hashes are ignored.
            after: Hash that the last record of the same stream must still have (`NO_HASH` when there is none).

        Raises:
            LedgerConflictError: If another record of the stream came in between.
            LedgerError: If a field cannot be stored, or the database cannot be written.
        """
        row = record_row(record, datetime.now(UTC))
        with self._database.writing(f"Recording the {record.kind}", ["/".join(record.pipeline)]) as connection:
            from resources.ledger.statements import append_record

            return append_record(connection, row, after)

    def records(
        self, pipeline: PipelinePath, *, kind: RecordKind | None = None, subject: str | None = None
    ) -> list[Record]:
        """Return the pipeline's matching records of both streams in the order of recording; None matches all.

        Raises:
            LedgerError: If the database cannot be read.
        """
        with self._database.reading("Reading records") as connection:
            from resources.ledger.statements import read_records

            return read_records(connection, pipeline, kind, subject)

    def heads(self, pipeline: PipelinePath | None = None) -> dict[str, ChainHead]:
        """Return the last row of every stream (of one pipeline) that has any, by the stream's name.

        Raises:
            LedgerError: If the database cannot be read.
        """
        with self._database.reading("Reading the heads") as connection:
            from resources.ledger.statements import read_heads

            return read_heads(connection, pipeline)

    def mark(self) -> str:
        """Return a text that changes whenever anything is appended; one row a stream is read for it.

        Raises:
            LedgerError: If the database cannot be read.
        """
        with self._database.reading("Reading the ledger's mark") as connection:
            from resources.ledger.statements import read_mark

            return read_mark(connection)

    def hash_at(self, stream: str, position: int) -> str | None:
        """Return the hash of the row at a position of a stream, or None when there is no such row.

        Raises:
            LedgerError: If the database cannot be read.
        """
        kind = STREAMS.get(stream.partition("/")[0])
        if kind is None:
            return None
        with self._database.reading("Reading a hash") as connection:
            from resources.ledger.statements import read_hash

            return read_hash(connection, kind, stream, position)

    def verify(self, pipeline: PipelinePath | None = None) -> list[ChainProblem]:
        """Walk the chains (of one pipeline) and return every row that was changed, removed, reordered or inserted.

        Rows are read some thousands at a time, and appending goes on meanwhile.

        Raises:
            LedgerError: If the database cannot be read.
        """
        with self._database.reading("Verifying the chains") as connection:
            from resources.ledger.verification import chain_problems_in

            return [problem for kind in KINDS for problem in chain_problems_in(connection, kind, pipeline)]

    @contextmanager
    def exclusive(self, pipeline: PipelinePath) -> Iterator[LedgerView]:
        """Enter one transaction that no other process' exclusive or write of this pipeline overlaps.

        What is read in it stays true until it ends; what is appended in it is committed when the block ends, and
        not at all when the block raises or the process dies. On SQLite writes of every pipeline wait for it.

        Raises:
            LedgerError: If another one lasts longer than `wait_seconds`, this thread is in one already, or the
                database refuses.
        """
        from resources.ledger.view import ExclusiveView

        name = "/".join(checked_pipeline(pipeline))
        transactions = self._database.transactions()
        with transactions.exclusive(name) as connection:
            view = ExclusiveView(connection, pipeline, transactions.explaining)
            try:
                yield view
            finally:
                view.end()
            if view.failed is not None:
                raise LedgerError(
                    f"Nothing of the exclusive transaction of {name} was recorded, since one step of it failed: "
                    f"{view.failed}"
                ) from view.failed

    def _append(self, action: str, kind: Kind, rows: Sequence[Row]) -> None:
        if not rows:
            return
        owners = {stream_name(kind, row).partition("/")[2] for row in rows}
        with self._database.writing(action, owners) as connection:
            from resources.ledger.statements import append_rows

            append_rows(connection, kind, rows)
