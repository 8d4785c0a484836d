"""One start of a step in a pod: what an executor knows of it, and what it writes to the run's log to know it again."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dagster import DagsterEvent, Executor, IntMetadataValue, MetadataValue, TextMetadataValue
from dagster._core.events import EngineEventData  # noqa: TID251 payload of engine events
from dagster._core.execution.context.system import (  # noqa: TID251 the executor interface's own type
    PlanOrchestrationContext,
)
from dagster._core.execution.plan.objects import ErrorSource, StepFailureData  # noqa: TID251 payload of failures
from dagster_shared.error import SerializableErrorInfo

from ml_assets.executors.core_budget import CoreBudget
from ml_assets.executors.pods import PodLaunch, StepDemand

_JOB, _NUMBER, _FREE, _MEMORY = "Kubernetes Job name", "start", "free_starts", "memory_mib"


@dataclass(kw_only=True)
class Pod:
    """One start of a step, and what is known of it; times are those of `time.monotonic`.

    Attributes:
        step: The step (an ExecutionStep).
        demand: What it asks for.
        launch: Which start it is.
        since: Since when it waits for what it waits for now.
        created: Whether the cluster has said that its Job is there.
        queued: Whether it waited only for something that others use, at the last look.
        running_since: When it was first seen running.
        leaving_since: When it was first seen ending.
        overdue: Whether it was removed because it ran for too long.
        told: Reasons for waiting that the run's log tells already.
        decided: Whether its end is in the run's log, or on its way there.
        done_since: When the end of the step was read from the log.
    """

    step: Any
    demand: StepDemand
    launch: PodLaunch
    since: float = field(default_factory=time.monotonic)
    created: bool = False
    queued: bool = False
    running_since: float | None = None
    leaving_since: float | None = None
    overdue: bool = False
    told: set[str] = field(default_factory=set)
    decided: bool = False
    done_since: float | None = None


def metadata_of(launch: PodLaunch) -> Mapping[str, MetadataValue]:
    """Return the metadata of the event that tells of a start."""
    memory = {} if launch.memory_mib is None else {_MEMORY: MetadataValue.int(launch.memory_mib)}
    return {
        _JOB: MetadataValue.text(launch.job),
        _NUMBER: MetadataValue.int(launch.number),
        _FREE: MetadataValue.int(launch.free_starts),
        **memory,
    }


def launch_of(event: DagsterEvent) -> PodLaunch | None:
    """Return the start that an event tells of; None when it is that of a forked step."""
    metadata = event.engine_event_data.metadata
    job = metadata.get(_JOB)
    if not isinstance(job, TextMetadataValue) or _NUMBER not in metadata:
        return None

    def number(name: str) -> int | None:
        value = metadata.get(name)
        return value.value if isinstance(value, IntMetadataValue) else None

    return PodLaunch(
        job=job.value or "",
        number=number(_NUMBER) or 0,
        free_starts=number(_FREE) or 0,
        memory_mib=number(_MEMORY),
    )


@dataclass(frozen=True, kw_only=True)
class StepLog:
    """Writes of steps in pods to the run's log; who reads the log acts on it.

    Attributes:
        executor: Decides on retries.
        context: The run.
        active: The run's state machine.
    """

    executor: Executor
    context: PlanOrchestrationContext
    active: CoreBudget

    def tell(self, pod: Pod, message: str) -> None:
        """Tell what happens to a step."""
        DagsterEvent.engine_event(self.context.for_step(pod.step), message, EngineEventData())

    def fail(self, pod: Pod, message: str) -> None:
        """Fail a step, or have its RetryPolicy start it again."""
        pod.decided = True
        self.executor.log_failure_or_retry_event_after_error(
            self.context.for_step(pod.step), _error(message, "PodEnded"), self.active.get_known_state()
        )

    def fail_for_good(
        self, pod: Pod, message: str, kind: str, source: ErrorSource = ErrorSource.FRAMEWORK_ERROR
    ) -> None:
        """Fail a step whatever its RetryPolicy says.

        Args:
            pod: Its pod.
            message: Why.
            kind: Name of the error.
            source: Whose fault it is.
        """
        pod.decided = True
        data = StepFailureData(error=_error(message, kind), user_failure_data=None, error_source=source)
        DagsterEvent.step_failure_event(self.context.for_step(pod.step), data)


def _error(message: str, kind: str) -> SerializableErrorInfo:
    return SerializableErrorInfo(message=message, stack=[], cls_name=kind)
