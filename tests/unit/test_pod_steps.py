"""What an executor does about a pod, from one look at the cluster to the next."""

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dagster import DagsterEventType

from ml_assets.errors import MlAssetsError
from ml_assets.executors.cluster_line import ClusterLine
from ml_assets.executors.pod_record import Pod, Wait, metadata_of
from ml_assets.executors.pod_steps import PodSteps
from ml_assets.executors.pods import (
    PodEnd,
    PodLaunch,
    PodLook,
    PodPhase,
    PodRefusedError,
    PodRules,
    StepDemand,
    WorkerSize,
)

HOUR = 3600.0
RUNNING = PodLook(phase=PodPhase.RUNNING, pod="pod-1")
WAITING = PodLook(phase=PodPhase.WAITING)
LEAVING = PodLook(phase=PodPhase.LEAVING, pod="pod-1")


class Line:
    """A cluster that takes everything and tells what it was asked to remove."""

    def __init__(self) -> None:
        self.removed: list[bool] = []

    def explain(self, _: str, look: PodLook) -> PodLook:
        return look

    def remove(self, _: str, *, at_once: bool = False) -> bool:
        self.removed.append(at_once)
        return True


def _steps(pod: Pod) -> tuple[Any, Line, list[str]]:
    none = cast("Any", None)
    steps: Any = PodSteps(
        executor=none,
        context=none,
        active=none,
        worker=WorkerSize(cores=1),
        open_cluster=none,
        rules=PodRules(),
        tail=none,
        pods={pod.step.key: pod},
    )
    line, failures = Line(), []
    steps.__dict__["line"] = line
    steps.__dict__["log"] = SimpleNamespace(
        fail_for_good=lambda _, message, *__: failures.append(message), tell=lambda *_: None
    )
    return steps, line, failures


def _pod(age: float) -> Pod:
    step = SimpleNamespace(key="train")
    launch = PodLaunch(job="job-0")
    wait = Wait(since=time.monotonic() - age)
    return Pod(step=step, demand=StepDemand(gpus=1), launch=launch, wait=wait, created=True)


def test_a_pod_that_ran_for_hours_is_not_taken_for_one_that_never_started() -> None:
    pod = _pod(age=HOUR)
    steps, line, failures = _steps(pod)
    steps._see_to(pod, RUNNING)
    steps._see_to(pod, WAITING)  # its pod has gone, and its Job does not say so yet
    assert (line.removed, failures) == ([], [])


def test_a_pod_that_waits_for_too_long_is_given_up() -> None:
    pod = _pod(age=HOUR)
    steps, line, failures = _steps(pod)
    steps._see_to(pod, WAITING)
    assert line.removed == [False]
    assert "did not start" in failures[0]


def test_a_new_worker_of_a_run_gives_a_pod_that_waits_the_whole_time_again() -> None:
    pod = _pod(age=0)
    steps, line, failures = _steps(pod)
    queue = PodLook(phase=PodPhase.WAITING, pod="pod-1", reason="Unschedulable", message="no GPU", queued=True)
    other = PodLook(phase=PodPhase.WAITING, pod="pod-1", reason="Unschedulable", message="no node")

    def follow(looks: int) -> None:
        for number in range(looks):
            wait = steps.pods["train"].wait
            wait.since -= 60.0  # a minute passes
            wait.counted = None if wait.counted is None else wait.counted - 60.0
            steps._see_to(steps.pods["train"], (other, queue)[number % 2])

    follow(18)
    assert failures == []  # about nine minutes of each kind, with ten to wait for a start
    steps.active = SimpleNamespace(
        get_step_by_key=lambda _: SimpleNamespace(key="train", tags={}), take=lambda _: None, claim_again=lambda _: None
    )
    line.ask = lambda _: True  # type: ignore[attr-defined] - its Job is there
    steps.adopt([_started(pod.launch)])
    adopted = steps.pods["train"]
    assert (adopted is not pod, adopted.launch, adopted.created) == (True, pod.launch, True)
    follow(18)
    assert (line.removed, failures) == ([], [])
    follow(6)
    assert line.removed[:1] == [False]
    assert "`pending_seconds`" in failures[0]


def _started(launch: PodLaunch) -> Any:
    data = SimpleNamespace(metadata=metadata_of(launch))
    return SimpleNamespace(event_type=DagsterEventType.STEP_WORKER_STARTING, step_key="train", engine_event_data=data)


@pytest.mark.parametrize(("after", "removed"), [(30.0, []), (61.0, [False]), (HOUR, [True])])
def test_a_pod_that_stays_after_its_step_has_ended_is_removed_in_the_end_with_force(
    after: float, removed: list[bool]
) -> None:
    pod = _pod(age=HOUR)
    pod.done_since = time.monotonic() - after
    steps, line, _ = _steps(pod)
    steps._see_to(pod, LEAVING)
    assert line.removed == removed


def test_a_container_that_ended_beside_a_sidecar_is_judged_by_its_own_end() -> None:
    pod = _pod(age=HOUR)
    pod.leaving_since = time.monotonic() - HOUR
    steps, line, _ = _steps(pod)
    judged: list[PodLook] = []
    steps._judge = lambda _, look: judged.append(look)
    steps._see_to(pod, PodLook(phase=PodPhase.LEAVING, end=PodEnd.OUT_OF_MEMORY, pod="pod-1"))
    steps._see_to(pod, LEAVING)
    assert line.removed == [True, True]
    assert [look.end for look in judged] == [PodEnd.OUT_OF_MEMORY, PodEnd.DISRUPTED]


def test_a_cluster_that_a_new_worker_cannot_open_counts_as_away_and_ends_nothing_else() -> None:
    opened: list[int] = []

    def open_cluster() -> Any:
        opened.append(1)
        raise MlAssetsError("The cluster for steps in pods cannot be reached: there is no file.")

    context: Any = SimpleNamespace()
    line = ClusterLine(open_cluster, context, PodRules(away_seconds=HOUR))
    told: list[str] = []
    line._tell = told.append  # type: ignore[method-assign]

    assert opened == []  # nothing is opened before it is needed
    with pytest.raises(PodRefusedError, match="there is no file"):
        line.ask(lambda cluster: cluster.start)
    assert line.look(["job-0"]) is None
    assert not line.is_given_up
    assert line.remove("job-0")  # the reaper's, from now on
    assert line.explain("job-0", WAITING).message.startswith("nobody may read its events")
    assert line.last_words(WAITING) == ""
    assert sum("could not be removed" in text for text in told) == 1
