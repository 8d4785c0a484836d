"""Claims of Dagster's pools in which a step of n GPUs takes n slots of the pool of GPUs: all of them, or none.

The slots, the queue of those who wait and the ways they are freed are Dagster's own, so that its UI shows them and
its monitoring frees them when a run dies. Only the claim is another: it takes place in one transaction that locks
the pool's limit, so that two steps never hold half of what each needs.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from dagster import DagsterInstance, DagsterRun
from dagster._core.execution.plan.instance_concurrency_context import (  # noqa: TID251 extended here
    InstanceConcurrencyContext,
)
from dagster._core.instance.config import PoolGranularity  # noqa: TID251 a pool may bound runs in place of steps
from dagster._time import get_current_datetime

from ml_assets.compute import GPUS_POOL, MODELS_POOL, gpus_asked, gpus_granted
from ml_assets.errors import MlAssetsError

LOOK_SECONDS = 1.0
"""Time between two looks of a step that waits; a GPU that is free is worth a short one."""

FORGET_SECONDS = 5.0
"""A step that nobody asks for any more, as when its cores were given to another one, loses its place after so long."""


class WeightedPools(InstanceConcurrencyContext):
    """Dagster's context of claims, in which a step takes as many slots of the pool `gpus` as it asks for GPUs.

    Who waits is served by priority, then age; the first one that does not fit holds back those behind it, so that a
    step of many GPUs is never starved by a stream of small ones.

    Args:
        instance: Holds the pools.
        dagster_run: The run that claims.
        tags_of: Returns the op tags of a step by its key.
        gpus: GPUs of this machine, where all steps run on it: the pool gets that limit when nobody gave it one, and a
            step that asks for more runs without and takes a slot of the pool `models`. None where steps may have
            pods of their own: then the pool bounds them only if somebody gave it a limit.
    """

    def __init__(
        self,
        instance: DagsterInstance,
        dagster_run: DagsterRun,
        *,
        tags_of: Callable[[str], Mapping[str, str] | None],
        gpus: int | None,
    ) -> None:
        super().__init__(instance, dagster_run)
        self._tags_of = tags_of
        self._gpus = gpus
        self._storage: Any = instance.event_log_storage
        self._looks: dict[str, float] = {}
        self._asked: dict[str, float] = {}

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        """Return whether a step has its slots now; ask again if not.

        Raises:
            MlAssetsError: If a step asks for more GPUs than the pool will ever have.
        """
        if concurrency_key != GPUS_POOL or not self._bounds_steps():
            return super().claim(concurrency_key, step_key, step_priority)
        asked = gpus_asked(self._tags_of(step_key))
        if asked and self._gpus is not None and not gpus_granted(asked, self._gpus):
            return super().claim(MODELS_POOL, step_key, step_priority)
        limit = self._limit()
        if limit is None:
            return True
        self._asked[step_key] = time.monotonic()
        return self._claim_slots(step_key, max(asked, 1), limit, self._run_priority + step_priority)

    def pending_claim_steps(self) -> list[str]:
        """Return the steps that wait for slots; one that could not start anyhow stops holding back the others."""
        for step_key in list(self._pending_claims):
            if time.monotonic() > self._asked.get(step_key, math.inf) + FORGET_SECONDS:
                self._storage.free_concurrency_slot_for_step(self._run_id, step_key)
                self._pending_claims.discard(step_key)
        return super().pending_claim_steps()

    def devices(self, step_key: str) -> tuple[int, ...]:
        """Return which GPUs of the machine a step holds, as places among the pool's slots, counted from 0."""
        slots = _tables().ConcurrencySlotsTable
        with self._storage.index_connection() as connection:
            rows = connection.execute(
                slots.select().where(slots.c.concurrency_key == GPUS_POOL).order_by(slots.c.id)
            ).fetchall()
        return tuple(place for place, row in enumerate(rows) if row.run_id == self._run_id and row.step_key == step_key)

    def _bounds_steps(self) -> bool:
        granularity = self._pool_config.pool_granularity
        return self._storage.supports_global_concurrency_limits and granularity != PoolGranularity.RUN

    def _limit(self) -> int | None:
        """Return how many slots the pool has; None when it bounds nothing."""
        if self._pools is None:
            self._sync_pools()
        info = self.get_pool_info(GPUS_POOL)
        if info is not None and not info.from_default:
            return info.limit
        if self._gpus is None:
            return None
        with suppress(_integrity_error()):  # another run gives it the same limit at this moment
            self._storage.set_concurrency_slots(GPUS_POOL, self._gpus)
        self._sync_pools()
        return self._gpus

    def _claim_slots(self, step_key: str, weight: int, limit: int, priority: int) -> bool:
        if step_key in self._pending_claims and time.monotonic() < self._looks[step_key]:
            return False
        if weight > limit:
            self._storage.free_concurrency_slot_for_step(self._run_id, step_key)
            raise MlAssetsError(
                f"Step {step_key} asks for {weight} GPUs; the pool {GPUS_POOL!r} has {limit} in all, so it would wait "
                "for ever. Ask for fewer in the pipeline's `compute`, or raise the pool's limit in the UI "
                "(Deployment, Concurrency)."
            )
        if _take(self._storage, self._run_id, step_key, weight=weight, priority=priority):
            self._pending_claims.discard(step_key)
            self._claims.add(step_key)
            return True
        self._pending_claims.add(step_key)
        self._looks[step_key] = self._pending_timeouts[step_key] = time.monotonic() + LOOK_SECONDS
        self._sync_pools()
        return False

    def interval_to_next_pending_claim_check(self) -> float:
        """Return how long a caller may sleep before it asks again, in seconds."""
        return min(LOOK_SECONDS, 0.1) if self._pending_claims else 0.0


def _take(storage: Any, run_id: str, step_key: str, *, weight: int, priority: int) -> bool:
    """Give a step all its slots of the pool in one transaction, if it is the next one and they are free."""
    slots, waiting = _tables().ConcurrencySlotsTable, _tables().PendingStepsTable
    with storage.index_transaction() as connection:
        _lock(connection)
        in_pool = connection.execute(
            slots.select().where(slots.c.concurrency_key == GPUS_POOL).order_by(slots.c.id)
        ).fetchall()
        holders = {(row.run_id, row.step_key) for row in in_pool if row.run_id is not None}
        if (run_id, step_key) in holders:
            return True
        queue = _queue(connection, run_id, step_key, priority)
        first = next(row for row in queue if (row.run_id, row.step_key) not in holders)
        free = [row.id for row in in_pool if row.run_id is None and not row.deleted]
        if (first.run_id, first.step_key) != (run_id, step_key) or len(free) < weight:
            return False
        connection.execute(slots.update().where(slots.c.id.in_(free[:weight])).values(run_id=run_id, step_key=step_key))
        # Dagster counts whoever waits with this mark as one that has its slot.
        connection.execute(waiting.update().where(waiting.c.id == first.id).values(assigned_timestamp=_now()))
        return True


def _lock(connection: Any) -> None:
    """Keep every other claim of the pool waiting until the transaction ends.

    Writing the row as it is locks it in PostgreSQL, and the database in SQLite.
    """
    limits = _tables().ConcurrencyLimitsTable
    connection.execute(limits.update().where(limits.c.concurrency_key == GPUS_POOL).values(limit=limits.c.limit))


def _queue(connection: Any, run_id: str, step_key: str, priority: int) -> list[Any]:
    """Return who holds or waits for slots of the pool, the next one first; the step itself joins if it is new."""
    waiting = _tables().PendingStepsTable
    in_pool = waiting.select().where(waiting.c.concurrency_key == GPUS_POOL)
    rows = connection.execute(in_pool).fetchall()
    if (run_id, step_key) not in {(row.run_id, row.step_key) for row in rows}:
        entry = {"run_id": run_id, "step_key": step_key, "concurrency_key": GPUS_POOL, "priority": priority}
        connection.execute(waiting.insert().values([entry]))
        rows = connection.execute(in_pool).fetchall()
    return sorted(rows, key=lambda row: (-(row.priority or 0), row.id))


def _now() -> Any:
    return get_current_datetime().replace(tzinfo=None)


def _tables() -> Any:
    """Return the module of the tables that pools are kept in; no public API of Dagster takes several slots at once.

    It is imported when a step claims, since SQLAlchemy comes with it and a code location loads without.
    """
    from dagster._core.storage.event_log import schema  # noqa: TID251 see above

    return schema


def _integrity_error() -> type[Exception]:
    from dagster._core.storage.event_log import sql_event_log  # noqa: TID251 the errors of its database

    module: Any = sql_event_log
    return module.db_exc.IntegrityError
