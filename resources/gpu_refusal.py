"""Refuses a run at its submission when this machine has too few GPUs for a step that cannot run without."""

from typing import Any

from dagster import DagsterInstance, DagsterRun

from ml_assets.compute import GPUS_POOL
from ml_assets.executors.gpus import require_gpus


def refuse_missing_gpus(instance: DagsterInstance, run: DagsterRun) -> None:
    """Ask the run's plan what its steps need, and the pool `gpus` what there is; the executor asks again.

    The pool has a limit on an instance of one machine: the number of its GPUs. Where it has none a cluster decides.

    Raises:
        MissingGpusError: With every step that cannot run without the GPUs that are missing.
    """
    snapshot_id = run.execution_plan_snapshot_id
    if snapshot_id is None:
        return
    storage: Any = instance.event_log_storage
    limits = {pool.name: pool.limit for pool in storage.get_pool_limits() if not pool.from_default}
    if GPUS_POOL not in limits:
        return
    plan = instance.get_execution_plan_snapshot(snapshot_id)
    chosen = set(plan.step_keys_to_execute)
    require_gpus(((step.key, step.tags) for step in plan.steps if step.key in chosen), limits[GPUS_POOL])
