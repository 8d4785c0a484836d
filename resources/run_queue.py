"""Dagster's run queue, looked at each half second: Dagster's own setting takes whole seconds."""

from typing import Any

from dagster._core.run_coordinator import QueuedRunCoordinator  # noqa: TID251 - the class that the daemon asks for

INTERVAL_SECONDS = 0.5
"""The daemon sleeps half a second at a time, so less would not be sooner; a look at an empty queue takes about 1 ms."""


class PromptRunQueue(QueuedRunCoordinator):
    """The queued run coordinator with a shorter wait between two looks; its other settings are Dagster's.

    run_coordinator:
      module: resources.run_queue
      class: PromptRunQueue
    """

    @property
    def dequeue_interval_seconds(self) -> Any:
        """Return how long the daemon waits between two looks at the queue."""
        return INTERVAL_SECONDS
