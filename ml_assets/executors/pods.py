"""Steps in pods of their own: what a step asks for, whether the run's worker has that, and what a cluster must do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from dagster import DagsterInstance, DagsterRun
from dagster._core.executor.step_delegating import StepHandlerContext  # noqa: TID251 what step handlers are given

from ml_assets.compute import CORES_TAG, GPUS_TAG, MEMORY_TAG, OOM_MEMORY_TAG, TIME_LIMIT_TAG
from ml_assets.errors import MlAssetsError


@dataclass(frozen=True, kw_only=True)
class StepDemand:
    """What the op tags of a step ask for.

    Attributes:
        cores: Processor cores, at least 1.
        memory_mib: Memory in MiB; None when the tags do not say.
        gpus: Graphics processors.
        time_limit_seconds: Longest that one attempt may run; None for no limit.
        oom_memory_mib: Memory sizes in MiB to try after an out-of-memory kill, rising.
    """

    cores: int = 1
    memory_mib: int | None = None
    gpus: int = 0
    time_limit_seconds: int | None = None
    oom_memory_mib: tuple[int, ...] = ()

    def next_memory(self, killed_at: int | None) -> int | None:
        """Return the memory in MiB to try after a step was killed at that size; None when no larger one is allowed."""
        return next((size for size in self.oom_memory_mib if killed_at is None or size > killed_at), None)


def demand_of(step_key: str, tags: Mapping[str, str] | None) -> StepDemand:
    """Return what a step asks for.

    Raises:
        MlAssetsError: If a tag is not a whole number.
    """
    found = tags or {}

    def number(tag: str, text: str, least: int) -> int:
        if text.isascii() and text.isdigit() and int(text) >= least:
            return int(text)
        raise MlAssetsError(
            f"step {step_key}: op tag {tag!r} is {found[tag]!r}; expected a whole number of at least {least}, "
            'such as "2". Correct `op_tags` of that asset.'
        )

    def optional(tag: str, least: int = 1) -> int | None:
        return number(tag, found[tag], least) if tag in found else None

    sizes = found.get(OOM_MEMORY_TAG, "")
    return StepDemand(
        cores=optional(CORES_TAG) or 1,
        memory_mib=optional(MEMORY_TAG),
        gpus=optional(GPUS_TAG, 0) or 0,
        time_limit_seconds=optional(TIME_LIMIT_TAG),
        oom_memory_mib=tuple(sorted(number(OOM_MEMORY_TAG, size.strip(), 1) for size in sizes.split(",") if size)),
    )


@dataclass(frozen=True, kw_only=True)
class WorkerSize:
    """What the run's worker has for the steps that it forks.

    Attributes:
        cores: Processor cores.
        memory_mib: Memory in MiB; None when it has no bound that is known.
    """

    cores: int
    memory_mib: int | None = None

    def lacks(self, demand: StepDemand) -> str | None:
        """Return what a step asks for that the worker does not have, in words; None when the step fits."""
        if demand.gpus:
            return f"{demand.gpus} GPU{'s' if demand.gpus > 1 else ''}"
        if demand.cores > self.cores:
            return f"{demand.cores} cores (the run's worker has {self.cores})"
        if self.memory_mib is not None and (demand.memory_mib or 0) > self.memory_mib:
            return f"{demand.memory_mib} MiB of memory (the run's worker has {self.memory_mib})"
        return None


@dataclass(frozen=True, kw_only=True)
class PodRules:
    """How long the executor waits for what, in seconds, and how often it starts a step again.

    Attributes:
        pending_seconds: Longest that a pod may wait for its start.
        queue_seconds: Longest that a pod may wait when all it lacks is a free GPU or a free part of a quota.
        notice_seconds: How long a pod has waited when the run's log tells why.
        look_seconds: Time between two looks at the cluster.
        event_seconds: Time between two looks at the run's log.
        lost_seconds: How long after its grace period a pod that is told to end may still be there; then its node
            counts as lost.
        away_seconds: Longest that the cluster's API may be away; then the steps that need it fail.
        free_starts: How often a step that lost its pod is started again without using up a retry.
    """

    pending_seconds: float = 600.0
    queue_seconds: float = 86400.0
    notice_seconds: float = 15.0
    look_seconds: float = 5.0
    event_seconds: float = 1.0
    lost_seconds: float = 60.0
    away_seconds: float = 1800.0
    free_starts: int = 5

    @property
    def keep_seconds(self) -> float:
        """Return how long a Job must stay after its end at least, so that the executor learns how it ended.

        It may not see the Job for as long as the cluster's API may be away, nor while the run's worker is replaced.
        """
        return max(3600.0, 2 * (self.away_seconds + self.look_seconds))


class PodPhase(StrEnum):
    """Where a step's pod is in its life."""

    ABSENT = "absent"
    """There is neither a Job nor a pod."""
    WAITING = "waiting"
    """Its container has not started, or there is no pod yet."""
    RUNNING = "running"
    LEAVING = "leaving"
    """It is told to end and has not yet, or the step's container has ended and others of the pod go on."""
    ENDED = "ended"


class PodEnd(StrEnum):
    """How a pod ended."""

    COMPLETED = "completed"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out of memory"
    DISRUPTED = "disrupted"
    """Evicted, preempted, deleted, or its node was lost: no fault of the step."""
    TIME_LIMIT = "time limit"


@dataclass(frozen=True, kw_only=True)
class PodLook:
    """What one look at the cluster shows of a step's Job and pod.

    Attributes:
        phase: Where it is in its life.
        end: How it ended; None unless `phase` is ENDED, or LEAVING and the step's container has ended.
        reason: The cluster's word for why it waits or ended, such as "Unschedulable"; may be empty.
        message: The cluster's sentence about it; may be empty.
        queued: Whether it only waits for something that others use now.
        pod: The pod's name; None when there is none.
        node: The pod's node; None before it has one.
        exit_code: Of its container; None when unknown.
        grace_seconds: Time a pod has to end after it was told to.
    """

    phase: PodPhase
    end: PodEnd | None = None
    reason: str = ""
    message: str = ""
    queued: bool = False
    pod: str | None = None
    node: str | None = None
    exit_code: int | None = None
    grace_seconds: float = 30.0

    @property
    def why(self) -> str:
        """Return reason and message as one text."""
        return ": ".join(filter(None, (self.reason, self.message)))


@dataclass(frozen=True, kw_only=True)
class PodLaunch:
    """One start of a step in a pod.

    Attributes:
        job: Name of its Kubernetes Job; the same start has the same name, so that it cannot happen twice.
        number: Which start of this step in its run, from 0.
        free_starts: How many starts before this one were after a disruption.
        memory_mib: Memory in MiB in place of what the tags ask for; None for what they ask.
        keep_seconds: How long its Job stays after its end at least, if its configuration gives it a time to go.
    """

    job: str
    number: int = 0
    free_starts: int = 0
    memory_mib: int | None = None
    keep_seconds: float = 0.0


class ClusterAwayError(Exception):
    """The cluster's API did not answer, or says that it cannot now."""


class PodRefusedError(MlAssetsError):
    """The cluster does not take the Job of a step; with `for_now` it may take the same one later."""

    def __init__(self, message: str, *, for_now: bool = False) -> None:
        self.for_now = for_now
        super().__init__(message)


class PodRunner(Protocol):
    """The pods of one run's steps, in a cluster.

    Every method may be called again. Each may raise ClusterAwayError, and PodRefusedError where a right is missing.
    """

    def job_name(self, step_key: str, number: int) -> str:
        """Return the name of the Job of a step's start."""
        ...

    def start(self, context: StepHandlerContext, launch: PodLaunch, demand: StepDemand) -> bool:
        """Create the Job of a step; return whether it was there already.

        Raises:
            PodRefusedError: If the cluster does not take it.
            MlAssetsError: If it cannot be made, as when nothing says which image its pod has.
        """
        ...

    def look(self, jobs: Sequence[str]) -> Mapping[str, PodLook]:
        """Return what becomes of Jobs that were started here."""
        ...

    def explain(self, job: str, look: PodLook) -> PodLook:
        """Return the same look with what the cluster's events say of it."""
        ...

    def last_words(self, look: PodLook) -> str:
        """Return the last lines that a pod printed; empty when there are none."""
        ...

    def remove(self, job: str, *, at_once: bool = False) -> None:
        """Delete a Job with its pods; nothing happens when it is gone.

        Args:
            job: Its name.
            at_once: Without waiting for the node to confirm that the pod ended, as when the node is lost.
        """
        ...


class PodRunnerFactory(Protocol):
    """Opens the cluster that an installation uses; called when the first step needs a pod."""

    def __call__(self, instance: DagsterInstance, run: DagsterRun) -> PodRunner:
        """Return the pods of a run."""
        ...
