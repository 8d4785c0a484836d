"""Dagster's queue daemon with our choice of the runs that start; how they are launched stays Dagster's."""

import time
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.instance.config import ConcurrencyConfig  # noqa: TID251 - the base class's arguments
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from ml_assets.executors.pool_limits import refresh_default_limits
from ml_assets.interfaces import PolicySource
from ml_assets.interfaces.spend import SpendStore
from resources.fair_queue import FairQueue, Look

_MOST_TOLD = 10
"""Runs that are told in one look why they wait: each takes a write to the event log."""


class FairQueueDaemon(QueuedRunCoordinatorDaemon):
    """The daemon that takes runs out of the queue, by the rules of sharing where there are teams in them.

    Without teams, Dagster's own order holds. In both, Dagster's limits do: runs at once, tags, pools, code locations.

    Args:
        interval_seconds: Time between two looks.
        policy: Where the rules are; the profile's when None.
        spend: What steps cost; the profile's when None.
    """

    def __init__(
        self,
        interval_seconds: Any,
        *,
        policy: PolicySource | None = None,
        spend: SpendStore | None = None,
    ) -> None:
        super().__init__(interval_seconds)
        self._policy, self._spend = policy, spend
        self._queues: dict[int, FairQueue] = {}
        self._told: set[tuple[str, str]] = set()

    def _get_runs_to_dequeue(
        self,
        instance: dg.DagsterInstance,
        concurrency_config: ConcurrencyConfig,
        fixed_iteration_time: float | None,
    ) -> list[dg.DagsterRun]:
        queue = self._queue_of(instance)
        seconds = fixed_iteration_time or time.time()
        now = datetime.fromtimestamp(seconds, UTC)
        queue.sweep(now)
        if queue.is_empty():
            return []
        if not queue.rules().teams:
            return super()._get_runs_to_dequeue(instance, concurrency_config, fixed_iteration_time)
        in_progress, runs = queue.in_progress(), concurrency_config.run_queue_config
        if runs is not None and 0 <= runs.max_concurrent_runs <= len(in_progress):
            return []
        look = queue.look(concurrency_config, in_progress, now, self._paused(seconds))
        self._tell(instance, look)
        return look.start

    def _queue_of(self, instance: dg.DagsterInstance) -> FairQueue:
        if id(instance) not in self._queues:
            refresh_default_limits(instance)  # Dagster's queue would fail to, on PostgreSQL, and disregard pools
            if self._policy is None or self._spend is None:
                from resources.profiles import current_profile

                profile = current_profile()
                self._policy = self._policy or profile.policy_source(profile.policy_url)
                self._spend = self._spend or profile.spend()
            self._queues[id(instance)] = FairQueue(instance, self._policy, self._spend)
        return self._queues[id(instance)]

    def _paused(self, seconds: float) -> set[str]:
        with self._location_timeouts_lock:
            return {name for name, until in self._location_timeouts.items() if until > seconds}

    def _tell(self, instance: dg.DagsterInstance, look: Look) -> None:
        """Write into a run's own log that it waits for its team's budget, or can never start; once."""
        told = 0
        for run_id, reason in look.choice.waits.items():
            if reason.kind not in {"budget", "never"} or (run_id, reason.kind) in self._told:
                continue
            if told == _MOST_TOLD:
                break
            instance.report_engine_event(f"The run waits in the queue: {reason.text}.", look.runs[run_id])
            self._told.add((run_id, reason.kind))
            told += 1
        self._told = {key for key in self._told if key[0] in look.choice.waits}


def install() -> None:
    """Have Dagster's daemon program make this daemon in place of its own."""
    from dagster._daemon import controller

    controller.QueuedRunCoordinatorDaemon = FairQueueDaemon  # pyright: ignore[reportPrivateImportUsage]
