"""What Kubernetes says of a step's Job, pod and events, as the API gives it, read into what an executor decides on."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ml_assets.compute import GPU_RESOURCE
from ml_assets.executors.pods import PodEnd, PodLook, PodPhase

Object = Mapping[str, Any]
"""An object of the API as JSON."""

_DISRUPTIONS = frozenset(
    {"Evicted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "NodeAffinity", "Preempting"}
)
"""Reasons of failed pods whose step did nothing wrong."""
_TAKEN = frozenset({"Preempted", "Evicted", "TaintManagerEviction", "NodeNotReady", "NodeShutdown", "DisruptionTarget"})
"""Reasons of events that tell why a pod was taken from a step."""
_NO_POD, _NO_NODE = "FailedCreate", "FailedScheduling"
"""Reasons of events that are past once the Job has a pod, and once the pod has a node."""
_UNSCHEDULABLE = "Unschedulable"
_STEP_CONTAINER = "dagster"
_QUEUED = re.compile(rf"Insufficient {re.escape(GPU_RESOURCE)}")
_QUOTA = re.compile(r"exceeded quota: .*?requested: (?P<requested>\S+), used: \S+, limited: (?P<limited>\S+)")
_UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def look_at(job: Object | None, pods: Sequence[Object]) -> PodLook:
    """Return where a step is in its life.

    Args:
        job: Its Job; None when there is none.
        pods: The pods of that Job: one at most, or one that ends beside a new one.
    """
    if pods:
        return _look_at_pod(max(pods, key=lambda pod: pod["metadata"].get("creationTimestamp") or ""))
    if job is None:
        return PodLook(phase=PodPhase.ABSENT, message="its Job and its pod were deleted")
    for condition in _true(job, "Failed", "FailureTarget"):
        if condition.get("reason") == "DeadlineExceeded":
            return PodLook(
                phase=PodPhase.ENDED,
                end=PodEnd.TIME_LIMIT,
                reason="DeadlineExceeded",
                message=condition.get("message", ""),
            )
    if _status(job).get("failed") or _true(job, "Failed", "FailureTarget"):
        # The pod of a step that failed by itself stays until its Job goes.
        return PodLook(phase=PodPhase.ENDED, end=PodEnd.DISRUPTED, message="its pod was deleted")
    if _status(job).get("succeeded"):
        return PodLook(phase=PodPhase.ENDED, end=PodEnd.COMPLETED)
    return PodLook(phase=PodPhase.WAITING)


def _look_at_pod(pod: Object) -> PodLook:
    status, metadata = _status(pod), pod["metadata"]
    found: dict[str, Any] = {
        "pod": metadata["name"],
        "node": pod["spec"].get("nodeName"),
        "grace_seconds": float(metadata.get("deletionGracePeriodSeconds") or 30),
    }
    reason, message = status.get("reason", ""), status.get("message", "")
    disruptions = _true(pod, "DisruptionTarget")
    if disruptions:
        reason, message = disruptions[-1].get("reason", reason), disruptions[-1].get("message", message)
    if status.get("phase") == "Succeeded":
        return PodLook(phase=PodPhase.ENDED, end=PodEnd.COMPLETED, exit_code=0, **found)
    if status.get("phase") == "Failed":
        ended = _terminated(status)
        code = ended.get("exitCode")
        end = _end_of(reason, ended, disrupted=bool(disruptions))
        return PodLook(
            phase=PodPhase.ENDED,
            end=end,
            reason=reason or (ended.get("reason") or ""),
            message=message or (ended.get("message") or ""),
            exit_code=code,
            **found,
        )
    if metadata.get("deletionTimestamp") or status.get("phase") == "Unknown":
        return PodLook(phase=PodPhase.LEAVING, reason=reason, message=message, **found)
    state = _step_container(status).get("state") or {}
    if ended := state.get("terminated"):  # a sidecar keeps the pod; the step is over all the same
        clean = ended.get("exitCode") == 0
        return PodLook(
            phase=PodPhase.LEAVING,
            end=PodEnd.COMPLETED if clean else _end_of(reason, ended, disrupted=bool(disruptions)),
            reason=reason or (ended.get("reason") or ""),
            message=message or (ended.get("message") or ""),
            exit_code=ended.get("exitCode"),
            **found,
        )
    if "running" in state:
        return PodLook(phase=PodPhase.RUNNING, **found)
    return _waiting(pod, found)


def _step_container(status: Object) -> Object:
    """Return the status of the container that the step runs in: dagster-k8s's name for it, or else the first one."""
    containers = status.get("containerStatuses") or [{}]
    return next((container for container in containers if container.get("name") == _STEP_CONTAINER), containers[0])


def _waiting(pod: Object, found: Mapping[str, Any]) -> PodLook:
    status = _status(pod)
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            message = condition.get("message") or ""
            return PodLook(
                phase=PodPhase.WAITING,
                reason=condition.get("reason") or _UNSCHEDULABLE,
                message=message,
                queued=bool(_QUEUED.search(message)),
                **found,
            )
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    waits = [container["state"]["waiting"] for container in containers if (container.get("state") or {}).get("waiting")]
    waits.sort(key=lambda waiting: waiting.get("reason") in ("ContainerCreating", "PodInitializing"))
    first = waits[0] if waits else {}
    return PodLook(
        phase=PodPhase.WAITING, reason=first.get("reason") or "", message=first.get("message") or "", **found
    )


def _end_of(reason: str, ended: Object, *, disrupted: bool) -> PodEnd:
    if disrupted or reason in _DISRUPTIONS:
        return PodEnd.DISRUPTED
    if "OOMKilled" in (reason, ended.get("reason")):
        return PodEnd.OUT_OF_MEMORY
    if "DeadlineExceeded" in (reason, ended.get("reason")):
        return PodEnd.TIME_LIMIT
    return PodEnd.CRASHED


def explained(look: PodLook, events: Sequence[Object]) -> PodLook:
    """Return a look with what the newest warning among the events of its Job and pod says, where it says nothing yet.

    A Job without a pod says nothing of why: only its events do. The same holds for a pod whose volumes or network are
    not ready, and for one that was preempted and is gone. Events stay when their cause has gone: those of a step of the
    way that the pod has behind it do not count.
    """
    lost = look.phase == PodPhase.ABSENT or look.end == PodEnd.DISRUPTED
    if not lost and (look.message or look.phase != PodPhase.WAITING):
        return look
    past = {_NO_POD} if look.pod else set[str]()
    past |= {_NO_NODE} if look.node else set()
    told = sorted(
        (
            event
            for event in events
            if (event.get("reason") in _TAKEN if lost else event.get("type") == "Warning")
            and event.get("reason") not in past
        ),
        key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "",
    )
    if not told:
        return look
    reason, message = told[-1].get("reason") or "", told[-1].get("message") or ""
    # The scheduler tells of one wait twice: by an event, and by the pod's condition, which may come a moment later.
    return replace(
        look,
        reason=_UNSCHEDULABLE if reason == _NO_NODE else reason,
        message=message,
        queued=bool(_QUEUED.search(message)) or waits_for_quota(message),
    )


def waits_for_quota(message: str) -> bool:
    """Return whether a quota will do once others give back what they use: what is asked for is within its limit."""
    found = _QUOTA.search(message)
    if not found:
        return False
    limited = _amounts(found["limited"])
    return all(amount <= limited.get(name, 0.0) for name, amount in _amounts(found["requested"]).items())


def _amounts(text: str) -> dict[str, float]:
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {name: _amount(amount) for name, _, amount in pairs}


def _amount(text: str) -> float:
    number = re.match(r"[0-9.]+", text)
    if number is None:
        return float("inf")
    return float(number[0]) * _UNITS.get(text[number.end() :], 1.0)


def _status(thing: Object) -> Object:
    return thing.get("status") or {}


def _true(thing: Object, *types: str) -> list[Object]:
    conditions = _status(thing).get("conditions") or []
    return [condition for condition in conditions if condition["type"] in types and condition["status"] == "True"]


def _terminated(status: Object) -> Object:
    """Return how the container ended that failed, or else the first one."""
    ends = [
        container["state"]["terminated"]
        for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
        if (container.get("state") or {}).get("terminated")
    ]
    return next((end for end in ends if end.get("exitCode")), ends[0] if ends else {})
