"""One start of a step in a pod: what an executor knows of it, and what it writes to the run's log to know it again."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dagster import DagsterEvent, Executor, IntMetadataValue, MetadataValue, TextMetadataValue
from dagster._core.events import EngineEventData  # noqa: TID251 payload of engine events
from dagster._core.execution.context.system import (  # noqa: TID251 the executor interface's own type
    PlanOrchestrationContext,
)
from dagster._core.execution.plan.objects import ErrorSource, StepFailureData  # noqa: TID251 payload of failures
from dagster_shared.error import SerializableErrorInfo

from ml_assets.executors.pods import PodLaunch, PodLook, StepDemand
from ml_assets.executors.worker_budget import WorkerBudget

_JOB, _NUMBER, _FREE, _MEMORY = "Kubernetes Job name", "start", "free_starts", "memory_mib"


@dataclass(kw_only=True)
class Wait:
    """How long a pod has waited for its start, by what it waited for; times are those of `time.monotonic`.

    A pod may go back and forth between a queue and another reason. Each kind of waiting is summed over all its turns,
    so that no pod waits for longer than the limits of both kinds together.

    Attributes:
        since: When the waiting began.
        counted: Until when it is counted in `seconds`.
        last: What the last look showed; None before the first.
        seconds: Time waited, by whether it was only for something that others use.
        told: Reasons that the run's log tells already.
    """

    since: float = field(default_factory=time.monotonic)
    counted: float | None = None
    last: PodLook | None = None
    seconds: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})
    told: set[tuple[bool, str]] = field(default_factory=set)

    def count(self, look: PodLook, now: float) -> PodLook:
        """Count the time since the last look, and return this one with what holds of it.

        The time between two looks was spent as the first of them saw it. Where the cluster gives no reason, as when it
        shows no pod for a moment, the last reason holds until the pod has a node.
        """
        last = self.last or look
        if not look.why and look.node is None:
            look = replace(look, reason=last.reason, message=last.message, queued=last.queued)
        spent_as = look if self.last is None else last
        self.seconds[spent_as.queued] += now - (self.since if self.counted is None else self.counted)
        self.last, self.counted = look, now
        return look

    def next_turn(self) -> "Wait":
        """Return the waiting for a pod after that for its Job: from now on, with what was waited so far."""
        return Wait(seconds=self.seconds, told=self.told)

    def is_news(self, look: PodLook, notice_seconds: float) -> bool:
        """Return whether a reason is to be told: each once, and after the first one only those that last."""
        reason = (look.queued, look.reason)
        if not look.why or reason in self.told or (self.told and self.seconds[look.queued] < notice_seconds):
            return False
        self.told.add(reason)
        return True


@dataclass(kw_only=True)
class Pod:
    """One start of a step, and what is known of it; times are those of `time.monotonic`.

    Attributes:
        step: The step (an ExecutionStep).
        demand: What it asks for.
        launch: Which start it is.
        adopted: Whether an earlier worker of the run started it.
        created: Whether the cluster has said that its Job is there.
        wait: How long it has waited for its start.
        running_since: When it was first seen running.
        leaving_since: When it was first seen ending.
        overdue: Whether it was removed because it ran for too long.
        decided: Whether its end is in the run's log, or on its way there.
        done_since: When the end of the step was read from the log.
    """

    step: Any
    demand: StepDemand
    launch: PodLaunch
    adopted: bool = False
    created: bool = False
    wait: Wait = field(default_factory=Wait)
    running_since: float | None = None
    leaving_since: float | None = None
    overdue: bool = False
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
    active: WorkerBudget

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
