"""The steps of one run in processes forked from its own: starts them, listens, and says what became of them."""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from dagster import DagsterEvent, Executor, MetadataValue
from dagster._core.events import EngineEventData  # noqa: TID251 payload of engine events
from dagster._core.execution.context.system import (  # noqa: TID251 the executor interface's own type
    PlanOrchestrationContext,
)
from dagster._core.execution.plan.plan import ExecutionPlan  # noqa: TID251 the executor interface's own type
from dagster._utils import get_run_crash_explanation
from dagster_shared.error import SerializableErrorInfo

from ml_assets.executors.demands import Demands
from ml_assets.executors.gpus import MachineGpus
from ml_assets.executors.machine_memory import MachineMemory
from ml_assets.executors.memory_kills import MemoryKills, killed, started_again
from ml_assets.executors.pod_words import over_time, span
from ml_assets.executors.preload import WarmState, native_pool_threads, threads_lost_by_fork
from ml_assets.executors.step_process import StepCommand, StepProcess
from ml_assets.executors.worker_budget import WorkerBudget

_LINGER_SECONDS = 60.0
"""How long a process may go on after its step has ended, as to join threads that the step has left behind."""


@dataclass(kw_only=True)
class ForkedSteps:
    """The processes of one run's steps, and the errors met.

    Attributes:
        executor: Decides on retries.
        context: The run.
        plan: Its execution plan.
        active: Its state machine.
        warm: What the steps inherit.
        demands: What the steps ask for.
        processes: Those that are alive, by step key.
        gpus: The machine's GPUs; None where GPUs are in pods.
        memory: What the runs of this machine share; None where this one has what it has to itself.
        memory_kills: Tells which processes the kernel ended for lack of memory.
        errors: Errors of processes, by pid.
        stopping: Whether the run was told to stop.
        leaving: Whether another worker will carry the run on.
        forked: Whether there was a fork.
    """

    executor: Executor
    context: PlanOrchestrationContext
    plan: ExecutionPlan
    active: WorkerBudget
    warm: WarmState
    demands: Demands
    processes: dict[str, StepProcess]
    gpus: MachineGpus | None = None
    memory: MachineMemory | None = None
    memory_kills: MemoryKills = field(default_factory=MemoryKills)
    errors: dict[int, SerializableErrorInfo] = field(default_factory=dict)
    stopping: bool = False
    leaving: bool = False
    forked: bool = False

    def start(self, step: Any) -> Iterator[DagsterEvent]:
        """Fork a process for a step (an ExecutionStep); it waits on when another run was faster to take the memory."""
        share, hold = self.demands.share(step), None
        if self.memory is not None and share.memory_mib:
            hold = self.memory.take(share.memory_mib)
            if hold is None:
                self.active.start_over(step.key)
                return
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
                share=share,
                gpus=None if self.gpus is None else self.gpus.visible(step.key, step.tags),
                memory_hold=hold,
                thread_pools=self.warm.thread_pools,
            )
        )
        if not self.forked:
            self.forked = True
            yield from self._warn_of_threads()

    def wait(self, seconds: float) -> None:
        """Wait until a process says something or ends, or so long at most."""
        self.memory_kills.forget()
        wait([item for process in self.processes.values() for item in process.waitables], seconds)

    def advance(self) -> Iterator[DagsterEvent]:
        """Pass on what the processes sent, and account for those that have ended."""
        for process in list(self.processes.values()):
            yield from self._advance(process)

    def stop(self, *, leaving: bool) -> None:
        """End the processes of a run that was told to stop.

        Args:
            leaving: Whether another worker will carry the run on: then a step must not report an end, as it is started
                again.
        """
        self.stopping, self.leaving = True, leaving
        for process in self.processes.values():
            if leaving:
                process.kill()
            else:
                process.interrupt()

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

    def _advance(self, process: StepProcess) -> Iterator[DagsterEvent]:
        exit_code = process.exit_code  # before reading: nothing is sent after the end
        for message in process.messages():
            if isinstance(message, SerializableErrorInfo):
                self.errors[process.pid] = message
                continue
            yield message
            self.active.handle_event(message)
        if exit_code is None:
            yield from self._hold_to_time(process)
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

    def _hold_to_time(self, process: StepProcess) -> Iterator[DagsterEvent]:
        """End a process whose step takes longer than it may, or that goes on though its step has ended."""
        now, step = time.monotonic(), self.active.get_step_by_key(process.step_key)
        limit = self.demands.of(step).time_limit_seconds
        if process.killed:
            return
        if process.finished_at is not None and now - process.finished_at > _LINGER_SECONDS:
            yield DagsterEvent.engine_event(
                self.context.for_step(step),
                f"The process of step {step.key} goes on {span(_LINGER_SECONDS)} after its step has ended and is "
                "ended now; what the step told holds. Expected no thread or process that the step starts and leaves "
                "behind: end those in the asset, or make its threads daemons.",
                EngineEventData(),
            )
            process.kill()
        elif limit is not None and now - process.started_at > limit and self.active.is_running(step.key):
            # Without a word to it: a step that is told to stop reports a failure, which no retry policy repeats.
            process.kill()

    def _report_crash(self, process: StepProcess, exit_code: int) -> Iterator[DagsterEvent]:
        step = self.active.get_step_by_key(process.step_key)
        if process.killed and not self.active.is_running(step.key):  # it ended in this moment, within its time
            return
        demand = self.demands.of(step)
        explanation = get_run_crash_explanation(f"The process of step {step.key}", exit_code)
        if process.killed:
            explanation = over_time(step.key, f"its process (pid {process.pid})", demand)
        elif exit_code == -signal.SIGKILL:
            for_memory = self.memory_kills.claim()
            memory = self.demands.more_memory(step) if for_memory and not self.stopping else None
            if memory is not None and self.active.is_running(step.key):
                yield from self._start_over(step, memory)
                return
            explanation = killed(step.key, demand, self.demands.worker, for_memory=for_memory)
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
