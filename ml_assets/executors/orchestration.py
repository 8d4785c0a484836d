"""One run on its way: starts the steps that may start, listens to their processes and pods, and concludes."""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from dagster import DagsterEvent, DagsterExecutionInterruptedError, DagsterRunStatus
from dagster._core.errors import DagsterSubprocessError  # noqa: TID251 what multiprocess raises
from dagster._core.events import EngineEventData  # noqa: TID251 payload of engine events
from dagster._core.execution.context.system import (  # noqa: TID251 the executor interface's own type
    PlanOrchestrationContext,
)
from dagster._core.execution.plan.objects import (  # noqa: TID251 payload of failures, and whose fault one is
    ErrorSource,
    StepFailureData,
)
from dagster_shared.error import SerializableErrorInfo

from ml_assets.errors import MlAssetsError
from ml_assets.executors.demands import Demands
from ml_assets.executors.event_tail import EventTail
from ml_assets.executors.forked_steps import ForkedSteps
from ml_assets.executors.pod_steps import PodSteps
from ml_assets.executors.pods import PodRefusedError
from ml_assets.executors.weighted_pools import PoolTooSmallError
from ml_assets.executors.worker_budget import WorkerBudget, pool_of

_TICK_SECONDS = 0.1
"""How long the run process sleeps at most before it looks for signals, retries and freed pool slots."""


@dataclass(kw_only=True)
class Orchestration:
    """The state machine of a run, the processes and pods of its steps, and the errors met.

    Attributes:
        context: The run.
        active: Its state machine.
        demands: What its steps ask for, and which of them get pods.
        forked: Steps in processes of this machine.
        pods: Steps in pods; None when there is no cluster.
        stopping: Whether the run was told to stop.
        told_of_memory: Whether the run's log says that steps wait for memory.
    """

    context: PlanOrchestrationContext
    active: WorkerBudget
    demands: Demands
    forked: ForkedSteps
    pods: PodSteps | None
    stopping: bool = False
    told_of_memory: bool = False

    def events(self) -> Iterator[DagsterEvent]:
        """Yield the events of the run until all its steps have ended.

        Raises:
            DagsterSubprocessError: If a step's process crashed or failed outside its step.
            DagsterExecutionInterruptedError: If the run was told to stop.
        """
        processes = self.forked.processes
        try:
            if self.context.resume_from_failure:
                yield from self._resume()
            while (not self.stopping and not self.active.is_complete) or processes:
                yield from self._stop_if_interrupted()
                if not self.stopping:
                    yield from self._start_steps()
                self._wait()
                yield from self.forked.advance()
                if self.pods is not None and not self.stopping:
                    yield from self.pods.advance()
                yield from self.active.plan_events_iterator(self.context)
        finally:  # without processes unless an error or a closed generator ends the run early
            for process in processes.values():
                process.interrupt()
            if self.pods is not None and not self.forked.leaving:
                self.pods.close()
        yield from self._conclude()

    def _resume(self) -> Iterator[DagsterEvent]:
        """Go on where an earlier worker of this run stopped: its forked steps died with it, its pods did not."""
        tail = EventTail(self.context.instance, self.context.run_id) if self.pods is None else self.pods.tail
        events = list(tail.new())
        yield from events
        storage = self.context.instance.event_log_storage
        for key in self.active.replay(events):
            if pool_of(self.active.get_step_by_key(key)) is not None:  # the worker may have died before it did this
                storage.free_concurrency_slot_for_step(self.context.run_id, key)
        if self.pods is not None:
            self.pods.adopt(events)
            for key, launch in self.pods.launches.items():
                if launch.memory_mib is not None:
                    self.demands.raise_memory(self.active.get_step_by_key(key), launch.memory_mib)
        yield DagsterEvent.engine_event(
            self.context,
            "A new worker carries the run on: steps that have ended stay as they are, steps in pods go on, and steps "
            "that were forked from the former worker are started again.",
            EngineEventData(),
        )

    def _stop_if_interrupted(self) -> Iterator[DagsterEvent]:
        if not self.active.check_for_interrupts():
            return
        self.stopping, leaving = True, self._will_resume()
        next_worker = ", which another worker will carry on: steps in pods go on" if leaving else ""
        yield DagsterEvent.engine_event(
            self.context,
            "Received a termination signal: forwarding it to the processes of the running steps" + next_worker,
            EngineEventData.interrupted([*self.forked.processes, *(self.pods.pods if self.pods is not None else [])]),
        )
        self.active.mark_interrupted()
        self.forked.stop(leaving=leaving)
        if self.pods is not None and not leaving:
            yield from self.pods.stop()

    def _will_resume(self) -> bool:
        """Whether the signal is for this worker alone, as when its node is drained, and not for the run."""
        instance, run_id = self.context.instance, self.context.run_id
        if not instance.run_will_resume(run_id):
            return False
        run = instance.get_run_by_id(run_id)
        return run is not None and run.status == DagsterRunStatus.STARTED

    def _start_steps(self) -> Iterator[DagsterEvent]:
        while step := (yield from self._next_step()):
            if self.pods is None or not self.demands.wants_pod(step):
                yield from self.forked.start(step)
                continue
            try:
                self.pods.start(step, memory_mib=self.demands.raised_memory(step))
            except PodRefusedError as error:  # no cluster to open: steps that need none go on
                yield self._fail_for_good(step, error)
        yield from self.active.concurrency_event_iterator(self.context)
        yield from self._tell_of_memory()

    def _next_step(self) -> Generator[DagsterEvent, None, Any]:
        """Return a step that may start, or None; fail those that never could."""
        while True:
            try:
                return self.active.next_step()
            except PoolTooSmallError as error:
                step = self.active.get_step_by_key(error.step_key)
                self.active.take(step.key)
                yield self._fail_for_good(step, error)

    def _fail_for_good(self, step: Any, error: MlAssetsError) -> DagsterEvent:
        """Fail a step that was handed out and cannot start, whatever its RetryPolicy says; return the event."""
        info = SerializableErrorInfo(message=str(error), stack=[], cls_name=type(error).__name__)
        data = StepFailureData(error=info, user_failure_data=None, error_source=ErrorSource.FRAMEWORK_ERROR)
        event = DagsterEvent.step_failure_event(self.context.for_step(step), data)
        self.active.handle_event(event)
        return event

    def _tell_of_memory(self) -> Iterator[DagsterEvent]:
        """Say once why steps wait though cores are idle."""
        waiting = None if self.told_of_memory else self.active.waits_for_memory()
        if waiting is None:
            return
        key, share, free = waiting
        self.told_of_memory = True
        yield DagsterEvent.engine_event(
            self.context,
            f"Step {key} waits for memory: it asks for {share.memory_mib} MiB, and running steps leave "
            f"{free.memory_mib} of the worker's {self.demands.total.memory_mib} MiB. Steps of other runs on this "
            "machine count, also those that wait for longer. It starts when there is enough, and those behind it after "
            "it. `memory_gib` of `compute` is what a step asks for; ML_ASSETS_MEMORY_MIB is what steps share.",
            EngineEventData(),
        )

    def _wait(self) -> None:
        if self.forked.processes:
            self.forked.wait(_TICK_SECONDS)
        elif not self.active.is_complete:  # a retry, a pool slot or memory is awaited
            time.sleep(_TICK_SECONDS)

    def _conclude(self) -> Iterator[DagsterEvent]:
        errors = self.forked.errors
        interrupts = {"DagsterExecutionInterruptedError", "KeyboardInterrupt"}
        if self.forked.leaving:
            raise DagsterExecutionInterruptedError
        if self.stopping and all(error.cls_name in interrupts for error in errors.values()):
            yield DagsterEvent.engine_event(
                self.context, "All processes and pods of running steps have ended", EngineEventData()
            )
            raise DagsterExecutionInterruptedError
        if errors:
            listing = "\n".join(f"In process {pid}: {e.to_string()}" for pid, e in errors.items())
            raise DagsterSubprocessError(
                f"Errors occurred in processes of steps:\n{listing}",
                subprocess_error_infos=list(errors.values()),
            )
