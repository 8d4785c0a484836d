"""Nodes that are lost: what the node controller, the taint manager and the pod garbage collector do then."""

import copy
import time

from tests.kubernetes.double.api import Api
from tests.kubernetes.double.objects import (
    ApiError,
    Key,
    Obj,
    is_finished,
    is_terminating,
    key_of,
    set_condition,
)
from tests.kubernetes.double.scheduler import tolerating

_UNREACHABLE = "node.kubernetes.io/unreachable"
_COMPONENT = "node-controller"


class NodeController:
    """Marks nodes as lost and back, and ends the pods of lost and removed nodes each time `sync` is called."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lost: dict[str, tuple[float, float | None]] = {}  # node: since when, seconds until its pods are deleted

    def lose(self, name: str, *, pod_phase: str, evict_after: float | None) -> None:
        """Mark a node and its pods as the controller does when a kubelet has been silent for its grace time."""
        text = "Kubelet stopped posting node status."
        with self._api.store.lock:
            node = copy.deepcopy(self._get(name))
            set_condition(node["status"], "Ready", "Unknown", reason="NodeStatusUnknown", message=text)
            taints = [taint for taint in node["spec"].get("taints") or [] if taint["key"] != _UNREACHABLE]
            node["spec"]["taints"] = taints + [{"key": _UNREACHABLE, "effect": e} for e in ("NoSchedule", "NoExecute")]
            self._lost[name] = (time.monotonic(), evict_after)
            self._api.store.put(key_of(node), node)
            self._api.event(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady", _COMPONENT)
            for pod in self._pods_on(name):
                if is_finished(pod):
                    continue
                status = copy.deepcopy(pod["status"])
                status["phase"] = pod_phase if pod_phase != "Running" else status["phase"]
                status["reason"] = "NodeLost"
                status["message"] = f"Node {name} which was running pod {pod['metadata']['name']} is unresponsive"
                set_condition(status, "Ready", "False")
                self._api.set_status(key_of(pod), status)
                self._api.event(pod, "Warning", "NodeNotReady", "Node is not ready", _COMPONENT)

    def find(self, name: str) -> None:
        """Take back what `lose` marked on the node; its pods get their status from their kubelet."""
        with self._api.store.lock:
            self._lost.pop(name, None)
            if self._api.store.read(Key("", "nodes", "", name)) is None:
                return  # it was removed; its kubelet registers it again
            node = copy.deepcopy(self._get(name))
            text = "kubelet is posting ready status"
            set_condition(node["status"], "Ready", "True", reason="KubeletReady", message=text)
            node["spec"]["taints"] = [t for t in node["spec"].get("taints") or [] if t["key"] != _UNREACHABLE]
            self._api.store.put(key_of(node), node)
            self._api.event(node, "Normal", "NodeReady", f"Node {name} status is now: NodeReady", _COMPONENT)

    def sync(self) -> None:
        present = {node["metadata"]["name"] for node in self._api.store.all("nodes")}
        for pod in self._api.store.all("pods"):
            name = pod["spec"].get("nodeName")
            if name and name not in present:
                self._collect(pod)
            elif name in self._lost and not is_terminating(pod) and not is_finished(pod):
                since, evict_after = self._lost[name]
                if time.monotonic() - since >= self._patience(pod, evict_after):
                    self._api.event(
                        pod, "Normal", "TaintManagerEviction", "Marking for deletion Pod", "taint-eviction-controller"
                    )
                    self._api.evict(
                        key_of(pod), "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"
                    )

    @staticmethod
    def _patience(pod: Obj, evict_after: float | None) -> float:
        if evict_after is not None:
            return evict_after
        toleration = tolerating(pod["spec"], {"key": _UNREACHABLE, "effect": "NoExecute"})
        if toleration is None:
            return 0.0
        return float(toleration.get("tolerationSeconds", float("inf")))

    def _collect(self, pod: Obj) -> None:
        """A pod whose node was removed has failed, and goes."""
        if not is_finished(pod):
            status = copy.deepcopy(pod["status"])
            status["phase"] = "Failed"
            text = "PodGC: node no longer exists"
            set_condition(status, "DisruptionTarget", "True", reason="DeletionByPodGC", message=text)
            self._api.set_status(key_of(pod), status)
        if not is_terminating(pod) or not is_finished(pod):
            self._api.delete(key_of(pod), grace=0)

    def _pods_on(self, name: str) -> list[Obj]:
        return [pod for pod in self._api.store.all("pods") if pod["spec"].get("nodeName") == name]

    def _get(self, name: str) -> Obj:
        node = self._api.store.read(Key("", "nodes", "", name))
        if node is None:
            known = ", ".join(entry["metadata"]["name"] for entry in self._api.store.all("nodes")) or "none"
            raise ApiError(404, f'nodes "{name}" not found (nodes present: {known})')
        return node
