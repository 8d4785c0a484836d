"""Claims of Dagster's pools in which a step of n GPUs takes n slots of the pool of GPUs: all of them, or none.

The slots, the queue of those who wait and the ways they are freed are Dagster's own, so that its UI shows them and
its monitoring frees them when a run dies. Only the claim is another: it takes place in one transaction that locks
the pool's limit, so that two steps never hold half of what each needs. Every pool is claimed so: on PostgreSQL
Dagster's own claim commits after each statement, and steps that claim at the same moment may all get the last slot.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dagster import DagsterInstance, DagsterRun
from dagster._core.execution.plan.instance_concurrency_context import (  # noqa: TID251 extended here
    InstanceConcurrencyContext,
)
from dagster._core.instance.config import PoolGranularity  # noqa: TID251 a pool may bound runs in place of steps
from dagster._time import get_current_datetime

from ml_assets.compute import GPUS_POOL, MODELS_POOL, gpus_asked, gpus_granted
from ml_assets.errors import MlAssetsError
from ml_assets.executors.gpu_devices import GpuDevices, Holder
from ml_assets.executors.pool_limits import give_default_limit, give_first_limit, integrity_error, tables

LOOK_SECONDS = 1.0
"""Time between two looks of a step that waits; a GPU that is free is worth a short one."""

_MOST_LOOK_SECONDS = 15.0
"""In other pools, where hundreds may wait, that time grows to this one, as it does in Dagster."""

FORGET_SECONDS = 5.0
"""A step that nobody asks for any more, as when its cores were given to another one, loses its place after so long."""

_MOST_PRIORITY = 2**31 - 1
"""PostgreSQL keeps priorities in 32 bits."""


class PoolTooSmallError(MlAssetsError):
    """A step asks for more slots than its pool has, so it would wait for ever."""

    def __init__(self, step_key: str, asked: int, limit: int) -> None:
        self.step_key = step_key
        super().__init__(
            f"Step {step_key} asks for {asked} GPUs; the pool {GPUS_POOL!r} has {limit} in all, so it would wait for "
            "ever. Ask for fewer in the pipeline's `compute`, or raise the pool's limit in the UI (Deployment, "
            "Concurrency)."
        )


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """What a step asks for.

    Attributes:
        pool: Whose slots.
        run_id: The step's run.
        step_key: The step.
        weight: How many slots.
        priority: The highest is served first.
    """

    pool: str
    run_id: str
    step_key: str
    weight: int
    priority: int


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
        self._devices = GpuDevices(instance.run_storage, gpus) if gpus else None
        self._looks: dict[str, float] = {}
        self._misses: dict[str, int] = {}
        self._asked: dict[str, float] = {}

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        """Return whether a step has its slots now; ask again if not.

        Raises:
            PoolTooSmallError: If a step asks for more GPUs than the pool has. A pool of none is one that somebody
                closed for a while: there it waits.
        """
        if not self._bounds_steps(concurrency_key):
            return True
        pool, asked = concurrency_key, 0
        if pool == GPUS_POOL:
            asked = gpus_asked(self._tags_of(step_key))
            if asked and self._gpus is not None and not gpus_granted(asked, self._gpus):
                pool, asked = MODELS_POOL, 0
        limit = self._limit(pool)
        if limit is None:
            self.forget(step_key)
            return True
        self._asked[step_key] = time.monotonic()
        priority = min(max(self._run_priority + step_priority, -_MOST_PRIORITY), _MOST_PRIORITY)
        claim = _Claim(pool=pool, run_id=self._run_id, step_key=step_key, weight=max(asked, 1), priority=priority)
        return self._claim_slots(claim)

    def pending_claim_steps(self) -> list[str]:
        """Return the steps that wait for slots; one that could not start anyhow stops holding back the others."""
        for step_key in list(self._pending_claims):
            if time.monotonic() > self._asked.get(step_key, math.inf) + FORGET_SECONDS:
                self.forget(step_key)
        return super().pending_claim_steps()

    def forget(self, step_key: str) -> None:
        """Take a step that waits for slots out of the queue; nothing happens to one that has them."""
        if step_key in self._pending_claims:
            self._storage.free_concurrency_slot_for_step(self._run_id, step_key)
            self._pending_claims.discard(step_key)

    def devices(self, step_key: str) -> tuple[int, ...]:
        """Return which GPUs of the machine a step that has its slots holds, as places counted from 0."""
        return (
            () if self._devices is None or step_key not in self._claims else self._devices.of((self._run_id, step_key))
        )

    def interval_to_next_pending_claim_check(self) -> float:
        """Return how long a caller may sleep before it asks again, in seconds."""
        return min(LOOK_SECONDS, 0.1) if self._pending_claims else 0.0

    def _sync_pools(self) -> None:
        try:
            super()._sync_pools()
        except integrity_error():
            self._pools = {}  # Dagster fails so when none has a limit and slots of one that had are left

    def _bounds_steps(self, pool: str) -> bool:
        """Return whether steps claim slots of a pool; those of a machine's GPUs also where pools bound runs."""
        bounds_runs = self._pool_config.pool_granularity == PoolGranularity.RUN
        if bounds_runs and pool == GPUS_POOL and self._gpus:
            bounds_runs = False
        return self._storage.supports_global_concurrency_limits and not bounds_runs

    def _limit(self, pool: str) -> int | None:
        """Return how many slots a pool has; None when it bounds nothing."""
        if self._pools is None:
            self._sync_pools()
        info = self.get_pool_info(pool)
        if info is not None and not info.from_default:
            return info.limit
        if pool != GPUS_POOL:
            return self._default_limit(pool)
        if self._gpus is None:
            return None
        give_first_limit(self._storage, GPUS_POOL, self._gpus)
        self._sync_pools()
        return self._gpus

    def _default_limit(self, pool: str) -> int | None:
        """Return the limit of a pool to which nobody gave one of its own."""
        default, info = self._pool_config.default_pool_limit, self.get_pool_info(pool)
        if (None if info is None else info.limit) != default:
            if default is None:
                self._storage.initialize_concurrency_limit_to_default(pool)  # which removes the former one
            else:
                give_default_limit(self._storage, pool, default)
            self._sync_pools()
            info = self.get_pool_info(pool)
        return None if info is None else info.limit

    def _claim_slots(self, claim: _Claim) -> bool:
        step_key = claim.step_key
        if step_key in self._pending_claims and time.monotonic() < self._looks[step_key]:
            return False
        if _take(self._storage, claim, self._devices if claim.pool == GPUS_POOL else None):
            self._pending_claims.discard(step_key)
            self._misses.pop(step_key, None)
            self._claims.add(step_key)
            return True
        self._pending_claims.add(step_key)
        self._looks[step_key] = self._pending_timeouts[step_key] = time.monotonic() + self._pause(claim)
        self._sync_pools()
        info = self.get_pool_info(claim.pool)
        if claim.pool == GPUS_POOL and info is not None and 0 < info.limit < claim.weight:
            self.forget(step_key)
            raise PoolTooSmallError(step_key, claim.weight, info.limit)
        return False

    def _pause(self, claim: _Claim) -> float:
        """Return how long a step waits before it looks again."""
        misses = self._misses[claim.step_key] = self._misses.get(claim.step_key, 0) + 1
        return LOOK_SECONDS if claim.pool == GPUS_POOL else min(1.1 ** min(misses, 30), _MOST_LOOK_SECONDS)


def _take(storage: Any, claim: _Claim, devices: GpuDevices | None) -> bool:
    """Give a step all its slots of a pool in one transaction, if its turn has come and they are free."""
    slots, waiting = tables().ConcurrencySlotsTable, tables().PendingStepsTable
    mine = (claim.run_id, claim.step_key)
    with storage.index_transaction() as connection:
        _lock(connection, claim.pool)
        in_pool = connection.execute(
            slots.select().where(slots.c.concurrency_key == claim.pool).order_by(slots.c.id)
        ).fetchall()
        holders = dict[Holder, list[int]]()
        for place, row in enumerate(in_pool):
            if row.run_id is not None:
                holders.setdefault((row.run_id, row.step_key), []).append(place)
        if mine in holders:
            return True
        queue = [row for row in _queue(connection, claim) if (row.run_id, row.step_key) not in holders]
        ahead = next(place for place, row in enumerate(queue) if (row.run_id, row.step_key) == mine)
        # Whoever held a slot when the limit was lowered counts while it runs, also once the limit is raised again.
        over = sum(bool(row.deleted) and row.run_id is not None for row in in_pool)
        free = [row.id for row in in_pool if row.run_id is None and not row.deleted][over:]
        # How many GPUs those ahead ask for is not known; in other pools each leaves room with the slot that it takes.
        if len(free) < claim.weight + ahead or (ahead and claim.pool == GPUS_POOL):
            return False
        if devices is not None:
            devices.assign(mine, claim.weight, holders)
        taken = {"run_id": claim.run_id, "step_key": claim.step_key}
        connection.execute(slots.update().where(slots.c.id.in_(free[: claim.weight])).values(**taken))
        # Dagster counts whoever waits with this mark as one that has its slot.
        connection.execute(waiting.update().where(waiting.c.id == queue[ahead].id).values(assigned_timestamp=_now()))
        return True


def _lock(connection: Any, pool: str) -> None:
    """Keep every other claim of the pool waiting until the transaction ends.

    Writing the row as it is locks it in PostgreSQL, and the database in SQLite.
    """
    limits = tables().ConcurrencyLimitsTable
    connection.execute(limits.update().where(limits.c.concurrency_key == pool).values(limit=limits.c.limit))


def _queue(connection: Any, claim: _Claim) -> list[Any]:
    """Return who holds or waits for slots of the pool, the next one first; the step itself joins if it is new."""
    waiting = tables().PendingStepsTable
    in_pool = waiting.select().where(waiting.c.concurrency_key == claim.pool)
    rows = connection.execute(in_pool).fetchall()
    if (claim.run_id, claim.step_key) not in {(row.run_id, row.step_key) for row in rows}:
        entry = {"run_id": claim.run_id, "step_key": claim.step_key}
        entry |= {"concurrency_key": claim.pool, "priority": claim.priority}
        connection.execute(waiting.insert().values([entry]))
        rows = connection.execute(in_pool).fetchall()
    return sorted(rows, key=lambda row: (-(row.priority or 0), row.id))


def _now() -> Any:
    return get_current_datetime().replace(tzinfo=None)
