"""Transactions of one process on the ledger's database: who waits for whom, and what a refusal means."""

import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from ml_assets.errors import LedgerError
from resources.ledger.address import LedgerAddress
from resources.ledger.schema import WRITE_OPTION, open_engine

_VANISHED_SECONDS = 600
"""How long Postgres keeps an exclusive transaction that sends nothing: its machine may have lost its power."""


class Transactions:
    """Reading, writing and exclusive transactions; forked processes get connections of their own.

    Args:
        address: The ledger's place.
        wait_seconds: How long a write waits for the one before it.
    """

    def __init__(self, address: LedgerAddress, wait_seconds: float) -> None:
        self._address, self._wait_seconds = address, wait_seconds
        self._engines: dict[int, sa.Engine] = {}
        self._exclusive: dict[tuple[int, int], str] = {}

    @contextmanager
    def reading(self, action: str) -> Iterator[sa.Connection]:
        """Yield a connection that sees one state of the ledger."""
        with self.explaining(action), self._engine().begin() as connection:
            yield connection

    @contextmanager
    def writing(self, action: str, pipelines: Iterable[str]) -> Iterator[sa.Connection]:
        """Yield a connection that alone may append to the streams of some pipelines, as "team/pipeline"."""
        self._refuse_inside_exclusive(action)
        with self.explaining(action), self._engine(write=True).begin() as connection:
            self._lock(connection, pipelines)
            yield connection

    @contextmanager
    def exclusive(self, pipeline: str) -> Iterator[sa.Connection]:
        """Yield a connection as `writing` does; errors of the block itself pass through as they are."""
        action = f"The exclusive transaction of {pipeline}"
        self._refuse_inside_exclusive(action)
        with self.explaining(action):
            connection = self._engine(write=True).connect()
        thread = (os.getpid(), threading.get_ident())
        self._exclusive[thread] = pipeline
        try:
            with self.explaining(action):
                connection.begin()
                self._lock(connection, [pipeline])
                self._limit_silence(connection)
            yield connection
            with self.explaining(f"Committing the exclusive transaction of {pipeline}"):
                connection.commit()
        finally:
            del self._exclusive[thread]
            with suppress(sa_exc.SQLAlchemyError):  # what is not committed ends with the connection anyway
                connection.close()

    def close(self) -> None:
        """Close this process's idle connections."""
        engine = self._engines.pop(os.getpid(), None)
        if engine is not None:
            engine.dispose()

    @contextmanager
    def explaining(self, action: str) -> Iterator[None]:
        """Turn what the database refuses into a LedgerError that says what was being done, where, and what helps."""
        try:
            yield
        except (sa_exc.SQLAlchemyError, sqlite3.Error) as error:
            raise LedgerError(self._explanation(action, error)) from error

    def _engine(self, *, write: bool = False) -> sa.Engine:
        """Return this process's engine; two threads that come first at once may each make one, harmlessly."""
        pid = os.getpid()
        engine = self._engines.get(pid)
        if engine is None:
            for inherited in self._engines.values():
                inherited.dispose(close=False)  # the sockets belong to the parent process
            engine = open_engine(self._address)
            self._engines = {pid: engine}
        return engine.execution_options(**{WRITE_OPTION: self._wait_seconds}) if write else engine

    def _lock(self, connection: sa.Connection, pipelines: Iterable[str]) -> None:
        """Wait until no other transaction writes to these pipelines; SQLite has one writer at a time already.

        A lock is of a whole pipeline, not of each of its streams: what an exclusive transaction has read of one
        stream must stay true while it appends to another. Sorted, so that two that take several never wait for
        each other.
        """
        if connection.dialect.name == "sqlite":
            return
        keys = sorted({_lock_number(pipeline) for pipeline in pipelines})
        locks = ", ".join(f"pg_advisory_xact_lock({key})" for key in keys)
        limit = int(self._wait_seconds * 1000)
        connection.exec_driver_sql(f"SELECT set_config('lock_timeout', '{limit}', true), {locks}")

    def _limit_silence(self, connection: sa.Connection) -> None:
        if connection.dialect.name != "sqlite":
            limit = f"'{_VANISHED_SECONDS}s'"
            connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {limit}")

    def _refuse_inside_exclusive(self, action: str) -> None:
        inside = self._exclusive.get((os.getpid(), threading.get_ident()))
        if inside is not None:
            raise LedgerError(
                f"{action} was asked of the ledger inside this thread's own exclusive transaction of {inside}, "
                "and would wait for its end forever. Use the view that `exclusive` gave, or do it afterwards."
            )

    def _explanation(self, action: str, error: sa_exc.SQLAlchemyError | sqlite3.Error) -> str:
        cause = " ".join(str(getattr(error, "orig", None) or error).split())
        where = f"in the ledger at {self._address.shown}"
        if "locked" in cause or "lock timeout" in cause:
            find = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
            if self._address.file is not None:
                find = f"fuser {self._address.file}"
            return (
                f"{action} failed {where}: process {os.getpid()} waited {self._wait_seconds:g} seconds for another "
                f"one that writes or decides there ({cause}). Nothing was recorded. Try again; if it stays, find the "
                f"other one with: {find}"
            )
        hint = "Check that the file is a ledger, its folder can be written, and the disk has room."
        if self._address.file is None:
            connecting = isinstance(error, sa_exc.OperationalError)
            hint = "that the server runs and the URL is right" if connecting else "its user may create tables"
            hint = f"Check {hint}."
        return f"{action} failed {where}: {cause}. {hint}"


def _lock_number(pipeline: str) -> int:
    """Return the number of a pipeline's advisory lock: 64 bits with a sign."""
    digest = hashlib.sha256(f"ml_assets ledger {pipeline}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
