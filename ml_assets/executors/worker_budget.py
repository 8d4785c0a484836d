"""Which ready step may start next, when the steps of a run share the cores and the memory of its worker."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import takewhile
from typing import Any

from dagster import DagsterEvent
from dagster._core.execution.plan.active import (  # noqa: TID251 the state machine of every executor
    ActiveExecution,
)
from dagster._core.execution.plan.plan import ExecutionPlan  # noqa: TID251 the executor interface's own type
from dagster._core.storage.tags import GLOBAL_CONCURRENCY_TAG  # noqa: TID251 how older code names a pool

from ml_assets.executors.demands import Demands, Share
from ml_assets.executors.machine_memory import MachineMemory
from ml_assets.executors.weighted_pools import PoolTooSmallError, WeightedPools


def pool_of(step: Any) -> str | None:
    """Return the pool that a step (an ExecutionStep) belongs to, as Dagster finds it."""
    return step.pool or step.tags.get(GLOBAL_CONCURRENCY_TAG)


class WorkerBudget(ActiveExecution):
    """Dagster's state machine of a run, in which steps become executable only while their share of its worker is free.

    Ready steps are served in order (priority, then age). The first one that does not fit in what is free holds back
    those behind it, so that a large step is never starved by a stream of small ones. A step takes no more than there
    is (`Demands.share`), so each fits in the end. Ask for one step at a time (`next_step`), and have `busy` tell of
    it before asking for the next.

    Args:
        plan: The run's execution plan.
        demands: What its steps ask for; those that get pods use nothing of the worker.
        busy: What each step takes that has a live process or pod, also one that ends just now. A retry of such a
            step waits for it without holding anything back.
        memory: What the runs of this machine share; None where this one has the worker's memory to itself.
        options: ActiveExecution's other arguments.
    """

    def __init__(
        self,
        plan: ExecutionPlan,
        *,
        demands: Demands,
        busy: Callable[[], Mapping[str, Share]],
        memory: MachineMemory | None = None,
        **options: Any,
    ) -> None:
        self._demands = demands
        self._busy = busy
        self._memory = memory
        self._held: list[str] = []
        super().__init__(plan, **options)

    def __exit__(self, *exception: Any) -> None:
        """Leave the line of runs that wait for memory."""
        if self._memory is not None:
            self._memory.leave()
        super().__exit__(*exception)

    def next_step(self) -> Any | None:
        """Return a step (an ExecutionStep) whose cores, memory, pool slot and tag limits are free, or None.

        Raises:
            PoolTooSmallError: If a step asks for more than its pool has.
        """
        steps = self.get_steps_to_execute(limit=1)
        return steps[0] if steps else None

    def take(self, step_key: str) -> None:
        """Count a step as running that an earlier worker of this run has started."""
        self._update()
        for waiting in (self._executable, self._held, self._pending_skip, self._pending_abandon):
            if step_key in waiting:
                waiting.remove(step_key)
        self._pending.pop(step_key, None)
        self._waiting_to_retry.pop(step_key, None)
        if step_key not in self._in_flight:
            self._in_flight.add(step_key)
            self._prep_for_dynamic_outputs(self.get_step_by_key(step_key))

    def start_over(self, step_key: str) -> None:
        """Make a step ready again whose process or pod has gone, without counting an attempt; its pool slot is free."""
        self._in_flight.remove(step_key)
        self._executable.append(step_key)
        if self._instance_concurrency_context is not None:
            self._instance_concurrency_context.free_step(step_key)

    def claim_again(self, step_key: str) -> None:
        """Know of the pool slot that an earlier worker of this run has claimed for a step, to free it when it ends."""
        step, claims = self.get_step_by_key(step_key), self._instance_concurrency_context
        pool = pool_of(step)
        with suppress(PoolTooSmallError):  # somebody lowered its limit: the step runs all the same
            if pool is None or claims is None or claims.claim(pool, step_key):
                return
        # Somebody freed it meanwhile. The step runs anyway; a claim that waits would keep the run from ending, and the
        # steps of other runs from starting.
        if isinstance(claims, WeightedPools):
            claims.forget(step_key)

    def replay(self, events: Iterable[DagsterEvent]) -> list[str]:
        """Bring the state to where the events of an earlier worker leave it, and return the steps that it finished.

        A step that was on its way is ready again: whoever knows that it still runs takes it (`take`).
        """
        finished: list[str] = []
        for event in events:
            key = event.step_key
            ends = event.is_step_success or event.is_step_failure or event.is_step_skipped
            if key is None or not (ends or event.is_step_up_for_retry or event.is_successful_output):
                continue
            if key in finished:  # a second copy that told its end too: the first one counts
                continue
            self.take(key)
            if event.is_step_skipped:
                self._skip_for_dynamic_outputs(self.get_step_by_key(key))
                self.mark_skipped(key)
            else:
                self.handle_event(event)
            finished += [key] if ends else []
        for key in list(self._in_flight):
            self._in_flight.remove(key)
            self._executable.append(key)
        return finished

    def is_running(self, step_key: str) -> bool:
        """Return whether the step was handed out and has no success, failure or retry event yet."""
        return step_key in self._in_flight

    def waits_for_memory(self) -> tuple[str, Share, Share] | None:
        """Return the step that waits for memory alone, its share and what is free; None when there is none."""
        if not self._held:
            return None
        busy = self._busy()
        free = self._free(busy)
        shares = ((key, self._share(key)) for key in self._held if key not in busy)
        first = next(((key, share) for key, share in shares if not share.fits(free)), None)
        return (*first, free) if first is not None and first[1].cores <= free.cores else None

    @property
    def is_complete(self) -> bool:
        """Return whether nothing is left to do."""
        return not self._held and super().is_complete

    def _update(self) -> None:
        self._executable = [*self._executable, *self._held]
        self._held = []
        super()._update()
        busy = self._busy()
        ready = sorted(self._executable, key=lambda key: self._sort_key_fn(self.get_step_by_key(key)))
        idle = [key for key in ready if key not in busy]
        away = {key for key in idle if self._demands.wants_pod(self.get_step_by_key(key))}
        executable = away | set(self._fitting([key for key in idle if key not in away], busy))
        self._executable = [key for key in ready if key in executable]
        self._held = [key for key in ready if key not in executable]

    def _fitting(self, here: list[str], busy: Mapping[str, Share]) -> list[str]:
        """Return the steps before the first one that does not fit; if that one lacks memory alone, it gets in line."""
        if not here:
            if self._memory is not None:
                self._memory.leave()
            return []
        free = self._free(busy)
        fitting = list(takewhile(lambda key: self._share(key).fits(free), here))
        if self._memory is not None:
            first = self._share(here[len(fitting)]) if len(fitting) < len(here) else None
            self._memory.wait(first.memory_mib if first is not None and first.cores <= free.cores else None)
        return fitting

    def _free(self, busy: Mapping[str, Share]) -> Share:
        total = self._demands.total
        memory = total.memory_mib - sum(share.memory_mib for share in busy.values())
        return Share(
            total.cores - sum(share.cores for share in busy.values()),
            memory if self._memory is None else min(memory, self._memory.free()),
        )

    def _share(self, step_key: str) -> Share:
        return self._demands.share(self.get_step_by_key(step_key))
