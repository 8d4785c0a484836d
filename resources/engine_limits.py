"""Dagster's own limits of its run queue, asked run by run: tags, pools, code locations that do not answer."""

import logging
from collections.abc import Collection, Sequence

import dagster as dg
from dagster._core.instance.config import ConcurrencyConfig  # noqa: TID251 - what the queue's daemon is given
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter  # noqa: TID251 - its limits
from dagster._core.storage.dagster_run import RunRecord  # noqa: TID251
from dagster._utils.tags import TagConcurrencyLimitsCounter

_log = logging.getLogger("ml_assets.queue")


class EngineLimits:
    """The limits during one look at the queue; a run that is admitted counts for those after it.

    Args:
        instance: Whose pools.
        config: Limits of tags and pools.
        in_progress: What counts against them already.
        queued: Every run that may be asked for.
        paused: Names of code locations from which no run is launched now.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        config: ConcurrencyConfig,
        in_progress: Sequence[RunRecord],
        queued: Sequence[dg.DagsterRun],
        paused: Collection[str] = (),
    ) -> None:
        assert config.run_queue_config is not None  # noqa: S101 - the queue's daemon runs only with one
        self._config, self._queue = config, config.run_queue_config
        self._instance, self._in_progress, self._queued, self._paused = instance, in_progress, queued, paused
        running = [record.dagster_run for record in in_progress]
        self._tags = TagConcurrencyLimitsCounter(list(self._queue.tag_concurrency_limits), running)
        self._pools: GlobalOpConcurrencyLimitsCounter | None = None
        self._asked = False

    def admits(self, run: dg.DagsterRun) -> bool:
        """Whether a run may start now; if so, it counts from here on."""
        location = run.remote_job_origin.location_name if run.remote_job_origin else None
        if location in self._paused or self._tags.is_blocked(run):
            return False
        pools = self._pool_counter()
        if pools is not None and pools.is_blocked(run):
            return False
        self._tags.update_counters_with_launched_item(run)
        if pools is not None:
            pools.update_counters_with_launched_item(run)
        return True

    def _pool_counter(self) -> GlobalOpConcurrencyLimitsCounter | None:
        """Return what counts the slots of pools; made for the first run that gets so far, as it asks the database."""
        if not self._asked and self._queue.should_block_op_concurrency_limited_runs:
            storage = self._instance.event_log_storage
            try:
                self._pools = GlobalOpConcurrencyLimitsCounter(
                    self._instance,
                    self._queued,
                    self._in_progress,
                    concurrency_keys=storage.get_concurrency_keys(),
                    pool_limits=storage.get_pool_limits(),
                    slot_count_offset=self._queue.op_concurrency_slot_buffer,
                    pool_granularity=self._config.pool_config.pool_granularity,
                )
            except Exception:  # noqa: BLE001 - as Dagster's own queue: steps wait for their slots in any case
                _log.exception("The slots of pools cannot be read; runs start without regard to them.")
        self._asked = True
        return self._pools
