"""Optuna's tables in the ledger's database: made once, checked, and written to in transactions of ours."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ml_assets.errors import LedgerError, StudyError
from resources.ledger.address import LedgerAddress, parse_address
from resources.ledger.database import Database
from resources.studies.sampling import quiet_optuna

if TYPE_CHECKING:
    import sqlalchemy as sa
    from optuna.storages import RDBStorage

WAIT_SECONDS = 60
SCHEMA = "optuna"
"""Schema of Optuna's tables on PostgreSQL: they include `alembic_version`, which Dagster and MLflow call theirs too."""


class StudyTables:
    """Optuna's storage on a ledger's database; made without any I/O.

    Optuna's own methods read and write, so that its tools understand what is there. But each of its calls would be
    a transaction of its own. Here all calls of a block share one, which begins with the lock of a study: a
    round of trials is stored whole or not at all, and only while its writer still leads the study.

    Args:
        url: The ledger's.

    Raises:
        LedgerError: If the URL has another form.
    """

    def __init__(self, url: str) -> None:
        self._address: LedgerAddress = parse_address(url)
        self._database = Database(url, WAIT_SECONDS)
        self._opened: list[RDBStorage] = []

    @property
    def shown(self) -> str:
        """Return the place without password and options."""
        return self._address.shown

    @contextmanager
    def writing(self, action: str, study: str) -> Iterator["tuple[RDBStorage, sa.Connection]"]:
        """Yield a storage whose calls are one transaction, while nobody else writes to the study.

        Raises:
            LedgerError: If the database refuses.
            StudyError: If Optuna's tables cannot be made, or are of another release.
        """
        import sqlalchemy.orm as orm
        from optuna.exceptions import StorageInternalError

        storage = _twin(self._storage())
        with self._database.writing(action, [f"study {study}"]) as connection:
            if self._address.file is None:
                connection.exec_driver_sql(f"SET LOCAL search_path TO {SCHEMA}")
            # A session's commit then ends a savepoint; the transaction is ours.
            maker = orm.sessionmaker(bind=connection, join_transaction_mode="create_savepoint")
            storage.scoped_session = orm.scoped_session(maker)
            try:
                yield storage, connection
            except StorageInternalError as error:
                raise LedgerError(
                    f"{action} failed in the ledger at {self.shown}: {error.__cause__ or error}"
                ) from error

    def _storage(self) -> "RDBStorage":
        """Return Optuna's storage, whose tables are there; each process looks once."""
        if not self._opened:
            quiet_optuna()
            with self._database.reading("Opening the studies"):
                pass  # makes the ledger itself first: its file must have its mode before anybody writes to it
            with self._creation_lock():
                self._opened.append(self._open())
        return self._opened[0]

    def _open(self) -> "RDBStorage":
        import sqlalchemy as sa
        import sqlalchemy.exc as sa_exc
        from optuna.exceptions import StorageInternalError
        from optuna.storages import RDBStorage

        options: dict[str, Any] = {"poolclass": sa.NullPool, "hide_parameters": True}
        if self._address.file is None:
            options["connect_args"] = {"options": f"-csearch_path={SCHEMA}"}
        else:
            options["connect_args"] = {"timeout": WAIT_SECONDS}  # others write to the ledger meanwhile
        url = self._address.url.replace("{", "{{").replace("}", "}}")  # Optuna takes it for a template
        try:
            return RDBStorage(url, engine_kwargs=options)
        except StorageInternalError as error:
            cause = _cause(error.__cause__ or error)
            raise StudyError(f"The studies in the ledger at {self.shown} cannot be opened: {cause}") from error
        except RuntimeError as error:  # Optuna's word for tables of another release
            raise StudyError(f"The studies in the ledger at {self.shown} cannot be used: {error}") from error
        except sa_exc.SQLAlchemyError as error:
            raise StudyError(f"The studies in the ledger at {self.shown} cannot be opened: {_cause(error)}") from error

    @contextmanager
    def _creation_lock(self) -> Iterator[None]:
        """Let one process at a time make the tables: Optuna looks first and then creates."""
        if self._address.file is not None:
            with self._address.file.with_name(f"{self._address.file.name}.studies.lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
            return
        action, lock = "Making the tables of studies", ["studies"]
        with self._database.writing(action, lock) as connection:
            known = connection.exec_driver_sql(f"SELECT 1 FROM pg_namespace WHERE nspname = '{SCHEMA}'").first()  # noqa: S608
            if known is None:  # asked first: IF NOT EXISTS wants the right to create one even when it is there
                connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
        with self._database.writing(action, lock):
            yield


def _twin(storage: "RDBStorage") -> "RDBStorage":
    """Return another object over the same storage; `copy.copy` would open it anew."""
    twin = object.__new__(type(storage))
    vars(twin).update(vars(storage))
    return twin


def _cause(error: BaseException) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())
