"""The scheduler: puts pods on nodes by resources, taints, selectors and node affinity, and preempts by priority."""

import copy
from collections import Counter
from fractions import Fraction

from tests.kubernetes.double import quantities
from tests.kubernetes.double.api import Api
from tests.kubernetes.double.objects import (
    Obj,
    is_finished,
    is_terminating,
    key_of,
    phase_of,
    set_condition,
)

_COMPONENT = "default-scheduler"
_NO_MATCH = "node(s) didn't match Pod's node affinity/selector"


class Scheduler:
    """Places every pod that waits, the highest priority first, each time `sync` is called."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def sync(self) -> None:
        for pod in sorted(filter(_waits, self._api.store.all("pods")), key=_turn):
            # Read again for each: the pods placed a moment ago take their room.
            pods, nodes = self._api.store.all("pods"), self._api.store.all("nodes")
            why, fitting = Counter(), []
            for node in nodes:
                problems = node_problems(pod, node) or _resource_problems(pod, node, _counted_on(pods, node, pod))
                why.update(problems)
                if not problems:
                    load = quantities.total(quantities.pod_requests(p["spec"]) for p in _on(pods, node))
                    fitting.append((load.get("cpu", Fraction(0)), node["metadata"]["name"]))
            if fitting:
                self._bind(pod, min(fitting)[1])
                continue
            victims, node_name = self._victims(pod, pods, nodes)
            self._leave_waiting(pod, why, len(nodes), node_name)
            for victim in victims:
                self._preempt(victim, pod, node_name)

    def _bind(self, pod: Obj, node: str) -> None:
        status = copy.deepcopy(pod["status"])
        status.pop("nominatedNodeName", None)
        set_condition(status, "PodScheduled", "True")
        self._api.store.put(key_of(pod), {**pod, "spec": {**pod["spec"], "nodeName": node}, "status": status})
        meta = pod["metadata"]
        text = f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}"
        self._api.event(pod, "Normal", "Scheduled", text, _COMPONENT)

    def _leave_waiting(self, pod: Obj, why: Counter[str], nodes: int, nominated: str) -> None:
        text = "no nodes available to schedule pods"
        if nodes:
            text = (
                f"0/{nodes} nodes are available: "
                + ", ".join(f"{n} {reason}" for reason, n in sorted(why.items()))
                + "."
            )
            text += f" preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
        status = copy.deepcopy(pod["status"])
        if nominated:
            status["nominatedNodeName"] = nominated
        set_condition(status, "PodScheduled", "False", reason="Unschedulable", message=text)
        if status != pod["status"]:
            self._api.set_status(key_of(pod), status)
            self._api.event(pod, "Warning", "FailedScheduling", text, _COMPONENT)

    def _victims(self, pod: Obj, pods: list[Obj], nodes: list[Obj]) -> tuple[list[Obj], str]:
        """Return the pods of lower priority to end, and the node this makes room on; none while some are ending."""
        if pod["spec"].get("preemptionPolicy") == "Never":
            return [], ""
        nominated = pod["status"].get("nominatedNodeName")
        if nominated and any(is_terminating(p) and p["spec"].get("nodeName") == nominated for p in pods):
            return [], nominated
        plans = []
        for node in nodes:
            if node_problems(pod, node):
                continue
            here = _counted_on(pods, node, pod)
            chosen: list[Obj] = []
            for candidate in sorted(here, key=_priority):
                if _priority(candidate) >= _priority(pod):
                    break
                chosen.append(candidate)
                if not _resource_problems(pod, node, [p for p in here if p not in chosen]):
                    plans.append((_priority(chosen[-1]), len(chosen), node["metadata"]["name"], chosen))
                    break
        if not plans:
            return [], ""
        _, _, name, victims = min(plans, key=lambda plan: plan[:3])
        return victims, name

    def _preempt(self, victim: Obj, winner: Obj, node: str) -> None:
        text = f"Preempted by pod {winner['metadata']['uid']} on node {node}"
        self._api.event(victim, "Normal", "Preempted", text, _COMPONENT)
        why = "default-scheduler: preempting to accommodate a higher priority pod"
        self._api.evict(key_of(victim), "PreemptionByScheduler", why)


def node_problems(pod: Obj, node: Obj) -> list[str]:
    """Return why the pod may not run on the node whatever is free there, in the scheduler's words."""
    spec, labels = pod["spec"], node["metadata"].get("labels") or {}
    node_spec = node.get("spec") or {}
    if node_spec.get("unschedulable"):
        return ["node(s) were unschedulable"]
    for taint in node_spec.get("taints") or []:
        if taint["effect"] in ("NoSchedule", "NoExecute") and tolerating(spec, taint) is None:
            return ["node(s) had untolerated taint(s)"]
    if any(labels.get(name) != value for name, value in (spec.get("nodeSelector") or {}).items()):
        return [_NO_MATCH]
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required:
        terms = [term.get("matchExpressions") or [] for term in required.get("nodeSelectorTerms") or []]
        if not any(all(_matches(expression, labels) for expression in term) for term in terms):
            return [_NO_MATCH]
    return []


def tolerating(spec: Obj, taint: Obj) -> Obj | None:
    """Return the pod's toleration of a taint, if it has one."""
    for toleration in spec.get("tolerations") or []:
        if toleration.get("effect") and toleration["effect"] != taint["effect"]:
            continue
        if not toleration.get("key"):
            return toleration  # operator Exists, as validation demands
        same_value = toleration.get("value", "") == taint.get("value", "")
        if toleration["key"] == taint["key"] and (toleration.get("operator") == "Exists" or same_value):
            return toleration
    return None


def _waits(pod: Obj) -> bool:
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and not is_terminating(pod)
        and not spec.get("schedulingGates")
        and phase_of(pod) == "Pending"
        and spec.get("schedulerName") == "default-scheduler"
    )


def _turn(pod: Obj) -> tuple[int, str, str]:
    meta = pod["metadata"]
    return -_priority(pod), meta["creationTimestamp"], meta["name"]


def _priority(pod: Obj) -> int:
    return pod["spec"].get("priority", 0)


def _on(pods: list[Obj], node: Obj) -> list[Obj]:
    name = node["metadata"]["name"]
    return [pod for pod in pods if pod["spec"].get("nodeName") == name and not is_finished(pod)]


def _counted_on(pods: list[Obj], node: Obj, newcomer: Obj) -> list[Obj]:
    """The pods that take room on a node: those there, and more important ones that room was made for."""
    name, uid = node["metadata"]["name"], newcomer["metadata"]["uid"]
    expected = [
        pod
        for pod in pods
        if not pod["spec"].get("nodeName")
        and pod["status"].get("nominatedNodeName") == name
        and pod["metadata"]["uid"] != uid
        and _priority(pod) >= _priority(newcomer)
    ]
    return _on(pods, node) + expected


def _resource_problems(pod: Obj, node: Obj, here: list[Obj]) -> list[str]:
    room = quantities.parse_all((node.get("status") or {}).get("allocatable"))
    used = quantities.total(quantities.pod_requests(other["spec"]) for other in here)
    problems = ["Too many pods"] if len(here) + 1 > room.get("pods", Fraction(0)) else []
    for name, value in quantities.pod_requests(pod["spec"]).items():
        if value and used.get(name, Fraction(0)) + value > room.get(name, Fraction(0)):
            problems.append(f"Insufficient {name}")
    return problems


def _matches(expression: Obj, labels: Obj) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(values[0])
        case _:
            return value is not None and int(value) < int(values[0])
