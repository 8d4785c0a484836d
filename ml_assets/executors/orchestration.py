"""One run on its way: starts the steps that may start, listens to their processes and pods, and concludes."""

import signal
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from dagster import DagsterEvent, DagsterExecutionInterruptedError, DagsterRunStatus, Executor, MetadataValue
from dagster._core.errors import DagsterSubprocessError  # noqa: TID251 what multiprocess raises
from dagster._core.events import EngineEventData  # noqa: TID251 payload of engine events
from dagster._core.execution.context.system import (  # noqa: TID251 the executor interface's own type
    PlanOrchestrationContext,
)
from dagster._core.execution.plan.objects import (  # noqa: TID251 payload of failures, and whose fault one is
    ErrorSource,
    StepFailureData,
)
from dagster._core.execution.plan.plan import ExecutionPlan  # noqa: TID251 the executor interface's own type
from dagster._utils import get_run_crash_explanation
from dagster_shared.error import SerializableErrorInfo

from ml_assets.executors.demands import Demands
from ml_assets.executors.event_tail import EventTail
from ml_assets.executors.gpus import MachineGpus
from ml_assets.executors.memory_kills import MemoryKills, killed, started_again
from ml_assets.executors.pod_steps import PodSteps
from ml_assets.executors.preload import WarmState, native_pool_threads, threads_lost_by_fork
from ml_assets.executors.step_process import StepCommand, StepProcess
from ml_assets.executors.weighted_pools import PoolTooSmallError
from ml_assets.executors.worker_budget import WorkerBudget, pool_of

_TICK_SECONDS = 0.1
"""How long the run process sleeps at most before it looks for signals, retries and freed pool slots."""


@dataclass(kw_only=True)
class Orchestration:
    """The state machine of a run, the processes and pods of its steps, and the errors met.

    Attributes:
        executor: Decides on retries.
        context: The run.
        plan: Its execution plan.
        active: Its state machine.
        warm: What forked steps inherit.
        demands: What its steps ask for, and which of them get pods.
        processes: Forked steps that are alive, by step key.
        pods: Steps in pods; None when there is no cluster.
        gpus: The machine's GPUs; None where GPUs are in pods.
        memory_kills: Tells which processes the kernel ended for lack of memory.
        errors: Errors of processes, by pid.
        stopping: Whether the run was told to stop.
        leaving: Whether another worker will carry the run on.
        forked: Whether there was a fork.
        told_of_memory: Whether the run's log says that steps wait for memory.
    """

    executor: Executor
    context: PlanOrchestrationContext
    plan: ExecutionPlan
    active: WorkerBudget
    warm: WarmState
    demands: Demands
    processes: dict[str, StepProcess]
    pods: PodSteps | None
    gpus: MachineGpus | None = None
    memory_kills: MemoryKills = field(default_factory=MemoryKills)
    errors: dict[int, SerializableErrorInfo] = field(default_factory=dict)
    stopping: bool = False
    leaving: bool = False
    forked: bool = False
    told_of_memory: bool = False

    def events(self) -> Iterator[DagsterEvent]:
        """Yield the events of the run until all its steps have ended.

        Raises:
            DagsterSubprocessError: If a step's process crashed or failed outside its step.
            DagsterExecutionInterruptedError: If the run was told to stop.
        """
        try:
            if self.context.resume_from_failure:
                yield from self._resume()
            while (not self.stopping and not self.active.is_complete) or self.processes:
                yield from self._stop_if_interrupted()
                if not self.stopping:
                    yield from self._start_steps()
                self._wait()
                for process in list(self.processes.values()):
                    yield from self._advance(process)
                if self.pods is not None and not self.stopping:
                    yield from self.pods.advance()
                yield from self.active.plan_events_iterator(self.context)
        finally:  # without processes unless an error or a closed generator ends the run early
            for process in self.processes.values():
                process.interrupt()
            if self.pods is not None and not self.leaving:
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
        self.stopping = True
        self.leaving = self._will_resume()
        next_worker = ", which another worker will carry on: steps in pods go on" if self.leaving else ""
        yield DagsterEvent.engine_event(
            self.context,
            "Received a termination signal: forwarding it to the processes of the running steps" + next_worker,
            EngineEventData.interrupted([*self.processes, *(self.pods.pods if self.pods is not None else [])]),
        )
        self.active.mark_interrupted()
        for process in self.processes.values():
            if self.leaving:
                process.kill()  # it must not report an end: it is started again
            else:
                process.interrupt()
        if self.pods is not None and not self.leaving:
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
            if self.pods is not None and self.demands.wants_pod(step):
                self.pods.start(step, memory_mib=self.demands.raised_memory(step))
                continue
            # the definition is cached on the job; asking for it here keeps it the newest entry for the child
            self.context.job.get_definition()
            yield DagsterEvent.step_worker_starting(
                self.context.for_step(step), f'Forking a process for "{step.key}".', metadata={}
            )
            if self.gpus is not None and (warning := self.gpus.warning(step.key, step.tags)):
                self.context.log.warning(warning)
            self.processes[step.key] = StepProcess(
                StepCommand(
                    instance_ref=self.context.instance.get_ref(),
                    dagster_run=self.context.dagster_run,
                    job=self.context.job,
                    plan=self.plan,
                    step_key=step.key,
                    known_state=self.active.get_known_state(),
                    run_config=self.context.run_config,
                    retry_mode=self.executor.retries,
                    share=self.demands.share(step),
                    gpus=None if self.gpus is None else self.gpus.visible(step.key, step.tags),
                    thread_pools=self.warm.thread_pools,
                )
            )
            if not self.forked:
                self.forked = True
                yield from self._warn_of_threads()
        yield from self.active.concurrency_event_iterator(self.context)
        yield from self._tell_of_memory()

    def _next_step(self) -> Generator[DagsterEvent, None, Any]:
        """Return a step that may start, or None; fail those that never could."""
        while True:
            try:
                return self.active.next_step()
            except PoolTooSmallError as error:
                step = self.active.get_step_by_key(error.step_key)
                info = SerializableErrorInfo(message=str(error), stack=[], cls_name="PoolTooSmallError")
                data = StepFailureData(error=info, user_failure_data=None, error_source=ErrorSource.FRAMEWORK_ERROR)
                event = DagsterEvent.step_failure_event(self.context.for_step(step), data)
                self.active.take(step.key)
                self.active.handle_event(event)
                yield event

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
            f"{free.memory_mib} of the worker's {self.demands.total.memory_mib} MiB. It starts when there is enough, "
            "and those behind it after it. `memory_gib` of `compute` is what a step asks for; ML_ASSETS_MEMORY_MIB "
            "is what the steps of one run share.",
            EngineEventData(),
        )

    def _warn_of_threads(self) -> Iterator[DagsterEvent]:
        lost, native = threads_lost_by_fork(), native_pool_threads()
        if not lost and not native:
            return
        yield DagsterEvent.engine_event(
            self.context,
            f"The run process has threads that its steps do not inherit: {len(lost)} of Python "
            f"({', '.join(lost[:5]) or 'none'}) and {native or 0} of native libraries; expected none. A step "
            "may hang in a library whose threads these were. Start threads and compute inside assets and "
            "resources, not while modules are imported.",
            EngineEventData(metadata={"threads": MetadataValue.text(", ".join(lost))}),
        )

    def _wait(self) -> None:
        self.memory_kills.forget()
        if self.processes:
            wait([item for process in self.processes.values() for item in process.waitables], _TICK_SECONDS)
        elif not self.active.is_complete:  # a retry or a pool slot is awaited
            time.sleep(_TICK_SECONDS)

    def _advance(self, process: StepProcess) -> Iterator[DagsterEvent]:
        """Pass on what the process sent, and account for it when it has ended."""
        exit_code = process.exit_code  # before reading: nothing is sent after the end
        for message in process.messages():
            if isinstance(message, SerializableErrorInfo):
                self.errors[process.pid] = message
                continue
            yield message
            self.active.handle_event(message)
        if exit_code is None:
            return
        del self.processes[process.step_key]
        if self.leaving:
            return
        if not process.finished:
            yield from self._report_crash(process, exit_code)
        elif not self.stopping and self.active.is_running(process.step_key) and process.pid in self.errors:
            # the step never began, as when a resource did not start; like a crash, that may be retried
            yield from self._fail_or_retry(process, self.errors.pop(process.pid))
        self.active.verify_complete(self.context, process.step_key)

    def _report_crash(self, process: StepProcess, exit_code: int) -> Iterator[DagsterEvent]:
        step = self.active.get_step_by_key(process.step_key)
        explanation = get_run_crash_explanation(f"The process of step {step.key}", exit_code)
        if exit_code == -signal.SIGKILL:
            for_memory = self.memory_kills.claim()
            memory = self.demands.more_memory(step) if for_memory and not self.stopping else None
            if memory is not None and self.active.is_running(step.key):
                yield from self._start_over(step, memory)
                return
            explanation = killed(step.key, self.demands.of(step), self.demands.worker, for_memory=for_memory)
        error = SerializableErrorInfo(message=explanation, stack=[], cls_name="StepProcessCrash")
        yield DagsterEvent.engine_event(self.context.for_step(step), explanation, EngineEventData.engine_error(error))
        if self.active.is_running(process.step_key):
            yield from self._fail_or_retry(process, error)
        else:  # it died after its last step event
            self.errors[process.pid] = error

    def _start_over(self, step: Any, memory_mib: int) -> Iterator[DagsterEvent]:
        """Have a step start again with more memory, when that is free or in a pod."""
        before = self.demands.of(step)
        self.demands.raise_memory(step, memory_mib)
        share = None if self.demands.wants_pod(step) else self.demands.share(step).memory_mib
        message = started_again(step.key, before, memory_mib, share)
        yield DagsterEvent.engine_event(self.context.for_step(step), message, EngineEventData())
        self.active.start_over(step.key)

    def _fail_or_retry(self, process: StepProcess, error: SerializableErrorInfo) -> Iterator[DagsterEvent]:
        step = self.active.get_step_by_key(process.step_key)
        event = self.executor.log_failure_or_retry_event_after_error(
            self.context.for_step(step), error, self.active.get_known_state()
        )
        self.active.handle_event(event)
        if event.is_step_failure:
            self.errors[process.pid] = error
        yield event

    def _conclude(self) -> Iterator[DagsterEvent]:
        interrupts = {"DagsterExecutionInterruptedError", "KeyboardInterrupt"}
        if self.leaving:
            raise DagsterExecutionInterruptedError
        if self.stopping and all(error.cls_name in interrupts for error in self.errors.values()):
            yield DagsterEvent.engine_event(
                self.context, "All processes and pods of running steps have ended", EngineEventData()
            )
            raise DagsterExecutionInterruptedError
        if self.errors:
            listing = "\n".join(f"In process {pid}: {e.to_string()}" for pid, e in self.errors.items())
            raise DagsterSubprocessError(
                f"Errors occurred in processes of steps:\n{listing}",
                subprocess_error_infos=list(self.errors.values()),
            )
