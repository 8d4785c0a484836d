"""A Dagster executor that gives every step its own process, forked from the run's loaded one.

The run process loads the code location once and builds the plan once; a step's process inherits both, so that
it neither imports nor loads anything again. For the rest it behaves as Dagster's multiprocess executor does.

What forking asks of the run process: it must not compute. A library that has started a thread pool in it
(libgomp after a first parallel loop) leaves its children a dead one; the executor warns when it sees threads
that a fork loses. Code at module level, and resources made while definitions load, belong to this rule.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from dagster import (
    Array,
    DagsterEvent,
    DagsterExecutionInterruptedError,
    Executor,
    Field,
    InitExecutorContext,
    Int,
    MetadataValue,
    Noneable,
    String,
    executor,
)
from dagster._core.definitions.executor_definition import ExecutorRequirement  # noqa: TID251 not exported
from dagster._core.errors import DagsterSubprocessError  # noqa: TID251 what multiprocess raises
from dagster._core.events import EngineEventData  # noqa: TID251 payload of engine events
from dagster._core.execution.context.system import (  # noqa: TID251 the executor interface's own type
    PlanOrchestrationContext,
)
from dagster._core.execution.plan.instance_concurrency_context import (  # noqa: TID251 claims of pool slots
    InstanceConcurrencyContext,
)
from dagster._core.execution.plan.plan import ExecutionPlan  # noqa: TID251 the executor interface's own type
from dagster._core.execution.retries import RetryMode, get_retries_config  # noqa: TID251 config of executors
from dagster._core.execution.tags import get_tag_concurrency_limits_config  # noqa: TID251 config of executors
from dagster._utils import get_run_crash_explanation
from dagster_shared.error import SerializableErrorInfo

from ml_assets.executors.core_budget import CoreBudget, cores_of
from ml_assets.executors.preload import WarmState, native_pool_threads, threads_lost_by_fork, warm_up
from ml_assets.executors.step_process import StepCommand, StepProcess

_TICK_SECONDS = 0.1
"""How long the run process sleeps at most before it looks for signals, retries and freed pool slots."""

_CONFIG = {
    "max_concurrent": Field(
        Noneable(Int),
        default_value=None,
        description="Cores that the steps of one run share, and so the most steps at once; by default the "
        "cores this process may run on.",
    ),
    "retries": get_retries_config(),
    "tag_concurrency_limits": get_tag_concurrency_limits_config(),
    "preload": Field(
        Array(String),
        default_value=[],
        description="Modules the run process imports once before the first step, such as those that most steps import.",
    ),
}


@executor(
    name="warm",
    config_schema=_CONFIG,
    requirements=[ExecutorRequirement.NON_EPHEMERAL_INSTANCE, ExecutorRequirement.PERSISTENT_OUTPUTS],
)
def warm_executor(init_context: InitExecutorContext) -> "WarmExecutor":
    """Run each step in a process forked from the run process, within a budget of cores.

    An op tag `ml_assets/cores` gives a step more than one core; its BLAS, OpenMP and Arrow threads follow.
    """
    config: Mapping[str, Any] = init_context.executor_config
    return WarmExecutor(
        max_cores=config["max_concurrent"] or _available_cores(),
        retries=RetryMode(next(iter(config["retries"]))),
        tag_concurrency_limits=config.get("tag_concurrency_limits") or [],
        preload=config["preload"],
    )


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class WarmExecutor(Executor):
    """Carries a run's plan out in forked processes.

    Args:
        max_cores: Cores the running steps share, at least 1.
        retries: Whether steps are retried.
        tag_concurrency_limits: Limits per step tag, in Dagster's form.
        preload: Modules imported before the first fork.
    """

    def __init__(
        self,
        *,
        max_cores: int,
        retries: RetryMode,
        tag_concurrency_limits: list[dict[str, Any]],
        preload: Sequence[str],
    ) -> None:
        self._max_cores = max_cores
        self._retries = retries
        self._tag_concurrency_limits = tag_concurrency_limits
        self._preload = tuple(preload)

    @property
    def retries(self) -> RetryMode:
        """Return whether steps are retried."""
        return self._retries

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Yield the events of the run, forking a process for each step that may start.

        Raises:
            MlAssetsError: If a preload module is missing or a cores tag is no number.
            DagsterSubprocessError: If a step's process crashed or failed outside its step.
            DagsterExecutionInterruptedError: If the run was cancelled.
        """
        started = time.perf_counter()
        for step in execution_plan.steps:
            cores_of(step.key, step.tags, self._max_cores)
        warm = warm_up(self._preload)
        yield DagsterEvent.engine_event(
            plan_context,
            f"Executing steps in processes forked from the run process (pid: {os.getpid()})",
            EngineEventData(
                metadata={
                    "pid": MetadataValue.text(str(os.getpid())),
                    "cores": MetadataValue.int(self._max_cores),
                    "preload_seconds": MetadataValue.float(round(warm.import_seconds, 3)),
                    "step_keys": MetadataValue.text(str(execution_plan.step_keys_to_execute)),
                }
            ),
        )
        processes: dict[str, StepProcess] = {}
        with (
            warm.thread_pools.limit(limits=1),  # inherited, so that a step of one core need not set anything
            InstanceConcurrencyContext(plan_context.instance, plan_context.dagster_run) as claims,
            CoreBudget(
                execution_plan,
                max_cores=self._max_cores,
                busy=lambda: {key: process.cores for key, process in processes.items()},
                retry_mode=self._retries,
                tag_concurrency_limits=self._tag_concurrency_limits,
                instance_concurrency_context=claims,
            ) as active,
        ):
            yield from _Orchestration(
                executor=self,
                context=plan_context,
                plan=execution_plan,
                active=active,
                warm=warm,
                max_cores=self._max_cores,
                processes=processes,
            ).events()
        yield DagsterEvent.engine_event(
            plan_context,
            f"All steps ended after {time.perf_counter() - started:.2f} s (pid: {os.getpid()})",
            EngineEventData.multiprocess(os.getpid()),
        )


@dataclass(kw_only=True)
class _Orchestration:
    """One run on its way: the state machine, the processes alive, and the errors met."""

    executor: WarmExecutor
    context: PlanOrchestrationContext
    plan: ExecutionPlan
    active: CoreBudget
    warm: WarmState
    max_cores: int
    processes: dict[str, StepProcess]
    errors: dict[int, SerializableErrorInfo] = field(default_factory=dict)
    stopping: bool = False
    forked: bool = False

    def events(self) -> Iterator[DagsterEvent]:
        try:
            while (not self.stopping and not self.active.is_complete) or self.processes:
                yield from self._stop_if_interrupted()
                if not self.stopping:
                    yield from self._start_steps()
                self._wait()
                for process in list(self.processes.values()):
                    yield from self._advance(process)
                yield from self.active.plan_events_iterator(self.context)
        finally:  # empty unless an error or a closed generator ends the run early
            for process in self.processes.values():
                process.interrupt()
        yield from self._conclude()

    def _stop_if_interrupted(self) -> Iterator[DagsterEvent]:
        if not self.active.check_for_interrupts():
            return
        yield DagsterEvent.engine_event(
            self.context,
            "Received a termination signal: forwarding it to the processes of the running steps",
            EngineEventData.interrupted(list(self.processes)),
        )
        self.stopping = True
        self.active.mark_interrupted()
        for process in self.processes.values():
            process.interrupt()

    def _start_steps(self) -> Iterator[DagsterEvent]:
        while step := self.active.next_step():
            cores = cores_of(step.key, step.tags, self.max_cores)
            # the definition is cached on the job; asking for it here keeps it the newest entry for the child
            self.context.job.get_definition()
            yield DagsterEvent.step_worker_starting(
                self.context.for_step(step), f'Forking a process for "{step.key}".', metadata={}
            )
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
                    cores=cores,
                    thread_pools=self.warm.thread_pools,
                )
            )
            if not self.forked:
                self.forked = True
                yield from self._warn_of_threads()
        yield from self.active.concurrency_event_iterator(self.context)

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
        if not process.finished:
            yield from self._report_crash(process, exit_code)
        elif not self.stopping and self.active.is_running(process.step_key) and process.pid in self.errors:
            # the step never began, as when a resource did not start; like a crash, that may be retried
            yield from self._fail_or_retry(process, self.errors.pop(process.pid))
        self.active.verify_complete(self.context, process.step_key)

    def _report_crash(self, process: StepProcess, exit_code: int) -> Iterator[DagsterEvent]:
        explanation = get_run_crash_explanation(f"The process of step {process.step_key}", exit_code)
        error = SerializableErrorInfo(message=explanation, stack=[], cls_name="StepProcessCrash")
        step = self.active.get_step_by_key(process.step_key)
        yield DagsterEvent.engine_event(self.context.for_step(step), explanation, EngineEventData.engine_error(error))
        if self.active.is_running(process.step_key):
            yield from self._fail_or_retry(process, error)
        else:  # it died after its last step event
            self.errors[process.pid] = error

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
        if self.stopping and all(error.cls_name in interrupts for error in self.errors.values()):
            yield DagsterEvent.engine_event(
                self.context, "All processes of running steps have ended", EngineEventData()
            )
            raise DagsterExecutionInterruptedError
        if self.errors:
            listing = "\n".join(f"In process {pid}: {e.to_string()}" for pid, e in self.errors.items())
            raise DagsterSubprocessError(
                f"Errors occurred in processes of steps:\n{listing}",
                subprocess_error_infos=list(self.errors.values()),
            )
