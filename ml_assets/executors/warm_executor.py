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
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dagster import (
    Array,
    DagsterEvent,
    Executor,
    ExecutorDefinition,
    Field,
    Float,
    InitExecutorContext,
    Int,
    MetadataValue,
    Noneable,
    Shape,
    String,
    executor,
)
from dagster._core.definitions.executor_definition import ExecutorRequirement  # noqa: TID251 not exported
from dagster._core.events import EngineEventData  # noqa: TID251 payload of engine events
from dagster._core.execution.context.system import (  # noqa: TID251 the executor interface's own type
    PlanOrchestrationContext,
)
from dagster._core.execution.plan.plan import ExecutionPlan  # noqa: TID251 the executor interface's own type
from dagster._core.execution.retries import RetryMode, get_retries_config  # noqa: TID251 config of executors
from dagster._core.execution.tags import get_tag_concurrency_limits_config  # noqa: TID251 config of executors

from ml_assets.executors.demands import Demands, Share
from ml_assets.executors.event_tail import EventTail
from ml_assets.executors.gpus import MachineGpus, require_gpus
from ml_assets.executors.orchestration import Orchestration
from ml_assets.executors.pod_lint import require_sound_pod
from ml_assets.executors.pod_steps import PodSteps
from ml_assets.executors.pods import PodRules, PodRunnerFactory, WorkerSize
from ml_assets.executors.preload import WarmState, warm_up
from ml_assets.executors.step_process import StepProcess
from ml_assets.executors.weighted_pools import WeightedPools
from ml_assets.executors.worker_budget import WorkerBudget
from ml_assets.executors.worker_size import available_cores, available_memory_mib

_RULES = PodRules()

_PODS = {
    "pending_seconds": (Float, _RULES.pending_seconds, "Longest that a pod may wait for its start."),
    "queue_seconds": (Float, _RULES.queue_seconds, "The same where it only waits for a free GPU or quota."),
    "notice_seconds": (Float, _RULES.notice_seconds, "Time of waiting after which the run's log tells why."),
    "look_seconds": (Float, _RULES.look_seconds, "Time between two looks at the cluster."),
    "event_seconds": (Float, _RULES.event_seconds, "Time between two looks at the run's log."),
    "lost_seconds": (Float, _RULES.lost_seconds, "Time after its grace period at which a leaving pod is lost."),
    "away_seconds": (Float, _RULES.away_seconds, "Longest that the cluster's API may be away."),
    "free_starts": (Int, _RULES.free_starts, "Starts after evictions and the like that use up no retry."),
}

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
    "memory_mib": Field(
        Noneable(Int),
        default_value=None,
        description="Memory in MiB that the forked steps of one run share; a step that asks for more gets a pod where "
        "there is a cluster, and else all of it. By default the limit of this process's container, or the machine's "
        "memory.",
    ),
    "gpus": Field(
        Noneable(Array(String)),
        default_value=None,
        description="GPUs of this machine as CUDA names them, in order, such as ['0', '1']. Steps that ask for GPUs "
        "share them where there is no cluster; with too few, a step runs on the CPU or its run is refused.",
    ),
    "pods": Field(
        Shape(
            {name: Field(kind, default_value=value, description=text) for name, (kind, value, text) in _PODS.items()}
        ),
        description="Times in seconds, and counts, for steps in pods.",
    ),
}


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
        rules: Times and limits of pods.
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
        rules: PodRules = _RULES,
    ) -> None:
        self._retries = retries
        self._tag_concurrency_limits = tag_concurrency_limits
        self._preload = tuple(preload)
        self._worker = WorkerSize(cores=max_cores, memory_mib=memory_mib)
        self._gpus = gpus
        self._open_cluster = open_cluster
        self._rules = rules

    @property
    def retries(self) -> RetryMode:
        """Return whether steps are retried."""
        return self._retries

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Yield the events of the run, forking a process for each step that may start or starting a pod for it.

        Raises:
            MlAssetsError: If a preload module is missing, a tag of a step is no number, a step cannot run without GPUs
                that this machine does not have, or its pod would never start.
            DagsterSubprocessError: If a step's process crashed or failed outside its step.
            DagsterExecutionInterruptedError: If the run was cancelled.
        """
        started = time.perf_counter()
        demands = Demands(self._worker, has_cluster=self._open_cluster is not None)
        self._require_runnable(execution_plan, demands)
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

    def _require_runnable(self, execution_plan: ExecutionPlan, demands: Demands) -> None:
        """Refuse a run with a step that could not run, before any of its steps starts."""
        for step in execution_plan.steps:
            demands.of(step)
            if demands.wants_pod(step):
                require_sound_pod(step.key, step.tags)
        if self._gpus_here is not None:
            require_gpus(((step.key, step.tags) for step in execution_plan.steps), self._gpus_here)

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
        here = self._gpus_here
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
                retry_mode=self._retries,
                tag_concurrency_limits=self._tag_concurrency_limits,
                instance_concurrency_context=claims,
            ) as active,
        ):
            yield from Orchestration(
                executor=self,
                context=context,
                plan=execution_plan,
                active=active,
                warm=warm,
                demands=demands,
                processes=processes,
                pods=self._pods(context, active, in_pods),
                gpus=None if here is None else MachineGpus(ids=self._gpus, held=claims.devices),
            ).events()

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


def build_executor(open_cluster: PodRunnerFactory | None = None) -> ExecutorDefinition:
    """Return the executor that forks steps from the run process, and gives those pods that do not fit there.

    Op tags say what a step asks for (`ml_assets/cores`, `ml_assets/memory_mib`, `ml_assets/gpus`, …); the BLAS, OpenMP
    and Arrow threads of a step follow its cores.

    Args:
        open_cluster: Opens the cluster for pods; None: all steps are forked.
    """

    @executor(
        name="warm",
        config_schema=_CONFIG,
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
            rules=PodRules(**config["pods"]),
        )

    return warm


warm_executor = build_executor()
"""The executor of one machine: every step is forked."""
