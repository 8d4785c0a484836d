"""Opens the ledger's database: an engine for one process, and the schema at this release's revision."""

import fcntl
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from ml_assets.errors import LedgerError
from ml_assets.ledger_rows import canonical_json
from resources.ledger.address import LedgerAddress
from resources.ledger.tables import REVISIONS, VERSION_TABLE

BUSY_TIMEOUT_SECONDS = 30
WRITE_OPTION = "ledger_wait_seconds"
"""Execution option of a transaction that writes: how long it waits for the writer before it."""

_SCHEMA_LOCK_TIMEOUT_SECONDS = 60
_LONGEST_PAUSE_SECONDS = 0.01
_SHORTEST_PAUSE_SECONDS = 0.0005
_POSTGRES_LOCK = 0x6D6C5F6C65646772  # "ml_ledgr": the advisory lock's number, which is any constant
_MIGRATIONS = Path(__file__).parent / "migrations"


def open_engine(address: LedgerAddress) -> sa.Engine:
    """Return an engine whose database has this release's schema, creating or upgrading it when needed.

    Raises:
        LedgerError: If the schema is of a newer or unknown release, or the place cannot be used.
        sqlalchemy.exc.SQLAlchemyError: If the database refuses.
    """
    engine = _create_engine(address)
    if address.file is not None:
        _ensure_sqlite(engine, address, address.file)
    else:
        _ensure_postgres(engine, address)
    return engine


def _create_engine(address: LedgerAddress) -> sa.Engine:
    # Parameters are hidden because evidence may hold rows of data, and errors end up in logs.
    options: dict[str, Any] = {"json_serializer": canonical_json, "hide_parameters": True}
    if address.file is None:
        try:
            return sa.create_engine(
                address.url,
                pool_size=1,
                max_overflow=20,
                pool_pre_ping=True,
                isolation_level="READ COMMITTED",  # what is read after waiting for a lock must be of after the wait
                connect_args={} if "connect_timeout=" in address.url else {"connect_timeout": 10},
                **options,
            )
        except ModuleNotFoundError as error:
            raise LedgerError(
                f"The ledger at {address.shown} needs the module {error.name}. "
                "Install it with: pip install 'ml-assets[postgres]'"
            ) from error
    # No pool: a SQLite connection that is open during a fork may not even be closed in the child.
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(address.file)),
        poolclass=sa.NullPool,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS},
        **options,
    )
    event.listen(engine, "connect", _leave_transactions_to_us)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _leave_transactions_to_us(dbapi_connection: Any, _record: Any) -> None:
    # Python's driver would begin late and leave schema changes outside of the transaction.
    dbapi_connection.isolation_level = None


def _begin_sqlite(connection: sa.Connection) -> None:
    # IMMEDIATE waits for the writer before us; a read that turns into a write later would fail instead.
    wait_seconds = connection.get_execution_options().get(WRITE_OPTION)
    if wait_seconds is None:
        connection.exec_driver_sql("BEGIN")
    else:
        _begin_immediate(connection.connection.driver_connection, wait_seconds)


def _begin_immediate(raw: Any, wait_seconds: float) -> None:
    """Wait to be the only writer, and ask the more often the longer we wait.

    SQLite's own waiting ends up asking ten times a second, whoever has waited how long: next to writers that
    follow each other closely, one could wait until its time is over.
    """
    begun = time.monotonic()
    raw.execute("PRAGMA busy_timeout = 0")
    while True:
        try:
            raw.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.OperationalError as error:
            waited = time.monotonic() - begun
            if "locked" not in str(error) or waited >= wait_seconds:
                raise
            time.sleep(max(_LONGEST_PAUSE_SECONDS * (1 - waited / (wait_seconds / 2)), _SHORTEST_PAUSE_SECONDS))
    raw.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")


def _ensure_sqlite(engine: sa.Engine, address: LedgerAddress, file: Path) -> None:
    # An empty or missing file is not even opened before we hold the lock: a reader in the first
    # milliseconds makes another process's change to WAL fail, which does not wait.
    if file.exists() and file.stat().st_size > 0 and _at_head(engine, address):
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _file_lock(file.with_name(f"{file.name}.lock"), address):
            with closing(engine.raw_connection()) as raw:  # the mode cannot change in a transaction
                raw.cursor().execute("PRAGMA journal_mode=WAL")
            with engine.execution_options(**{WRITE_OPTION: _SCHEMA_LOCK_TIMEOUT_SECONDS}).begin() as connection:
                _upgrade(connection, address)
    except OSError as error:
        raise LedgerError(
            f"The ledger at {address.shown} cannot be created: {error.strerror} ({error.filename}). "
            "Expected a folder that this process may write to."
        ) from error


def _ensure_postgres(engine: sa.Engine, address: LedgerAddress) -> None:
    if _at_head(engine, address):
        return
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_SCHEMA_LOCK_TIMEOUT_SECONDS}s'")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_POSTGRES_LOCK)))
        _upgrade(connection, address)


@contextmanager
def _file_lock(path: Path, address: LedgerAddress) -> Iterator[None]:
    """Hold an exclusive lock on a file, which stays behind: removing it would let two processes in."""
    deadline = time.monotonic() + _SCHEMA_LOCK_TIMEOUT_SECONDS
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LedgerError(
                        f"The ledger at {address.shown} is being upgraded by another process for more than "
                        f"{_SCHEMA_LOCK_TIMEOUT_SECONDS} seconds. Find it with: fuser {path}"
                    ) from None
                time.sleep(0.02)
        yield


def _at_head(engine: sa.Engine, address: LedgerAddress) -> bool:
    with engine.connect() as connection:
        return _stored_revision(connection, address) == REVISIONS[-1]


def _stored_revision(connection: sa.Connection, address: LedgerAddress) -> str | None:
    """Return the revision the database is at, or None when it holds no ledger yet.

    Raises:
        LedgerError: If this release does not know the revision.
    """
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.scalars(sa.select(sa.text("version_num")).select_from(sa.text(VERSION_TABLE))).all()
    if not found:
        return None
    if len(found) > 1 or found[0] not in REVISIONS:
        raise LedgerError(
            f"The ledger at {address.shown} has schema revision {', '.join(sorted(found))}, which this "
            f"release of ml_assets does not know; it knows {', '.join(REVISIONS)}. A newer release has "
            "written to it: upgrade ml_assets here, or point this profile to another ledger."
        )
    return found[0]


def _upgrade(connection: sa.Connection, address: LedgerAddress) -> None:
    """Bring the schema to head in the caller's transaction, unless another process just did."""
    if _stored_revision(connection, address) == REVISIONS[-1]:
        return
    from alembic import command

    config = migration_config()
    config.attributes["connection"] = connection
    # Not "head": beside a process that still runs an older release may lie the migrations of a newer one.
    command.upgrade(config, REVISIONS[-1])


def migration_config() -> Any:
    """Return Alembic's configuration of the ledger's migrations."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config
