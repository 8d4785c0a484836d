"""What Kubernetes' objects say of a step, read from the JSON of its API."""

from dataclasses import replace
from typing import Any

import pytest

from ml_assets.executors.pods import PodEnd, PodLook, PodPhase
from resources.kubernetes.pod_looks import explained, look_at, waits_for_quota


def _pod(phase: str = "Running", state: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    containers = [] if state is None else [{"name": "dagster", "state": state}]
    status = {"phase": phase, "containerStatuses": containers, **more.pop("status", {})}
    return {
        "metadata": {"name": "pod-1", "creationTimestamp": "2026-01-01T00:00:00Z", **more},
        "spec": {"nodeName": "gpu-1"},
        "status": status,
    }


def _condition(kind: str, reason: str = "", message: str = "", status: str = "True") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _job(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "job-1"}, "spec": {}, "status": status}


KILLED = {"terminated": {"exitCode": 137, "reason": "Error"}}


@pytest.mark.parametrize(
    ("pod", "end"),
    [
        (_pod("Succeeded", {"terminated": {"exitCode": 0}}), PodEnd.COMPLETED),
        (_pod("Failed", KILLED), PodEnd.CRASHED),
        (_pod("Failed", {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), PodEnd.OUT_OF_MEMORY),
        (_pod("Failed", KILLED, status={"reason": "Evicted", "message": "low on memory"}), PodEnd.DISRUPTED),
        (_pod("Failed", None, status={"reason": "NodeLost"}), PodEnd.DISRUPTED),
        (
            _pod("Failed", KILLED, status={"conditions": [_condition("DisruptionTarget", "PreemptionByScheduler")]}),
            PodEnd.DISRUPTED,
        ),
        (_pod("Failed", KILLED, status={"reason": "DeadlineExceeded"}), PodEnd.TIME_LIMIT),
    ],
)
def test_how_a_pod_ended(pod: dict[str, Any], end: PodEnd) -> None:
    look = look_at(_job(), [pod])
    assert (look.phase, look.end, look.pod, look.node) == (PodPhase.ENDED, end, "pod-1", "gpu-1")


@pytest.mark.parametrize(
    ("pod", "phase"),
    [
        (_pod("Running", {"running": {}}), PodPhase.RUNNING),
        (_pod("Running", {"running": {}}, deletionTimestamp="2026-01-01T00:00:00Z"), PodPhase.LEAVING),
        (_pod("Unknown", {"running": {}}), PodPhase.LEAVING),
        (_pod("Pending"), PodPhase.WAITING),
    ],
)
def test_where_a_pod_is(pod: dict[str, Any], phase: PodPhase) -> None:
    assert look_at(_job(), [pod]).phase == phase


SIDECAR = {"name": "proxy", "state": {"running": {}}}


def _with_sidecar(state: dict[str, Any], phase: str = "Running") -> dict[str, Any]:
    return _pod(phase, status={"containerStatuses": [SIDECAR, {"name": "dagster", "state": state}]})


@pytest.mark.parametrize(
    ("pod", "phase", "end"),
    [
        (_with_sidecar({"running": {}}), PodPhase.RUNNING, None),
        (_with_sidecar({"waiting": {"reason": "ImagePullBackOff"}}, "Pending"), PodPhase.WAITING, None),
        (
            _with_sidecar({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
            PodPhase.LEAVING,
            PodEnd.OUT_OF_MEMORY,
        ),
        (_with_sidecar({"terminated": {"exitCode": 1}}), PodPhase.LEAVING, PodEnd.CRASHED),
        (_with_sidecar({"terminated": {"exitCode": 0}}), PodPhase.LEAVING, PodEnd.COMPLETED),
    ],
)
def test_a_sidecar_that_goes_on_hides_nothing(pod: dict[str, Any], phase: PodPhase, end: PodEnd | None) -> None:
    look = look_at(_job(), [pod])
    assert (look.phase, look.end) == (phase, end)


@pytest.mark.parametrize(
    ("job", "phase", "end"),
    [
        (None, PodPhase.ABSENT, None),
        (_job(), PodPhase.WAITING, None),
        (_job(failed=1), PodPhase.ENDED, PodEnd.DISRUPTED),
        (_job(conditions=[_condition("FailureTarget", "BackoffLimitExceeded")]), PodPhase.ENDED, PodEnd.DISRUPTED),
        (_job(conditions=[_condition("Failed", "DeadlineExceeded")]), PodPhase.ENDED, PodEnd.TIME_LIMIT),
        (_job(succeeded=1), PodPhase.ENDED, PodEnd.COMPLETED),
    ],
)
def test_a_job_without_a_pod(job: dict[str, Any] | None, phase: PodPhase, end: PodEnd | None) -> None:
    look = look_at(job, [])
    assert (look.phase, look.end) == (phase, end)


def test_of_two_pods_the_newer_one_counts() -> None:
    old = _pod("Failed", KILLED)
    new = _pod("Running", {"running": {}}, name="pod-2", creationTimestamp="2026-01-01T00:01:00Z")
    assert look_at(_job(), [new, old]).pod == "pod-2"


def test_waiting_for_a_gpu_that_others_use_is_a_queue() -> None:
    message = "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint(s)."
    blocked = _condition("PodScheduled", "Unschedulable", message, status="False")
    look = look_at(_job(), [_pod("Pending", status={"conditions": [blocked]})])
    assert (look.queued, look.reason, look.message) == (True, "Unschedulable", message)
    elsewhere = _condition("PodScheduled", "Unschedulable", "0/2 nodes are available: 2 Insufficient cpu.", "False")
    assert not look_at(_job(), [_pod("Pending", status={"conditions": [elsewhere]})]).queued


def test_a_container_says_why_it_waits() -> None:
    state = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "nobody:9"'}}
    look = look_at(_job(), [_pod("Pending", state)])
    assert look.why == 'ImagePullBackOff: Back-off pulling image "nobody:9"'


@pytest.mark.parametrize(
    ("requested", "limited", "waits"),
    [
        ("requests.nvidia.com/gpu=1", "requests.nvidia.com/gpu=2", True),
        ("requests.nvidia.com/gpu=3", "requests.nvidia.com/gpu=2", False),
        ("limits.memory=1Gi,requests.cpu=500m", "limits.memory=2048Mi,requests.cpu=1", True),
        ("limits.memory=3Gi", "limits.memory=2048Mi", False),
    ],
)
def test_a_quota_that_is_used_up_frees_itself_and_one_that_is_too_small_does_not(
    requested: str, limited: str, waits: bool
) -> None:
    message = f'pods "p" is forbidden: exceeded quota: team, requested: {requested}, used: x=1, limited: {limited}'
    assert waits_for_quota(message) is waits


def _event(reason: str, message: str, second: int, kind: str = "Warning") -> dict[str, str]:
    return {"reason": reason, "message": message, "type": kind, "lastTimestamp": f"2026-01-01T00:00:{second:02d}Z"}


def test_events_say_why_a_job_has_no_pod() -> None:
    waiting = PodLook(phase=PodPhase.WAITING)
    events = [_event("FailedCreate", "no PriorityClass", 2), _event("FailedCreate", "older", 1)]
    assert explained(waiting, events).why == "FailedCreate: no PriorityClass"
    assert explained(waiting, []) == waiting
    said = PodLook(phase=PodPhase.WAITING, reason="ErrImagePull", message="not found")
    assert explained(said, events) == said


def test_events_say_who_took_a_pod_and_not_that_its_job_failed_for_it() -> None:
    gone = look_at(_job(failed=1), [])
    events = [
        _event("Preempted", "by pod urgent", 1, "Normal"),
        _event("BackoffLimitExceeded", "Job has reached the specified backoff limit", 2),
    ]
    assert explained(gone, events).why == "Preempted: by pod urgent"
    assert explained(gone, events[1:]) == gone
    crashed = look_at(_job(failed=1), [_pod("Failed", KILLED)])
    assert explained(crashed, events) == crashed


def test_what_held_a_pod_up_on_its_way_is_past_once_it_has_gone_further() -> None:
    quota = "exceeded quota: team, requested: requests.cpu=1, used: requests.cpu=1, limited: requests.cpu=1"
    blocked = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    events = [_event("FailedCreate", quota, 1), _event("FailedScheduling", blocked, 2)]
    no_pod, no_node = PodLook(phase=PodPhase.WAITING), PodLook(phase=PodPhase.WAITING, pod="pod-1")
    on_node = PodLook(phase=PodPhase.WAITING, pod="pod-1", node="gpu-1")
    assert explained(no_pod, events[:1]).why == f"FailedCreate: {quota}"
    assert explained(no_node, events[:1]) == no_node
    # in the words of the pod's own condition, which says the same a moment later
    assert explained(no_node, events) == replace(no_node, reason="Unschedulable", message=blocked, queued=True)
    assert explained(on_node, events) == on_node
    mount = _event("FailedMount", "no such volume", 0)
    assert explained(on_node, [*events, mount]).why == "FailedMount: no such volume"
