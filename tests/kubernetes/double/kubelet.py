"""`ProcessKubelet`: nodes whose containers are processes of this machine, with the faults of nodes as methods.

It speaks only the public REST API, so it serves a real API server too. There is no isolation whatever: an image is a
PATH, a working directory and variables. Volumes, probes and sidecars are not there.
"""

import os
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from tests.kubernetes.double import processes
from tests.kubernetes.double.containers import ContainerRun, Image, PodRun
from tests.kubernetes.double.kubelet_logs import log_service
from tests.kubernetes.double.node_spec import NodeSpec, node_object, node_status
from tests.kubernetes.double.objects import ApiError, Obj, is_finished, is_terminating
from tests.kubernetes.double.pod_environment import PodEnvironment
from tests.kubernetes.double.pod_starting import NotYetError, PodStarter
from tests.kubernetes.double.reports import Reports, container_waiting
from tests.kubernetes.double.rest import MERGE, Rest, UnreachableError

_SAMPLE_SECONDS = 0.3


class ProcessKubelet:
    """Runs the pods of its nodes. Use it as a context manager; at its end every process it started is gone.

    Args:
        kubeconfig: The API server, with an administrator's credentials.
        nodes: The nodes that it registers.
        images: What the names of images stand for; the name "*" stands for all others.
        workdir: Folder for logs and kubeconfigs of pods, and the default working directory.
        poll: Seconds between two looks at the API server and the processes.
        tls: Certificate and key for its log endpoint; a real API server speaks HTTPS to it.
        base_env: Variables of every container; None is a plain PATH, HOME and LANG.
        path_map: Values of variables that are replaced: what a path inside the image is on this machine.
        heartbeat: Seconds between two reports of a node's status.
        restart_delay: Seconds before a container that ended is started again, doubled each time; a cluster has 10.

    Attributes:
        running: The pods that it has taken on, by uid.
        history: One entry for each container that ended: pod, labels, node, gpus, exit, reason, start and end
            (time.monotonic), peak_rss (bytes), cpu (seconds).
    """

    def __init__(
        self,
        kubeconfig: str | Path,
        nodes: Sequence[NodeSpec],
        images: Mapping[str, Image],
        workdir: str | Path,
        *,
        poll: float = 0.1,
        tls: tuple[str, str] | None = None,
        base_env: Mapping[str, str] | None = None,
        path_map: Mapping[str, str] | None = None,
        heartbeat: float = 10.0,
        restart_delay: float = 0.3,
    ) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.root = Path(workdir)
        self.root.mkdir(parents=True, exist_ok=True)
        self.poll, self.heartbeat = poll, heartbeat
        self.running: dict[str, PodRun] = {}
        self.history: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._id = uuid.uuid4().hex
        self._rest = Rest(kubeconfig)
        self._reports = Reports(self._rest)
        base = {"PATH": os.defpath, "HOME": str(self.root), "LANG": "C.UTF-8"} if base_env is None else base_env
        environment = PodEnvironment(self._rest, self._rest.host, self.root / "kubeconfigs", base, path_map or {})
        self._starter = PodStarter(
            self._id, list(nodes), dict(images), environment, self.root, self.log_path, restart_delay=restart_delay
        )
        self._logs = log_service(self.log_path, self._is_running, tls)
        self._done: set[str] = set()
        self._lost: dict[str, str] = {}
        self._lock = threading.RLock()  # the pods
        self._turn = threading.Lock()  # one look at the API server, with what follows
        self._stop = threading.Event()
        self._next_beat = self._next_sample = 0.0
        self._thread = threading.Thread(target=self._loop, name="double-kubelet", daemon=True)
        self._guard: processes.Guard | None = None

    # ------------------------------------------------------------------ life
    def __enter__(self) -> Self:
        self._guard = processes.Guard(self._id)
        self._logs.start()
        for node in self.nodes.values():
            self._register(node)
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the nodes as a power cut does: every process is killed, nothing more is reported."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(20)
        with self._lock:
            for run in self.running.values():
                run.kill()
                for container in run.all:
                    if container.process is not None:
                        container.process.wait()
            processes.kill_marked(self._id)
        self._logs.close()
        self._rest.close()
        if self._guard is not None:
            self._guard.close()

    # ------------------------------------------------------------------ faults and looks
    @property
    def max_gpu_in_use(self) -> dict[str, int]:
        """By node, the most GPUs that were in use at once."""
        return self._starter.max_gpu_in_use

    def kill(self, pod_name: str, sig: int = signal.SIGKILL, reason: str | None = None) -> bool:
        """Kill a pod's containers (exit code 137). Returns False when no such pod runs here.

        Args:
            pod_name: The pod.
            sig: Another signal goes to the main process alone.
            reason: What the containers' status gives as reason; None is "Error".
        """
        with self._lock:
            for run in self.running.values():
                if run.name == pod_name and run.alive:
                    run.kill(reason, sig)
                    return True
        return False

    def oom_kill(self, pod_name: str) -> bool:
        """Kill a pod's containers as the kernel does when memory is short: exit code 137, reason OOMKilled."""
        return self.kill(pod_name, reason="OOMKilled")

    def evict(self, pod_name: str, resource: str = "memory") -> bool:
        """End a pod because its node is short of a resource: phase Failed, reason Evicted; the pod object stays."""
        with self._lock:
            for run in self.running.values():
                if run.name == pod_name and not run.reason:
                    run.reason, run.message = "Evicted", f"The node was low on resource: {resource}. "
                    self._reports.event(run.pod, "Warning", "Evicted", run.message)
                    run.kill()
                    return True
        return False

    def lose_node(self, name: str, *, processes: Literal["keep", "stop"] = "keep") -> None:
        """Cut a node off: nothing is reported, started or ended there; its processes go on, or stop at once."""
        with self._turn, self._lock:  # no report may be under way
            self._lost[self.nodes[name].name] = processes
            for run in self.running.values():
                if run.node == name and processes == "stop":
                    run.kill()

    def return_node(self, name: str) -> None:
        """Connect a lost node again."""
        with self._turn, self._lock:
            self._lost.pop(name, None)
            self._next_beat = 0.0
            for run in self.running.values():
                self._reports.forget(run.pod)

    def break_image(self, image: str) -> None:
        """Let pulls of an image fail (ErrImagePull, ImagePullBackOff) until `mend_image`."""
        self._starter.broken.add(image)

    def mend_image(self, image: str) -> None:
        self._starter.broken.discard(image)

    def log_path(self, namespace: str, pod: str, container: str) -> Path:
        return self.root / "logs" / namespace / pod / f"{container}.log"

    def pids(self) -> list[int]:
        """Return all processes that containers of this kubelet have now."""
        return processes.marked(self._id)

    # ------------------------------------------------------------------ the loop
    def _loop(self) -> None:
        while not self._stop.is_set():
            with self._turn:
                try:
                    self._step()
                except UnreachableError:
                    self._advance({})  # processes go on while the API server is away
                except Exception:  # noqa: BLE001 - one pod must not stop the others; tests look at `errors`
                    self.errors.append(traceback.format_exc())
            self._stop.wait(self.poll)

    def _step(self) -> None:
        if time.monotonic() >= self._next_beat:
            self._beat()
        pods = {pod["metadata"]["uid"]: pod for pod in self._rest("GET", "/api/v1/pods")["items"]}
        mine = {uid: pod for uid, pod in pods.items() if pod["spec"].get("nodeName") in self.nodes}
        with self._lock:
            for uid, pod in mine.items():
                if pod["spec"]["nodeName"] not in self._lost:
                    self._sync(uid, pod)
            for uid, run in self.running.items():
                if uid not in mine and run.node not in self._lost:
                    run.kill()  # deleted without grace
            self._advance(mine)
        for uid, run in list(self.running.items()):
            if uid in mine and run.node not in self._lost:
                self._reports.status(run.pod, run.status())
        self._reports.flush({name for name in self.nodes if name not in self._lost})

    def _beat(self) -> None:
        self._next_beat = time.monotonic() + self.heartbeat
        for node in self.nodes.values():
            if node.name in self._lost:
                continue
            status = {"status": node_status(node, self._logs.port)}
            try:
                self._rest("PATCH", f"/api/v1/nodes/{node.name}/status", status, MERGE)
            except ApiError as error:
                if error.code != 404:
                    raise
                self._register(node)  # somebody removed the node, and it is still here
                self._next_beat = 0.0

    def _register(self, node: NodeSpec) -> None:
        body = node_object(node, self._logs.url)
        try:
            self._rest("POST", "/api/v1/nodes", body)
        except ApiError as error:
            if error.code != 409:
                raise
            self._rest("PATCH", f"/api/v1/nodes/{node.name}", body, MERGE)  # of a kubelet before this one

    def _sync(self, uid: str, pod: Obj) -> None:
        run = self.running.get(uid)
        if run is not None:
            run.pod = pod
            if is_terminating(pod):
                if run.terminating_at is None:
                    self._reports.event(pod, "Normal", "Killing", "Stopping containers")
                run.stop()
                run.press()
            elif is_finished(pod) and not self._reports.is_pending(uid):
                run.kill()  # somebody else has declared it finished
            return
        if is_terminating(pod):
            self._reports.gone(pod)
        elif uid not in self._done and not is_finished(pod):
            self._take_on(uid, pod)

    def _take_on(self, uid: str, pod: Obj) -> None:
        try:
            run = self._starter.prepare(pod)
        except NotYetError as reason:
            self._wait(pod, reason)
            return
        if run is not None:
            self.running[uid] = run
            self._reports.taken_on(uid)
            self._reports.event(pod, "Normal", "Started", f"Started containers of pod {run.name}")

    def _wait(self, pod: Obj, why: NotYetError) -> None:
        """Report that a pod's containers cannot start yet; a pull that failed is tried again later, and says so."""
        uid, reason, message = pod["metadata"]["uid"], why.reason, str(why)
        if reason == "ErrImagePull" and self._reports.waiting_for(uid) in ("ErrImagePull", "ImagePullBackOff"):
            reason, message = "ImagePullBackOff", f"Back-off: {message}"
        if self._reports.waiting_for(uid) != reason:
            self._reports.event(pod, "Warning", "BackOff" if reason == "ImagePullBackOff" else "Failed", message)
            self._reports.wait(uid, reason)
        containers = [container_waiting(container, reason, message) for container in pod["spec"]["containers"]]
        self._reports.status(pod, {"phase": "Pending", "containerStatuses": containers})

    def _advance(self, mine: Mapping[str, Obj]) -> None:
        with self._lock:
            self._measure()
            for uid, run in list(self.running.items()):
                deadline = run.pod["spec"].get("activeDeadlineSeconds")
                if deadline and not run.reason and time.monotonic() - run.taken_at > deadline:
                    run.reason, run.message = (
                        "DeadlineExceeded",
                        "Pod was active on the node longer than the specified deadline",
                    )
                    run.kill()
                for container in run.advance():
                    self._remember(run, container)
                if run.phase in ("Succeeded", "Failed") and not run.alive:
                    self._finish(uid, run, known=not mine or uid in mine)

    def _finish(self, uid: str, run: PodRun, *, known: bool) -> None:
        """Give the pod's GPUs back and report its end."""
        self._starter.release(run)
        del self.running[uid]
        self._done.add(uid)
        if known:
            self._reports.status(run.pod, run.status())

    def _remember(self, run: PodRun, container: ContainerRun) -> None:
        end = container.ended or {}
        self.history.append(
            {
                "namespace": run.namespace,
                "pod": run.name,
                "labels": run.pod["metadata"].get("labels") or {},
                "node": run.node,
                "container": container.name,
                "gpus": list(container.gpus),
                "exit": end.get("exitCode"),
                "reason": end.get("reason"),
                "start": container.started_at,
                "end": time.monotonic(),
                "peak_rss": container.peak_resident,
                "cpu": container.cpu,
            }
        )

    def _measure(self) -> None:
        """Note memory and CPU time of the containers, and kill those over their limit of memory."""
        if time.monotonic() < self._next_sample or not self.running:
            return
        self._next_sample = time.monotonic() + _SAMPLE_SECONDS
        everything = processes.table()
        for run in self.running.values():
            for container in run.alive:
                assert container.process is not None
                used = processes.usage(container.process.pid, everything)
                container.peak_resident = max(container.peak_resident, used.resident)
                container.cpu = max(container.cpu, used.cpu)
                limit = container.memory_limit
                # Forked processes share pages: only what they hold together counts against the limit.
                if limit and used.resident > limit and processes.proportional(used.pids) > limit:
                    container.kill("OOMKilled")

    def _is_running(self, namespace: str, pod: str) -> bool:
        with self._lock:
            return any((run.namespace, run.name) == (namespace, pod) for run in self.running.values())
