"""Which ready step may start next, when the steps of a run share a fixed number of cores."""

from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any

from dagster._core.execution.plan.active import (  # noqa: TID251 the state machine of every executor
    ActiveExecution,
)
from dagster._core.execution.plan.plan import ExecutionPlan  # noqa: TID251 the executor interface's own type

from ml_assets.errors import MlAssetsError

CORES_TAG = "ml_assets/cores"
"""Op tag: how many cores (and so numeric threads) a step uses; 1 when absent."""


def cores_of(step_key: str, tags: Mapping[str, str] | None, max_cores: int) -> int:
    """Return the cores a step gets: its tag's number, at most `max_cores`, 1 without the tag.

    Raises:
        MlAssetsError: If the tag is not a whole number of at least 1.
    """
    asked = (tags or {}).get(CORES_TAG, "1")
    if not (asked.isascii() and asked.isdigit() and int(asked) >= 1):
        raise MlAssetsError(
            f"step {step_key}: op tag {CORES_TAG!r} is {asked!r}; expected a whole number of at least 1, "
            'such as "2". Correct `op_tags` of that asset.'
        )
    return min(int(asked), max_cores)


class CoreBudget(ActiveExecution):
    """Dagster's state machine of a run, in which steps become executable only while their cores are free.

    Ready steps are served in order (priority, then age). The first one whose cores are not free holds back
    those behind it, so that a wide step is never starved by a stream of narrow ones. Ask for one step at a
    time (`next_step`), and have `busy` tell of it before asking for the next.

    Args:
        plan: The run's execution plan.
        max_cores: Cores there are, at least 1.
        busy: Cores of each step that has a live process, also of one that ends just now. A retry of such a
            step waits for it without holding anything back.
        options: ActiveExecution's other arguments.
    """

    def __init__(
        self, plan: ExecutionPlan, *, max_cores: int, busy: Callable[[], Mapping[str, int]], **options: Any
    ) -> None:
        self._max_cores = max_cores
        self._busy = busy
        self._held: list[str] = []
        super().__init__(plan, max_concurrent=max_cores, **options)

    def next_step(self) -> Any | None:
        """Return a step (an ExecutionStep) whose cores, pool slot and tag limits are free, or None."""
        steps = self.get_steps_to_execute(limit=1)
        return steps[0] if steps else None

    def is_running(self, step_key: str) -> bool:
        """Return whether the step was handed out and has no success, failure or retry event yet."""
        return step_key in self._in_flight

    @property
    def is_complete(self) -> bool:
        """Return whether nothing is left to do."""
        return not self._held and super().is_complete

    def _update(self) -> None:
        self._executable = [*self._executable, *self._held]
        self._held = []
        super()._update()
        busy = self._busy()
        free = self._max_cores - sum(busy.values())
        ready = sorted(self._executable, key=lambda key: self._sort_key_fn(self.get_step_by_key(key)))
        self._executable = list(
            takewhile(lambda key: self._cores(key) <= free, (key for key in ready if key not in busy))
        )
        self._held = [key for key in ready if key not in self._executable]

    def _cores(self, step_key: str) -> int:
        return cores_of(step_key, self.get_step_by_key(step_key).tags, self._max_cores)
