"""A Dagster executor that gives every step its own process, forked from the run's loaded one, or its own pod.

The run process loads the code location once and builds the plan once; a step's process inherits both, so that
it neither imports nor loads anything again. For the rest it behaves as Dagster's multiprocess executor does.

A step that asks for a GPU, or for more than the run's worker has, becomes a pod where there is a cluster; without
one, as on a laptop, all steps are forked. One graph and one state machine serve both.

What forking asks of the run process: it must not compute. A library that has started a thread pool in it
(libgomp after a first parallel loop) leaves its children a dead one; the executor warns when it sees threads
that a fork loses. Code at module level, and resources made while definitions load, belong to this rule.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster import (
    DagsterEvent,
    DagsterInstance,
    Executor,
    ExecutorDefinition,
    InitExecutorContext,
    MetadataValue,
    executor,
)
from dagster._core.definitions.executor_definition import ExecutorRequirement  # noqa: TID251 not exported
from dagster._core.events import EngineEventData  # noqa: TID251 payload of engine events
from dagster._core.execution.context.system import (  # noqa: TID251 the executor interface's own type
    PlanOrchestrationContext,
)
from dagster._core.execution.plan.plan import ExecutionPlan  # noqa: TID251 the executor interface's own type
from dagster._core.execution.retries import RetryMode  # noqa: TID251 the executor interface's own type

from ml_assets.executors.demands import Demands, Share
from ml_assets.executors.event_tail import EventTail
from ml_assets.executors.executor_config import EXECUTOR_CONFIG
from ml_assets.executors.forked_steps import ForkedSteps
from ml_assets.executors.gpus import MachineGpus, require_gpu_pool, require_gpus
from ml_assets.executors.machine_memory import MachineMemory
from ml_assets.executors.orchestration import Orchestration
from ml_assets.executors.pod_lint import require_sound_pod
from ml_assets.executors.pod_steps import PodSteps
from ml_assets.executors.pods import PodRules, PodRunnerFactory, WorkerSize
from ml_assets.executors.preload import WarmState, warm_up
from ml_assets.executors.step_process import StepProcess
from ml_assets.executors.weighted_pools import WeightedPools
from ml_assets.executors.worker_budget import WorkerBudget, pool_of
from ml_assets.executors.worker_size import available_cores, available_memory_mib

RequireCluster = Callable[[DagsterInstance], None]


class WarmExecutor(Executor):
    """Carries a run's plan out in forked processes, and in pods.

    Args:
        max_cores: Cores the running steps share, at least 1.
        retries: Whether steps are retried.
        tag_concurrency_limits: Limits per step tag, in Dagster's form.
        preload: Modules imported before the first fork.
        memory_mib: Memory in MiB that the running steps share, at least 1; None for no bound.
        gpus: GPUs of this machine as CUDA names them; None when nobody looked for any, which counts as none.
        open_cluster: Opens the cluster for pods; None: all steps are forked.
        require_cluster: Refuses a run with steps in pods when it is known that the cluster cannot be opened.
        rules: Times and limits of pods; None for the defaults.
    """

    def __init__(
        self,
        *,
        max_cores: int,
        retries: RetryMode,
        tag_concurrency_limits: list[dict[str, Any]],
        preload: Sequence[str],
        memory_mib: int | None = None,
        gpus: Sequence[str] | None = None,
        open_cluster: PodRunnerFactory | None = None,
        require_cluster: RequireCluster | None = None,
        rules: PodRules | None = None,
    ) -> None:
        self._retries = retries
        self._tag_concurrency_limits = tag_concurrency_limits
        self._preload = tuple(preload)
        self._worker = WorkerSize(cores=max_cores, memory_mib=memory_mib)
        self._gpus = gpus
        self._open_cluster = open_cluster
        self._require_cluster = require_cluster
        self._rules = rules or PodRules()

    @property
    def retries(self) -> RetryMode:
        """Return whether steps are retried."""
        return self._retries

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Yield the events of the run, forking a process for each step that may start or starting a pod for it.

        Raises:
            MlAssetsError: If a preload module is missing, a tag of a step is no number, a step cannot run without GPUs
                that this machine does not have, its pod would never start, or it needs one and no cluster is set up.
            DagsterSubprocessError: If a step's process crashed or failed outside its step.
            DagsterExecutionInterruptedError: If the run was cancelled.
        """
        started = time.perf_counter()
        demands = Demands(self._worker, has_cluster=self._open_cluster is not None)
        self._require_runnable(plan_context.instance, execution_plan, demands)
        warm = warm_up(self._preload)
        yield self._started_event(plan_context, execution_plan, warm)
        yield from self._run(plan_context, execution_plan, demands, warm)
        yield DagsterEvent.engine_event(
            plan_context,
            f"All steps ended after {time.perf_counter() - started:.2f} s (pid: {os.getpid()})",
            EngineEventData.multiprocess(os.getpid()),
        )

    @property
    def _gpus_here(self) -> int | None:
        """Return how many GPUs steps share on this machine; None where GPUs are in pods."""
        return None if self._open_cluster is not None else len(self._gpus or ())

    def _require_runnable(self, instance: DagsterInstance, execution_plan: ExecutionPlan, demands: Demands) -> None:
        """Refuse a run with a step that could not run, before any of its steps starts."""
        chosen = set(execution_plan.step_keys_to_execute)  # a run executed again from a failure has done the others
        steps = [step for step in execution_plan.steps if step.key in chosen]
        pods = [step for step in steps if demands.wants_pod(step)]
        for step in pods:
            require_sound_pod(step.key, step.tags)
        if pods and self._require_cluster is not None:
            self._require_cluster(instance)
        if self._gpus_here is not None:
            require_gpus(((step.key, step.tags) for step in steps), self._gpus_here)
            require_gpu_pool(((step.key, step.tags, pool_of(step)) for step in steps), self._gpus_here)

    def _started_event(
        self, context: PlanOrchestrationContext, execution_plan: ExecutionPlan, warm: WarmState
    ) -> DagsterEvent:
        worker = self._worker
        memory = {} if worker.memory_mib is None else {"memory_mib": MetadataValue.int(worker.memory_mib)}
        return DagsterEvent.engine_event(
            context,
            f"Executing steps in processes forked from the run process (pid: {os.getpid()})",
            EngineEventData(
                metadata={
                    "pid": MetadataValue.text(str(os.getpid())),
                    "cores": MetadataValue.int(worker.cores),
                    **memory,
                    "preload_seconds": MetadataValue.float(round(warm.import_seconds, 3)),
                    "step_keys": MetadataValue.text(str(execution_plan.step_keys_to_execute)),
                }
            ),
        )

    def _run(
        self, context: PlanOrchestrationContext, execution_plan: ExecutionPlan, demands: Demands, warm: WarmState
    ) -> Iterator[DagsterEvent]:
        """Yield the events of the steps, while the run's claims of pools and its numeric threads are in place."""
        processes: dict[str, StepProcess] = {}
        in_pods: dict[str, Any] = {}
        here, memory = self._gpus_here, self._shared_memory(context.instance)
        with (
            warm.thread_pools.limit(limits=1),  # inherited, so that a step of one core need not set anything
            WeightedPools(
                context.instance,
                context.dagster_run,
                tags_of=lambda key: execution_plan.get_step_by_key(key).tags,
                gpus=here,
            ) as claims,
            WorkerBudget(
                execution_plan,
                demands=demands,
                busy=lambda: {key: p.share for key, p in processes.items()} | dict.fromkeys(in_pods, Share()),
                memory=memory,
                retry_mode=self._retries,
                tag_concurrency_limits=self._tag_concurrency_limits,
                instance_concurrency_context=claims,
            ) as active,
        ):
            forked = ForkedSteps(
                executor=self,
                context=context,
                plan=execution_plan,
                active=active,
                warm=warm,
                demands=demands,
                processes=processes,
                gpus=None if here is None else MachineGpus(ids=self._gpus, held=claims.devices),
                memory=memory,
            )
            pods = self._pods(context, active, in_pods)
            yield from Orchestration(context=context, active=active, demands=demands, forked=forked, pods=pods).events()

    def _shared_memory(self, instance: DagsterInstance) -> MachineMemory | None:
        """Return the memory that this run shares with the others of its instance on this machine.

        None where each run's worker has a pod, and so memory of its own, where none is counted, or where nobody may
        write down who holds how much.
        """
        if self._open_cluster is not None or self._worker.memory_mib is None:
            return None
        try:
            return MachineMemory(
                Path(instance.root_directory, "memory_claims", socket.gethostname()), self._worker.memory_mib
            )
        except OSError:  # a home that is for reading only, as in some containers
            return None

    def _pods(
        self, context: PlanOrchestrationContext, active: WorkerBudget, in_pods: dict[str, Any]
    ) -> PodSteps | None:
        open_cluster = self._open_cluster
        if open_cluster is None:
            return None
        return PodSteps(
            executor=self,
            context=context,
            active=active,
            worker=self._worker,
            open_cluster=lambda: open_cluster(context.instance, context.dagster_run),
            rules=self._rules,
            tail=EventTail(context.instance, context.run_id),
            pods=in_pods,
        )


def build_executor(
    open_cluster: PodRunnerFactory | None = None, require_cluster: RequireCluster | None = None
) -> ExecutorDefinition:
    """Return the executor that forks steps from the run process, and gives those pods that do not fit there.

    Op tags say what a step asks for (`ml_assets/cores`, `ml_assets/memory_mib`, `ml_assets/gpus`, …); the BLAS, OpenMP
    and Arrow threads of a step follow its cores.

    Args:
        open_cluster: Opens the cluster for pods; None: all steps are forked.
        require_cluster: Refuses, with an MlAssetsError, a run with steps in pods when it is known beforehand that the
            cluster cannot be opened; None: that is told by the step that needs it first.
    """

    @executor(
        name="warm",
        config_schema=EXECUTOR_CONFIG,
        requirements=[ExecutorRequirement.NON_EPHEMERAL_INSTANCE, ExecutorRequirement.PERSISTENT_OUTPUTS],
    )
    def warm(init_context: InitExecutorContext) -> WarmExecutor:
        config: Mapping[str, Any] = init_context.executor_config
        return WarmExecutor(
            max_cores=config["max_concurrent"] or available_cores(),
            retries=RetryMode(next(iter(config["retries"]))),
            tag_concurrency_limits=config.get("tag_concurrency_limits") or [],
            preload=config["preload"],
            memory_mib=config["memory_mib"] or available_memory_mib(),
            gpus=config["gpus"],
            open_cluster=open_cluster,
            require_cluster=require_cluster,
            rules=PodRules(**config["pods"]),
        )

    return warm


warm_executor = build_executor()
"""The executor of one machine: every step is forked."""
