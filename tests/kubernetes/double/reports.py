"""What a kubelet tells the API server of its pods: statuses and events, kept while it cannot be reached."""

from typing import Any

from tests.kubernetes.double.objects import ApiError, Obj, now, set_condition
from tests.kubernetes.double.rest import MERGE, Rest

_OWN_CONDITIONS = ("Initialized", "Ready", "ContainersReady")


class Reports:
    """Statuses to write, the newest of each pod, and events, in order."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._pending: dict[str, tuple[Obj, Obj]] = {}  # pod's uid: the pod, its status
        self._written: dict[str, Obj] = {}
        self._events: list[tuple[str, Obj]] = []
        self._gone: dict[str, Obj] = {}
        self._waiting: dict[str, str] = {}

    def status(self, pod: Obj, status: Obj) -> None:
        """Report a status, unless it is what was written last."""
        uid = pod["metadata"]["uid"]
        if self._written.get(uid) == status and uid not in self._pending:
            return
        self._pending[uid] = (pod, status)

    def is_pending(self, uid: str) -> bool:
        return uid in self._pending

    def gone(self, pod: Obj) -> None:
        """Report that nothing of a pod that is being deleted is left here."""
        self._gone[pod["metadata"]["uid"]] = pod

    def forget(self, pod: Obj) -> None:
        """Write the pod's status again, whatever was written before."""
        self._written.pop(pod["metadata"]["uid"], None)

    def waiting_for(self, uid: str) -> str | None:
        return self._waiting.get(uid)

    def wait(self, uid: str, reason: str) -> None:
        self._waiting[uid] = reason

    def taken_on(self, uid: str) -> None:
        self._waiting.pop(uid, None)

    def event(self, pod: Obj, type_: str, reason: str, message: str) -> None:
        meta = pod["metadata"]
        stamp = now()
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
            "type": type_,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
            "source": {"component": "kubelet", "host": pod["spec"]["nodeName"]},
        }
        self._events.append((f"/api/v1/namespaces/{meta['namespace']}/events", body))

    def flush(self, nodes: set[str]) -> None:
        """Write what is due for pods of these nodes. Raises UnreachableError, and keeps the rest, without an answer."""
        for uid, (pod, status) in list(self._pending.items()):
            if pod["spec"]["nodeName"] in nodes:
                self._tolerant(lambda pod=pod, status=status: self._write(pod, status))
                self._pending.pop(uid, None)
                self._written[uid] = status
        while self._events:
            path, body = self._events[0]
            self._tolerant(lambda path=path, body=body: self._rest("POST", path, body))
            self._events.pop(0)
        for uid, pod in list(self._gone.items()):
            if uid not in self._pending:
                self._tolerant(lambda pod=pod: self._delete(pod))
                self._gone.pop(uid, None)

    def _write(self, pod: Obj, status: Obj) -> None:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        present = self._rest("GET", path).get("status") or {}
        whole: Obj = {**status, "conditions": list(present.get("conditions") or [])}
        if status["phase"] != "Pending":
            whole["startTime"] = present.get("startTime") or now()
        for type_ in _OWN_CONDITIONS:
            true = status["phase"] == "Running" or (type_ == "Initialized" and status["phase"] != "Pending")
            set_condition(whole, type_, "True" if true else "False")
        if status.get("reason") == "Evicted":
            set_condition(whole, "DisruptionTarget", "True", reason="TerminationByKubelet", message=status["message"])
        self._rest("PATCH", f"{path}/status", {"metadata": {"uid": meta["uid"]}, "status": whole}, MERGE)

    def _delete(self, pod: Obj) -> None:
        meta = pod["metadata"]
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": meta["uid"]},
        }
        self._rest("DELETE", f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", options)

    @staticmethod
    def _tolerant(write: Any) -> None:
        """Write what may have become pointless: the pod or its namespace has gone or was replaced."""
        try:
            write()
        except ApiError as error:
            if error.code not in (403, 404, 409):
                raise


def container_waiting(container: Obj, reason: str, message: str) -> Obj:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": False,
        "started": False,
        "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": message}},
    }
