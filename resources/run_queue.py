"""Dagster's run queue, looked at each half second, in which runs that decide on a pipeline's models go one by one."""

from collections.abc import Iterable
from typing import Any

import dagster as dg
from dagster._core.run_coordinator import (  # noqa: TID251 - the class that the daemon asks for
    QueuedRunCoordinator,
    SubmitRunContext,
)

DECIDES_TAG = "ml_assets/decides"
"""On a run that can change the champion of a pipeline; dagster.yaml lets one run of each value go at a time."""

DECIDING_STAGES = frozenset({"evaluation", "promotion"})

INTERVAL_SECONDS = 0.5
"""The daemon sleeps half a second at a time, so less would not be sooner; a look at an empty queue takes about 1 ms."""


def decided(selection: Iterable[dg.AssetKey]) -> str:
    """Return `team/pipeline` of the stages in the selection that decide, joined by commas; empty if none does."""
    return ",".join(sorted({"/".join(key.path[:-1]) for key in selection if key.path[-1] in DECIDING_STAGES}))


class PromptRunQueue(QueuedRunCoordinator):
    """The queued run coordinator with a shorter wait between two looks; its other settings are Dagster's.

    run_coordinator:
      module: resources.run_queue
      class: PromptRunQueue
    """

    @property
    def dequeue_interval_seconds(self) -> Any:
        """Return how long the daemon waits between two looks at the queue: Dagster's setting takes whole seconds."""
        return INTERVAL_SECONDS

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Tag a run that decides, before the daemon can see it in the queue."""
        run = context.dagster_run
        pipeline = decided(run.asset_selection or ())
        if pipeline:
            self._instance.add_run_tags(run.run_id, {DECIDES_TAG: pipeline})
        return super().submit_run(context)
