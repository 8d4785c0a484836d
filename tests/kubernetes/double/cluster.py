"""`FakeKube`: one simulated cluster, with the faults of its control plane as methods."""

import copy
import json
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from tests.kubernetes.double import quotas, validation
from tests.kubernetes.double.admission import Admission
from tests.kubernetes.double.api import Api
from tests.kubernetes.double.garbage import GarbageCollector
from tests.kubernetes.double.handler import Fault, Frontend, handler_for
from tests.kubernetes.double.http_server import HttpService
from tests.kubernetes.double.jobs import JobController
from tests.kubernetes.double.nodes import NodeController
from tests.kubernetes.double.objects import RESOURCES, Key, Obj, without_none
from tests.kubernetes.double.rbac import Authorizer
from tests.kubernetes.double.scheduler import Scheduler
from tests.kubernetes.double.store import Store

if TYPE_CHECKING:
    from tests.kubernetes.double.kubelet import ProcessKubelet

_SYSTEM_CLASSES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_SETTLE_SECONDS = 0.01
T = TypeVar("T")


class FakeKube:
    """A Kubernetes API server with Job controller, scheduler and node controller, over HTTP on 127.0.0.1.

    Use it as a context manager, with a `ProcessKubelet` to run the pods:

        with FakeKube() as kube, ProcessKubelet(kube.write_kubeconfig(path), nodes, images, folder) as kubelet: ...

    Args:
        namespaces: Namespaces that are there at once.
        schema_version: Kubernetes version whose schemas objects must fit ("1.34.0", "latest"); None: no check.
        seed: Makes the generated names the same in each run.
        tick: Seconds after which controllers look at the clock when nothing changes.
        auto_service_accounts: Give each namespace a service account "default".
        rbac: Enforce roles for requests; the kubeconfig of `write_kubeconfig` is the administrator's.
        job_backoff: Seconds before a failed pod of a Job is replaced, doubled each time; a cluster has 10.
    """

    def __init__(
        self,
        *,
        namespaces: Sequence[str] = ("default",),
        schema_version: str | None = "latest",
        seed: int = 0,
        tick: float = 0.2,
        auto_service_accounts: bool = True,
        rbac: bool = False,
        job_backoff: float = 0.2,
    ) -> None:
        self.store = Store()
        self.api = Api(self.store, Admission(self.store), seed=seed, service_accounts=auto_service_accounts)
        self.authorizer = Authorizer(self.store, enforced=rbac)
        self._frontend = Frontend(self.api, self.authorizer, schema_version)
        self._service = HttpService(handler_for(self._frontend), self._wake)
        self._nodes = NodeController(self.api)
        self._controllers = [
            JobController(self.api, backoff=job_backoff),
            Scheduler(self.api),
            self._nodes,
            GarbageCollector(self.api),
        ]
        self._tick = tick
        self._stop = threading.Event()
        self._timers: list[threading.Timer] = []
        self._failures: list[str] = []
        self._loop = threading.Thread(target=self._control, name="double-controllers", daemon=True)
        for name, value in _SYSTEM_CLASSES.items():
            self.create("scheduling.k8s.io", "priorityclasses", None, {"metadata": {"name": name}, "value": value})
        for name in namespaces:
            self.create("", "namespaces", None, {"metadata": {"name": name}})

    def __enter__(self) -> Self:
        self._service.start()
        self._loop.start()
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self.close()
        if self._failures and kind is None:
            raise RuntimeError("a controller of the double failed:\n" + self._failures[0])

    def close(self) -> None:
        """Stop serving and end every thread."""
        self._stop.set()
        for timer in self._timers:
            timer.cancel()
        self._service.close()
        self._wake()
        for thread in [self._loop, *self._timers]:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(5)

    # ------------------------------------------------------------------ reaching it
    @property
    def port(self) -> int:
        return self._service.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[tuple[str, str, int]]:
        """What clients asked, but for the kubelet: method, path with query, HTTP code."""
        return self._frontend.requests

    @property
    def faults(self) -> list[Fault]:
        """Functions of (method, path) that return an HTTP code to fail a request with, or None."""
        return self._frontend.faults

    def write_kubeconfig(self, path: str | Path, namespace: str = "default", *, service_account: str = "") -> Path:
        """Write a kubeconfig of the administrator, or of a service account, and return its path."""
        user = {"token": self.authorizer.admin_token} if self.authorizer.enforced else {}
        if service_account:
            key = Key("", "serviceaccounts", namespace, service_account)
            user = {"token": self.authorizer.issue(key, seconds=86_400)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "double",
            "clusters": [{"name": "double", "cluster": {"server": self.url}}],
            "users": [{"name": "double", "user": user}],
            "contexts": [
                {"name": "double", "context": {"cluster": "double", "user": "double", "namespace": namespace}}
            ],
        }
        path = Path(path)
        path.write_text(json.dumps(config, indent=1) + "\n")
        return path

    # ------------------------------------------------------------------ objects, without HTTP
    def list(
        self, group: str, plural: str, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> list[Obj]:
        return copy.deepcopy(self.api.list(plural, group, namespace or "", labels, fields))

    def get(self, group: str, plural: str, namespace: str | None, name: str) -> Obj:
        return copy.deepcopy(self.api.get(Key(group, plural, namespace or "", name)))

    def create(self, group: str, plural: str, namespace: str | None, body: Obj) -> Obj:
        resource = RESOURCES[(group, plural)]
        whole = without_none({"apiVersion": resource.api_version, "kind": resource.kind, **body})
        validation.check_schema(whole, self._frontend.schema_version)
        return copy.deepcopy(self.api.create(group, plural, namespace or "", whole))

    def patch(
        self, group: str, plural: str, namespace: str | None, name: str, patch: Obj, *, status: bool = False
    ) -> Obj:
        key = Key(group, plural, namespace or "", name)
        return copy.deepcopy(self.api.patch(key, "application/strategic-merge-patch+json", patch, status=status))

    def delete(self, group: str, plural: str, namespace: str | None, name: str, **options: Any) -> Obj:
        """Delete an object; options as those of `Api.delete`."""
        return copy.deepcopy(self.api.delete(Key(group, plural, namespace or "", name), **options))

    def wait(self, look: Callable[[Self], T], timeout: float = 120.0) -> T:
        """Return what `look(self)` gives as soon as it is true. Raises TimeoutError with what there is."""
        end = time.monotonic() + timeout
        while True:
            found = look(self)
            if found:
                return found
            with self.store.changed:
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"not so within {timeout} s; on the double: {self._summary()}")
                self.store.changed.wait(min(left, 0.2))

    # ------------------------------------------------------------------ faults
    def evict(self, namespace: str, pod: str) -> None:
        """Do to a pod what the eviction API does, as when a node is drained."""
        self.api.evict(Key("", "pods", namespace, pod))

    def preempt(self, namespace: str, pod: str) -> None:
        """Do to a pod what the scheduler does to make room for a pod of higher priority."""
        key = Key("", "pods", namespace, pod)
        self.api.event(
            self.api.get(key), "Normal", "Preempted", "Preempted by a pod of higher priority", "default-scheduler"
        )
        self.api.evict(
            key, "PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"
        )

    def lose_node(
        self,
        name: str,
        kubelet: "ProcessKubelet | None" = None,
        *,
        processes: Literal["keep", "stop"] = "keep",
        pod_phase: Literal["Running", "Unknown", "Failed"] = "Running",
        evict_after: float | None = None,
    ) -> None:
        """Lose a node: not ready, unreachable, and its pods not ready with reason NodeLost.

        Args:
            name: The node.
            kubelet: Its kubelet, which then neither reports nor starts nor stops anything there.
            processes: "keep" is a broken network, "stop" a node without power.
            pod_phase: What the pods' phase says. A cluster of today leaves it; older ones and some cloud
                controllers write "Unknown" or "Failed".
            evict_after: Seconds until the pods are marked for deletion, and so counted as failed by their Jobs. None:
                as long as each pod tolerates it, 300 s unless it says otherwise.
        """
        if kubelet is not None:
            kubelet.lose_node(name, processes=processes)
        self._nodes.lose(name, pod_phase=pod_phase, evict_after=evict_after)

    def return_node(self, name: str, kubelet: "ProcessKubelet | None" = None) -> None:
        """Have a lost node back; its kubelet then ends what was deleted meanwhile and reports the rest."""
        self._nodes.find(name)
        if kubelet is not None:
            kubelet.return_node(name)

    def remove_node(self, name: str, kubelet: "ProcessKubelet | None" = None) -> None:
        """Take a node away with its processes: its pods fail (DeletionByPodGC) and go. `return_node` brings it back."""
        if kubelet is not None:
            kubelet.lose_node(name, processes="stop")
        self.api.delete(Key("", "nodes", "", name))

    def cordon(self, name: str, *, unschedulable: bool = True) -> None:
        """Let no new pod on a node, or let them again."""
        patch = {"spec": {"unschedulable": unschedulable or None}}
        self.api.patch(Key("", "nodes", "", name), "application/merge-patch+json", patch)

    def set_quota(self, namespace: str, hard: dict[str, str], name: str = "quota") -> None:
        """Give a namespace a ResourceQuota, or replace it; {"pods": "0"} lets no pod in."""
        key = Key("", "resourcequotas", namespace, name)
        with self.store.lock:
            if self.store.read(key) is None:
                self.api.create("", "resourcequotas", namespace, {"metadata": {"name": name}, "spec": {"hard": hard}})
            else:
                self.api.patch(
                    key, "application/json-patch+json", [{"op": "replace", "path": "/spec/hard", "value": hard}]
                )

    def stop_serving(self) -> None:
        """Drop all connections and refuse new ones, until `serve_again`. The controllers go on."""
        self._service.stop()

    def serve_again(self) -> None:
        if not self._stop.is_set():
            self._service.start()

    def away(self, seconds: float) -> None:
        """Be away for so long: return at once, refuse connections now, and serve again afterwards on the same port."""
        self.stop_serving()
        timer = threading.Timer(seconds, self.serve_again)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Answer each request of a client so much later."""
        before, self._frontend.delay = self._frontend.delay, seconds
        try:
            yield
        finally:
            self._frontend.delay = before

    def fail_requests(self, code: int, *, times: int = 1, method: str = "", path: str = "") -> None:
        """Fail the next requests with an HTTP code: those of a method and with a path that the pattern is found in."""
        left = iter(range(times))
        pattern = re.compile(path)

        def fault(asked: str, where: str) -> int | None:
            if (method and asked != method) or not pattern.search(where):
                return None
            return code if next(left, None) is not None else None

        self.faults.append(fault)

    def forget_changes(self) -> None:
        """Forget past changes as a compaction does: watches from before get 410 Expired."""
        self.store.forget_changes()

    # ------------------------------------------------------------------ inside
    def _control(self) -> None:
        seen = 0
        while not self._stop.is_set():
            with self.store.changed:
                if self.store.revision == seen:
                    self.store.changed.wait(self._tick)
            self._stop.wait(_SETTLE_SECONDS)  # what is written together is looked at once
            try:
                with self.store.lock:
                    seen = self.store.revision
                    for controller in self._controllers:
                        controller.sync()
                    quotas.sync_status(self.store)
            except Exception:  # noqa: BLE001 - shown when the cluster is closed, so that the test fails
                self._failures.append(traceback.format_exc())

    def _wake(self) -> None:
        with self.store.changed:
            self.store.changed.notify_all()

    def _summary(self) -> str:
        lines = []
        for plural, group in (("pods", ""), ("jobs", "batch"), ("nodes", "")):
            for obj in self.store.all(plural, group):
                status = obj.get("status") or {}
                state = status.get("phase") or [
                    c["type"] for c in status.get("conditions") or [] if c["status"] == "True"
                ]
                lines.append(f"{plural[:-1]} {obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}: {state}")
        return "; ".join(lines) or "nothing"
