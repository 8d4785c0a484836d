"""SqlLedger: verdicts and decisions as append-only rows in SQLite or Postgres."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ml_assets.errors import LedgerError
from ml_assets.interfaces import AssetPath, Decision, Verdict
from resources.ledger.address import parse_address

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError


class SqlLedger:
    """The ledger in a SQL database. The schema is made or upgraded on first use, by one process at a time.

    May be used from many threads, and in forked processes: each process has connections of its own.

    Args:
        url: `sqlite:///folder/ledger.db` or `postgresql://user:password@host:5432/database`.

    Raises:
        LedgerError: If the URL has another form. The database is not touched here.
    """

    def __init__(self, url: str) -> None:
        self._address = parse_address(url)
        self._engines: dict[int, sa.Engine] = {}

    def __repr__(self) -> str:
        return f"SqlLedger({self._address.shown!r})"

    def record_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Append all of them in one transaction.

        Raises:
            LedgerError: If a verdict has a field that cannot be stored (none is recorded then), or the
                database cannot be written.
        """
        now = datetime.now(UTC)
        rows = [_verdict_row(verdict, now) for verdict in verdicts]
        if not rows:
            return
        from resources.ledger import tables

        with self._transaction("Recording verdicts", write=True) as connection:
            connection.execute(tables.verdicts.insert(), rows)

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
        filters = {"partition": partition, "data_version": data_version, "policy_version": policy_version}
        from resources.ledger import tables

        with self._transaction("Reading verdicts") as connection:
            table = tables.verdicts
            query = table.select().where(table.c.asset == _joined(asset)).order_by(table.c.sequence)
            for name, value in filters.items():
                if value is not None:
                    query = query.where(table.c[name] == value)
            return [_verdict(row) for row in connection.execute(query).mappings()]

    def record_decision(self, decision: Decision) -> None:
        """Append one decision.

        Raises:
            LedgerError: If a field cannot be stored, or the database cannot be written.
        """
        row = _decision_row(decision, datetime.now(UTC))
        from resources.ledger import tables

        with self._transaction("Recording a decision", write=True) as connection:
            connection.execute(tables.decisions.insert(), [row])

    def decisions(self, pipeline: tuple[str, str]) -> list[Decision]:
        """Return the pipeline's decisions, oldest first.

        Raises:
            LedgerError: If the database cannot be read.
        """
        team, name = pipeline
        from resources.ledger import tables

        with self._transaction("Reading decisions") as connection:
            table = tables.decisions
            query = table.select().where(table.c.team == team, table.c.pipeline == name)
            rows = connection.execute(query.order_by(table.c.sequence)).mappings()
            return [_decision(row) for row in rows]

    def close(self) -> None:
        """Close this process's idle connections; a later call opens new ones."""
        engine = self._engines.pop(os.getpid(), None)
        if engine is not None:
            engine.dispose()

    @contextmanager
    def _transaction(self, action: str, *, write: bool = False) -> Iterator["sa.Connection"]:
        """Yield a connection in a transaction, and explain what the database refuses."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._engine().execution_options(ledger_write=write).begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._explained(action, error) from error

    def _engine(self) -> "sa.Engine":
        """Return this process's engine; two threads that come first at once may each make one, harmlessly."""
        pid = os.getpid()
        engine = self._engines.get(pid)
        if engine is None:
            from resources.ledger.schema import open_engine

            for inherited in self._engines.values():
                inherited.dispose(close=False)  # the sockets belong to the parent process
            engine = open_engine(self._address)
            self._engines = {pid: engine}
        return engine

    def _explained(self, action: str, error: "SQLAlchemyError") -> LedgerError:
        from sqlalchemy.exc import OperationalError

        cause = " ".join(str(getattr(error, "orig", None) or error).split())
        if self._address.file is None:
            connecting = isinstance(error, OperationalError)
            hint = "that the server runs and the URL is right" if connecting else "its user may create tables"
            hint = f"Check {hint}."
        elif "locked" in cause:
            hint = f"Another process wrote for more than 30 seconds; find it with: fuser {self._address.file}"
        else:
            hint = "Check that the file is a ledger, its folder can be written, and the disk has room."
        return LedgerError(f"{action} failed in the ledger at {self._address.shown}: {cause}. {hint}")


def _verdict_row(verdict: Verdict, now: datetime) -> dict[str, Any]:
    what = f"the verdict of {verdict.check!r} on {verdict.asset}"
    row = {
        "recorded_at": _instant(verdict.recorded_at, now, what),
        "asset": _joined(verdict.asset),
        "partition": verdict.partition,
        "data_version": verdict.data_version,
        "policy_version": verdict.policy_version,
        "check_name": verdict.check,
        "outcome": verdict.outcome,
        "severity": verdict.severity,
        "reason": verdict.reason,
        "run_id": verdict.run_id,
    }
    return _checked_texts(row, what) | {"evidence": _checked_evidence(verdict.evidence, what)}


def _verdict(row: Mapping[Any, Any]) -> Verdict:
    fields = {name: value for name, value in row.items() if name not in {"sequence", "asset", "check_name"}}
    return Verdict(asset=tuple(row["asset"].split("/")), check=row["check_name"], **fields)


def _decision_row(decision: Decision, now: datetime) -> dict[str, Any]:
    what = f"the decision on {decision.pipeline}, {decision.partition}"
    row = {
        "recorded_at": _instant(decision.recorded_at, now, what),
        "team": decision.pipeline[0],
        "pipeline": decision.pipeline[1],
        "partition": decision.partition,
        "outcome": decision.outcome,
        "reason": decision.reason,
        "model_name": decision.model_name,
        "model_version": decision.model_version,
        "champion_version": decision.champion_version,
        "data_version": decision.data_version,
        "policy_version": decision.policy_version,
        "run_id": decision.run_id,
    }
    return _checked_texts(row, what) | {"evidence": _checked_evidence(decision.evidence, what)}


def _decision(row: Mapping[Any, Any]) -> Decision:
    fields = {name: value for name, value in row.items() if name not in {"sequence", "team", "pipeline"}}
    return Decision(pipeline=(row["team"], row["pipeline"]), **fields)


def _joined(asset: AssetPath) -> str:
    if not asset or any(not segment or "/" in segment for segment in asset):
        raise LedgerError(
            f"The asset path {asset!r} cannot be stored in the ledger. Expected at least one segment, none "
            "of them empty or with a '/'."
        )
    return "/".join(asset)


def _instant(recorded_at: datetime | None, now: datetime, what: str) -> datetime:
    if recorded_at is None:
        return now
    if recorded_at.utcoffset() is None:
        raise LedgerError(
            f"recorded_at of {what} is {recorded_at.isoformat()} without a time zone. Expected UTC, or None."
        )
    return recorded_at


def _checked_texts(row: dict[str, Any], what: str) -> dict[str, Any]:
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


def _checked_evidence(evidence: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the evidence as a dict; refuse what is not JSON before a transaction begins."""
    from resources.ledger.schema import to_json

    plain = dict(evidence)
    try:
        to_json(plain)
    except (TypeError, ValueError) as error:
        raise LedgerError(
            f"The evidence of {what} is not JSON: {error}. Expected dicts with text keys, lists, text, "
            "finite numbers, booleans and None; write None for a number that is not defined."
        ) from error
    return plain
