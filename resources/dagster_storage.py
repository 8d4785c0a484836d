"""Dagster's SQLite storage and compute logs for one machine, without what they do again for every event.

Dagster's own SQLite storage opens a new engine and connection for each statement, commits with a full fsync
and has Alembic compare revisions whenever a database is opened. Here a process keeps one connection for each
database (WAL, synchronous=NORMAL: a power cut may lose the last events, never the database) and reads the
revision from the database itself. The files are the same ones: either storage can open the other's home.
"""

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dagster import StringSource
from dagster._config.config_schema import UserConfigSchema
from dagster._core.execution.compute_logs import redirect_to_file  # noqa: TID251 the default's own redirection
from dagster._core.storage.compute_log_manager import (  # noqa: TID251 the storage interface
    CapturedLogContext,
    ComputeIOType,
)
from dagster._core.storage.event_log.sqlite.sqlite_event_log import (  # noqa: TID251 extended here
    SqliteEventLogStorage,
)
from dagster._core.storage.local_compute_log_manager import (  # noqa: TID251 extended here
    IO_TYPE_EXTENSION,
    LocalComputeLogManager,
)
from dagster._core.storage.runs.sqlite.sqlite_run_storage import (  # noqa: TID251 extended here
    SqliteRunStorage,
)
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import (  # noqa: TID251 extended here
    SqliteScheduleStorage,
)
from dagster._core.storage.sqlite import (  # noqa: TID251 addresses and time limit as the default has them
    SQLITE_BUSY_TIMEOUT_SECONDS,
    create_db_conn_string,
)
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage  # noqa: TID251 extended here
from dagster._serdes import ConfigurableClassData
from dagster._utils import ensure_file, touch_file
from sqlalchemy import Connection, Engine, QueuePool, create_engine, event, text
from sqlalchemy.exc import OperationalError

_MAX_OPEN_DATABASES = 16
"""Each run has a database of its own: a long-lived server must not keep all of them open."""

_MIRROR_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class _OpenDatabase:
    engine: Engine
    inode: tuple[int, int]


class _Databases:
    """The SQLite databases this process has open: one engine each, one statement at a time.

    SQLite forbids a connection to cross a fork, and its record of file locks is per process: a child that
    opens a file which its parent has open inherits locks it does not hold. So no connection may be open when
    the process forks: all are closed before every fork, and the lock is held until both sides go on. The
    engines stay, and with them their compiled statements.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: OrderedDict[str, _OpenDatabase] = OrderedDict()
        self._complete: dict[str, tuple[int, int]] = {}
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._lock.release, after_in_child=self._lock.release
        )

    def is_complete(self, address: str) -> bool:
        """Return whether a database was initialised to its end; once found so it is not asked again."""
        inode = _inode(address)
        if inode == (0, 0):
            return False
        with self._lock:
            if self._complete.get(address) != inode:
                if not _has_revision(address):
                    return False
                self._complete[address] = inode
        return True

    @contextmanager
    def connect(self, address: str) -> Iterator[Connection]:
        """Yield a connection in a transaction; the database must exist."""
        with self._lock, self._engine(address).connect() as connection, connection.begin():
            yield connection

    def _engine(self, address: str) -> Engine:
        inode = _inode(address)
        found = self._open.get(address)
        if found and found.inode == inode:
            self._open.move_to_end(address)
            return found.engine
        if found:  # the file was removed or replaced, as by `dagster run wipe`
            self._open.pop(address).engine.dispose()
        engine = create_engine(
            address, poolclass=QueuePool, pool_size=1, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
        )
        event.listen(engine, "connect", _set_pragmas)
        self._open[address] = _OpenDatabase(engine=engine, inode=inode)
        while len(self._open) > _MAX_OPEN_DATABASES:
            self._open.popitem(last=False)[1].engine.dispose()
        return engine

    def _before_fork(self) -> None:
        self._lock.acquire()
        for database in self._open.values():
            database.engine.dispose()


def _inode(address: str) -> tuple[int, int]:
    try:
        found = os.stat(address.removeprefix("sqlite:///"))  # noqa: PTH116 called for every statement
    except FileNotFoundError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _set_pragmas(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


def _sync_nothing(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def _sync(address: str) -> None:
    descriptor = os.open(address.removeprefix("sqlite:///"), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _has_revision(address: str) -> bool:
    """Return whether a database holds a schema revision, which Dagster writes last."""
    engine = create_engine(address)
    try:
        with engine.connect() as connection:
            return connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() > 0
    except OperationalError:  # no such table
        return False
    finally:
        engine.dispose()


_DATABASES = _Databases()


class FastSqliteRunStorage(SqliteRunStorage):
    """Dagster's run storage on a connection that stays open."""

    @classmethod
    def from_local(cls, base_dir: str, inst_data: ConfigurableClassData | None = None) -> Self:
        """Open the database in a directory, creating it when it is not there."""
        address = create_db_conn_string(base_dir, "runs")
        if not _DATABASES.is_complete(address):
            SqliteRunStorage.from_local(base_dir)
        return cls(address, inst_data)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Yield a connection in a transaction."""
        with _DATABASES.connect(self._conn_string) as connection:
            yield connection


class FastSqliteScheduleStorage(SqliteScheduleStorage):
    """Dagster's schedule storage on a connection that stays open."""

    @classmethod
    def from_local(cls, base_dir: str, inst_data: ConfigurableClassData | None = None) -> Self:
        """Open the database in a directory, creating it when it is not there."""
        address = create_db_conn_string(base_dir, "schedules")
        if not _DATABASES.is_complete(address):
            SqliteScheduleStorage.from_local(base_dir)
        return cls(address, inst_data)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Yield a connection in a transaction."""
        with _DATABASES.connect(self._conn_string) as connection:
            yield connection


class FastSqliteEventLogStorage(SqliteEventLogStorage):
    """Dagster's event log, a database for each run and an index, on connections that stay open."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Build from the `config` of dagster.yaml."""
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        address = self.conn_string_for_shard(shard)
        if not _DATABASES.is_complete(address):
            engine = create_engine(address, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})
            # Making the tables syncs for each statement; a database that a power cut leaves half made is made again.
            event.listen(engine, "connect", _sync_nothing)
            self._initdb(engine)
            engine.dispose()
            _sync(address)
        with _DATABASES.connect(address) as connection:
            yield connection


class LocalSqliteStorage(DagsterSqliteStorage):
    """The three storages under one directory, laid out as Dagster's default lays them out."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        base = Path(base_dir)
        self.base_dir = base_dir
        self._inst_data = inst_data
        self._run_storage = FastSqliteRunStorage.from_local(str(base / "history"))
        self._event_log_storage = FastSqliteEventLogStorage(str(base / "history" / "runs"))
        self._schedule_storage = FastSqliteScheduleStorage.from_local(str(base / "schedules"))
        super(DagsterSqliteStorage, self).__init__()

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Build from the `config` of dagster.yaml."""
        return cls(inst_data=inst_data, **config_value)


class LocalLogs(LocalComputeLogManager):
    """Dagster's compute logs in files, mirrored to the console by a thread, not by four programs a step."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return the schema of `config` in dagster.yaml."""
        return {"home": StringSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Build from the `config` of dagster.yaml; logs lie where Dagster's default puts them."""
        return cls(base_dir=str(Path(config_value["home"]) / "storage"), inst_data=inst_data)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext, None, None]:
        """Redirect this process's stdout and stderr into the log's files until the end of the block."""
        out = self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[ComputeIOType.STDOUT])
        err = self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[ComputeIOType.STDERR])
        ensure_file(out)
        ensure_file(err)
        with (
            _mirrored({out: sys.stdout, err: sys.stderr}),
            redirect_to_file(sys.stdout, out),
            redirect_to_file(sys.stderr, err),
        ):
            yield CapturedLogContext(log_key)
        touch_file(self.complete_artifact_path(log_key))  # readers take the log for complete from here


@contextmanager
def _mirrored(streams: Mapping[str, Any]) -> Iterator[None]:
    """Copy what is appended to each file to where its stream pointed before, about twice a second."""
    pairs = []
    for path, stream in streams.items():
        with suppress(OSError):  # a stream without a descriptor (io.UnsupportedOperation) is not redirected
            pairs.append((os.open(path, os.O_RDONLY), os.dup(stream.fileno())))
    for source, _ in pairs:
        os.lseek(source, 0, os.SEEK_END)
    ended = threading.Event()

    def copy_until_ended() -> None:
        while not ended.wait(_MIRROR_SECONDS):
            _copy_new(pairs)

    mirror = threading.Thread(target=copy_until_ended, name="compute-log-mirror", daemon=True)
    mirror.start()
    try:
        yield
    finally:
        ended.set()
        mirror.join()
        _copy_new(pairs)
        for descriptor in (descriptor for pair in pairs for descriptor in pair):
            os.close(descriptor)


def _copy_new(pairs: Sequence[tuple[int, int]]) -> None:
    for source, console in pairs:
        while data := os.read(source, 65536):
            with suppress(OSError):  # the console was closed; the file has everything
                os.write(console, data)
