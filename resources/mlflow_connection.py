"""How the registry reaches MLflow: the address without its password, the database, the client, and explained errors."""

import contextlib
import fcntl
import functools
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ml_assets.errors import RegistryError, RegistryUnavailableError

if TYPE_CHECKING:
    import mlflow


class MlflowConnection:
    """A client of one MLflow, on SQLite or behind a server, made at first use and safe across forks.

    Args:
        tracking_uri: `sqlite:///…/mlflow.db`, or `http(s)://…` of an MLflow server.

    Raises:
        RegistryError: If the URI is of another kind.
    """

    def __init__(self, tracking_uri: str) -> None:
        scheme = urlsplit(tracking_uri).scheme
        if scheme not in ("sqlite", "http", "https"):
            raise RegistryError(
                f"the tracking URI has the scheme {scheme!r}; expected sqlite:///<path> or "
                "http(s)://<host>. For another database run an MLflow server before it and give its address."
            )
        self.tracking_uri = tracking_uri
        self.shown_uri = without_password(tracking_uri, of=tracking_uri)
        self.database = Path(tracking_uri.removeprefix("sqlite:///")) if scheme == "sqlite" else None
        self._client: mlflow.MlflowClient | None = None

    def client(self) -> "mlflow.MlflowClient":
        """Return the client; the first call creates the SQLite database unless it exists."""
        if self._client is None:
            self.initialise()
            self._client = self._new_client()
        return self._client

    def initialise(self) -> None:
        """Create the SQLite database, once, however many processes ask; a millisecond when it exists."""
        if self.database is None or _has_default_experiment(self.database):
            return
        self.database.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(self.database.with_name(f"{self.database.name}.lock")):
            if not _has_default_experiment(self.database):
                with _quiet("mlflow.store.db.utils", "alembic"):
                    self._new_client().get_experiment("0")

    @contextlib.contextmanager
    def explained(self, action: str) -> Iterator[None]:
        """Turn MLflow's errors and those of files into a RegistryError that says what could not be done."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:
            reason = without_password(str(error), of=self.tracking_uri)
            # What MLflow says of a request, and a file that is not there, is known; all else may pass.
            said = getattr(error, "error_code", "") in _ANSWERS or isinstance(error, FileNotFoundError)
            kind = RegistryError if said else RegistryUnavailableError
            raise kind(f"MLflow at {self.shown_uri} could not {action}: {reason}") from error

    def _new_client(self) -> "mlflow.MlflowClient":
        import mlflow

        if self.database is not None:
            _keep_connections_from_children(self.tracking_uri)
        return mlflow.MlflowClient(self.tracking_uri, registry_uri=self.tracking_uri)


def without_password(text: str, *, of: str | None) -> str:
    """Return a text without the user and password of an address, however they stand in it.

    >>> without_password("http://me:s%40fe@host/ refused s@fe", of="http://me:s%40fe@host/")
    'http://host/ refused ***'
    """
    user_and_password, at, _ = urlsplit(of or "").netloc.rpartition("@")
    if not at:
        return text
    text = text.replace(user_and_password + at, "")
    password = user_and_password.partition(":")[2]
    # Libraries that parse the address tell the password alone, decoded or not.
    for secret in filter(None, (password, unquote(password))):
        text = text.replace(secret, "***")
    return text


_ANSWERS = frozenset(
    {"RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "BAD_REQUEST"}
)
"""MLflow's error codes that are an answer about what was asked for."""


@contextlib.contextmanager
def _exclusive(lock_file: Path) -> Iterator[None]:
    with lock_file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.WARNING)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _has_default_experiment(database: Path) -> bool:
    """Tell whether MLflow's last act on a new database, its default experiment, has been committed."""
    if not database.exists():
        return False
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute("SELECT 1 FROM experiments WHERE experiment_id = 0").fetchone() is not None
        except sqlite3.OperationalError:
            return False  # no such table yet, or its writer is at work: the caller waits for the lock
        except sqlite3.DatabaseError as error:
            raise RegistryError(
                f"{database} is no SQLite database ({error}); expected MLflow's. Move the file away, or "
                "correct the tracking URI."
            ) from error


@functools.cache
def _keep_connections_from_children(tracking_uri: str) -> None:
    """Close idle connections before a fork and forget them in the child: SQLite's must not be shared."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore

    for store in (TrackingStore, RegistryStore):
        engine = store._get_or_create_engine(tracking_uri)  # noqa: SLF001 - MLflow keeps its engines for itself
        os.register_at_fork(before=engine.dispose, after_in_child=functools.partial(engine.dispose, close=False))
