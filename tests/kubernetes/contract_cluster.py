"""The cluster that the contract suite holds to account: the double, or any cluster named by the environment.

`ML_ASSETS_TEST_KUBECONFIG` is the kubeconfig of a cluster. Its own nodes run the pods then, from the image in
`ML_ASSETS_TEST_IMAGE`, and what needs simulated nodes is skipped. `ML_ASSETS_TEST_CONTROL_PLANE=1` says that it is a
disposable control plane without nodes: the process kubelet joins it, and nothing is skipped that a server can do.
"""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.kubernetes.double import FakeKube, Image, NodeSpec, ProcessKubelet

T = TypeVar("T")
KUBECONFIG = os.environ.get("ML_ASSETS_TEST_KUBECONFIG", "")
GPU_TAINT = {"key": "nvidia.com/gpu", "effect": "NoSchedule", "value": "present"}
HOLD = "trap 'exit 143' TERM; for i in $(seq 3000); do sleep 0.1; done"
"""A command that runs for minutes, and ends at once when it is asked to."""
_IMAGE = "double.test/shell:1"
_WAIT_SECONDS = 120.0


class Cluster:
    """A cluster with one namespace of a test, the calls that tests make, and waits with a reason.

    Attributes:
        kube: The double's control plane; None for another.
        kubelet: The process kubelet; None where a cluster has nodes of its own.
        namespace: The namespace of the present test.
    """

    def __init__(self, kubeconfig: str | Path, kube: FakeKube | None, kubelet: ProcessKubelet | None) -> None:
        from kubernetes import client, config

        configuration = client.Configuration()
        config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
        self.api = client.ApiClient(configuration)
        # The client's own types say of every answer that it may be one of twelve things.
        self.core: Any = client.CoreV1Api(self.api)
        self.batch: Any = client.BatchV1Api(self.api)
        self.scheduling: Any = client.SchedulingV1Api(self.api)
        self.rbac: Any = client.RbacAuthorizationV1Api(self.api)
        self.authorization: Any = client.AuthorizationV1Api(self.api)
        self.kubeconfig, self.kube, self.kubelet = kubeconfig, kube, kubelet
        self.image = _IMAGE if kubelet else os.environ.get("ML_ASSETS_TEST_IMAGE", "busybox:1.37")
        self.namespace = ""

    # ------------------------------------------------------------------ what a test has for itself
    @contextmanager
    def own_namespace(self, labels: dict[str, str] | None = None) -> Iterator[str]:
        """Make a namespace, and remove it with all that is in it."""
        from kubernetes.client import ApiException

        name = f"ml-assets-contract-{uuid.uuid4().hex[:8]}"
        self.core.create_namespace({"metadata": {"name": name, "labels": labels or {}}})
        outer = self.namespace
        try:
            self.until(
                lambda: any(a.metadata.name == "default" for a in self.core.list_namespaced_service_account(name).items)
            )
            self.namespace = name
            yield name
        finally:
            self.namespace = outer
            for pod in self.core.list_namespaced_pod(name).items:
                try:
                    self.core.delete_namespaced_pod(pod.metadata.name, name, grace_period_seconds=0)
                except ApiException as error:
                    if error.status != 404:
                        raise
            try:
                self.core.delete_namespace(name)
            except ApiException as error:
                if error.status not in (404, 409):  # the test did it
                    raise
            if self.kubelet:
                kubelet = self.kubelet
                self.until(lambda: not any(run.namespace == name for run in list(kubelet.running.values())))

    @contextmanager
    def priority_class(self, value: int, **fields: Any) -> Iterator[str]:
        """Make a priority class of the test's own, and remove it."""
        name = f"contract-{value}-{uuid.uuid4().hex[:8]}"
        self.scheduling.create_priority_class({"metadata": {"name": name}, "value": value, **fields})
        try:
            yield name
        finally:
            self.scheduling.delete_priority_class(name)

    def need_nodes(self) -> ProcessKubelet:
        """Return the kubelet of the simulated nodes, or skip the test."""
        if self.kubelet is None:
            pytest.skip("needs the simulated nodes cpu-1 and gpu-1: this cluster has nodes of its own")
        return self.kubelet

    def need_double(self) -> FakeKube:
        if self.kube is None:
            pytest.skip("needs a fault that only the double can make")
        return self.kube

    # ------------------------------------------------------------------ calls
    def job_body(
        self,
        name: str,
        command: str = "true",
        *,
        image: str = "",
        limits: dict[str, str] | None = None,
        requests: dict[str, str] | None = None,
        gpus: int = 0,
        pod: dict[str, Any] | None = None,
        job: dict[str, Any] | None = None,
        container: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return a Job of one container that runs a shell command; `pod`, `job`, `container` add to their specs."""
        all_limits = {**(limits or {}), **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
        resources = {**({"limits": all_limits} if all_limits else {}), **({"requests": requests} if requests else {})}
        spec = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "main",
                    "image": image or self.image,
                    "command": ["sh", "-c", command],
                    "resources": resources,
                    **(container or {}),
                }
            ],
            **({"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]} if gpus else {}),
            **(pod or {}),
        }
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "labels": {"suite": "contract"}},
            "spec": {"backoffLimit": 0, "template": {"spec": spec}, **(job or {})},
        }

    def job(self, name: str, command: str = "true", **fields: Any) -> Any:
        return self.batch.create_namespaced_job(self.namespace, self.job_body(name, command, **fields))

    def waits(self, then: str = "true") -> str:
        """Return a command that waits for `release` and then does something: it runs as long as the test needs it to.

        Where nobody can release it, on a cluster with nodes of its own, it goes on after three seconds.
        """
        tenths = 3000 if self.kubelet else 30
        until = f'until [ -n "$go" ] || [ "$i" -ge {tenths} ]; do sleep 0.1; i=$((i + 1)); done'
        return f"go=; i=0; trap 'go=1' USR1; echo waits; {until}; {then}"

    def waiting_now(self, job: str) -> Any:
        """Wait until a Job's command of `waits` has come to its waiting, and return the pod."""
        pod = self.running(job)
        self.until(lambda: "waits\n" in self.log(job))
        return pod

    def release(self, pod: Any) -> None:
        """Let the command of `waits` in a pod go on."""
        if self.kubelet:
            assert self.kubelet.kill(pod.metadata.name, signal.SIGUSR1)

    def quota(self, **hard: str) -> None:
        """Give the namespace a quota, and wait until it counts."""
        body = {"metadata": {"name": "quota"}, "spec": {"hard": hard}}
        self.core.create_namespaced_resource_quota(self.namespace, body)
        self.until(lambda: self.core.read_namespaced_resource_quota("quota", self.namespace).status.hard)

    def status(self, name: str) -> Any:
        return self.batch.read_namespaced_job_status(name, self.namespace).status

    def pods(self, job: str) -> list[Any]:
        return self.core.list_namespaced_pod(self.namespace, label_selector=f"job-name={job}").items

    def log(self, job: str, **options: Any) -> str:
        [pod] = self.pods(job)
        read = self.core.read_namespaced_pod_log
        return read(pod.metadata.name, self.namespace, _preload_content=False, **options).data.decode()

    # ------------------------------------------------------------------ waits
    def until(self, look: Callable[[], T], seconds: float = _WAIT_SECONDS) -> T:
        """Return what `look()` gives as soon as it is true; fail with the pods of the namespace."""
        end = time.monotonic() + seconds
        while not (found := look()):
            if time.monotonic() > end:
                pods = [(p.metadata.name, p.status.phase) for p in self.core.list_namespaced_pod(self.namespace).items]
                pytest.fail(f"not so within {seconds} s; pods: {pods}; kubelet: {self.kubelet and self.kubelet.errors}")
            time.sleep(0.05)
        return found

    def settled(self, job: str) -> Any:
        """Wait until a Job is complete or has failed, and return its status."""
        self.until(lambda: {"Complete", "Failed"} & set(self.conditions(job)))
        return self.status(job)

    def conditions(self, job: str) -> dict[str, Any]:
        return {c.type: c for c in self.status(job).conditions or [] if c.status == "True"}

    def running(self, job: str) -> Any:
        return self.until(lambda: [pod for pod in self.pods(job) if pod.status.phase == "Running"])[0]

    def event(self, name: str, reason: str) -> Any:
        """Wait for an event about an object, and return it."""
        selector = f"involvedObject.name={name}"

        def look() -> list[Any]:
            events = self.core.list_namespaced_event(self.namespace, field_selector=selector).items
            return [event for event in events if event.reason == reason]

        return self.until(look)[0]

    def unschedulable(self, job: str) -> str:
        """Wait until a pod of the Job could not be placed, and return why."""

        def look() -> list[str]:
            found = [c for pod in self.pods(job) for c in pod.status.conditions or [] if c.type == "PodScheduled"]
            return [c.message for c in found if c.status == "False" and c.reason == "Unschedulable"]

        return self.until(look)[0]

    def waiting(self, job: str, reason: str) -> Any:
        """Wait until a container of the Job waits for this reason, and return the pod."""

        def look() -> list[Any]:
            return [
                pod
                for pod in self.pods(job)
                for state in pod.status.container_statuses or []
                if state.state.waiting and state.state.waiting.reason == reason
            ]

        return self.until(look)[0]


def refused(call: Callable[..., Any], *args: Any, **fields: Any) -> tuple[int, str]:
    """Return code and body of the answer to a call that must not succeed."""
    from kubernetes.client import ApiException

    with pytest.raises(ApiException) as caught:
        call(*args, **fields)
    return caught.value.status or 0, str(caught.value.body)


def nodes() -> Sequence[NodeSpec]:
    return [
        NodeSpec("cpu-1", cpu="4"),
        NodeSpec("gpu-1", cpu="4", gpus=1, labels={"pool": "gpu"}, taints=[GPU_TAINT]),
    ]


@contextmanager
def contract_cluster(folder: Path, *, with_nodes: bool = True) -> Iterator[Cluster]:
    """Yield the cluster that the environment names, or the double, with two nodes or without any."""
    images = {_IMAGE: Image()}
    tls = tuple(filter(None, os.environ.get("ML_ASSETS_TEST_LOG_TLS", "").split(",")))
    if KUBECONFIG and with_nodes and os.environ.get("ML_ASSETS_TEST_CONTROL_PLANE") == "1":
        certificate = (tls[0], tls[1]) if len(tls) == 2 else None
        with ProcessKubelet(KUBECONFIG, nodes(), images, folder, tls=certificate) as kubelet:
            yield Cluster(KUBECONFIG, None, kubelet)
    elif KUBECONFIG:
        yield Cluster(KUBECONFIG, None, None)
    else:
        with FakeKube() as kube:
            kubeconfig = kube.write_kubeconfig(folder / "kubeconfig.json")
            if not with_nodes:
                yield Cluster(kubeconfig, kube, None)
                return
            with ProcessKubelet(kubeconfig, nodes(), images, folder / "node", poll=0.05) as kubelet:
                yield Cluster(kubeconfig, kube, kubelet)
                assert not kubelet.errors, kubelet.errors[0]
