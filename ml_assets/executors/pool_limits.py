"""Limits of Dagster's pools, given so that PostgreSQL takes them, and the tables that pools are kept in."""

from contextlib import suppress
from typing import Any

from dagster import DagsterInstance


def tables() -> Any:
    """Return the module of the tables that pools are kept in; no public API of Dagster takes several slots at once.

    It is imported when a step claims, since SQLAlchemy comes with it and a code location loads without.
    """
    from dagster._core.storage.event_log import schema  # noqa: TID251 see above

    return schema


def integrity_error() -> type[Exception]:
    """Return what is raised when another process has inserted the same row at this moment."""
    from dagster._core.storage.event_log import sql_event_log  # noqa: TID251 the errors of its database

    module: Any = sql_event_log
    return module.db_exc.IntegrityError


def give_default_limit(storage: Any, pool: str, limit: int) -> None:
    """Give a pool the instance's default limit; one that somebody gave it stays.

    Dagster inserts the limit and updates it when that fails, in one transaction. PostgreSQL refuses all that follows an
    error in a transaction: of two runs that claim a new pool at once one would fail, and every run of a pool whose
    default was changed since.

    Args:
        storage: The instance's event log storage.
        pool: Name of the pool.
        limit: How many slots it gets.
    """
    _give_limit(storage, pool, limit, by_default=True)


def give_first_limit(storage: Any, pool: str, limit: int) -> None:
    """Give a pool a limit of its own, unless somebody gave it one.

    Dagster's way to do it fails while no pool has a limit and slots of one that had are left: those that steps hold,
    and on PostgreSQL some that stay for ever, when a step ends at the moment in which the limit is deleted.

    Args:
        storage: The instance's event log storage.
        pool: Name of the pool.
        limit: How many slots it gets.
    """
    _give_limit(storage, pool, limit, by_default=False)


def _give_limit(storage: Any, pool: str, limit: int, *, by_default: bool) -> None:
    limits = tables().ConcurrencyLimitsTable
    of_default = (limits.c.concurrency_key == pool) & limits.c.using_default_limit
    given = {"limit": limit, "using_default_limit": by_default}
    row = {"concurrency_key": pool, **given}
    with suppress(integrity_error()), storage.index_transaction() as connection:
        # The update comes first: it locks the row, and in SQLite the database.
        if not connection.execute(limits.update().where(of_default).values(**given)).rowcount:
            connection.execute(limits.insert().values([row]))
        storage._allocate_concurrency_slots(connection, pool, limit)  # noqa: SLF001 the slots of the same transaction


def refresh_default_limits(instance: DagsterInstance) -> None:
    """Give the default limit of dagster.yaml to every pool that still has an earlier one."""
    storage: Any = instance.event_log_storage
    default = instance.global_op_concurrency_default_limit
    if default is None or not storage.supports_global_concurrency_limits:
        return
    with suppress(integrity_error()):  # no pool has a limit, and slots of one that had are left
        for pool in storage.get_pool_limits():
            if pool.from_default and pool.limit != default:
                give_default_limit(storage, pool.name, default)
