"""What an executor does about a pod, from one look at the cluster to the next."""

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ml_assets.executors.pod_record import Pod
from ml_assets.executors.pod_steps import PodSteps
from ml_assets.executors.pods import PodEnd, PodLaunch, PodLook, PodPhase, PodRules, StepDemand, WorkerSize

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
    return Pod(step=step, demand=StepDemand(gpus=1), launch=launch, since=time.monotonic() - age, created=True)


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
