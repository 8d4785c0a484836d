"""The faults that tests ask of the double: each does what a cluster would do, and can be taken back."""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import urllib3.exceptions

from tests.kubernetes.contract_cluster import HOLD, Cluster, nodes, refused
from tests.kubernetes.double import FakeKube, Image, NodeSpec, ProcessKubelet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ON_CPU = {"nodeSelector": {"kubernetes.io/hostname": "cpu-1"}}


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("double")
    with FakeKube() as kube:
        kubeconfig = kube.write_kubeconfig(folder / "kubeconfig.json")
        images = {"double.test/shell:1": Image()}
        with ProcessKubelet(kubeconfig, nodes(), images, folder / "node", poll=0.05, heartbeat=0.5) as kubelet:
            yield Cluster(kubeconfig, kube, kubelet)
            assert not kubelet.errors, kubelet.errors[0]


@pytest.fixture
def k(double: Cluster) -> Iterator[Cluster]:
    with double.own_namespace():
        yield double


@pytest.fixture
def kube(double: Cluster) -> FakeKube:
    return double.need_double()


@pytest.fixture
def kubelet(double: Cluster) -> ProcessKubelet:
    return double.need_nodes()


def _end(k: Cluster, job: str) -> tuple[int, str]:
    [pod] = k.pods(job)
    ended = pod.status.container_statuses[0].state.terminated
    return ended.exit_code, ended.reason


# ---------------------------------------------------------------------- containers and pods


def test_a_killed_container_ends_with_137(k: Cluster, kubelet: ProcessKubelet) -> None:
    k.job("killed", HOLD)
    assert kubelet.kill(k.running("killed").metadata.name)
    assert k.settled("killed").failed == 1
    assert _end(k, "killed") == (137, "Error")
    assert not kubelet.kill("no-such-pod")


def test_an_oom_kill_says_so(k: Cluster, kubelet: ProcessKubelet) -> None:
    k.job("oom", HOLD)
    kubelet.oom_kill(k.running("oom").metadata.name)
    assert k.settled("oom").failed == 1
    assert _end(k, "oom") == (137, "OOMKilled")


def test_a_node_short_of_memory_evicts_and_leaves_the_pod_object(k: Cluster, kubelet: ProcessKubelet) -> None:
    k.job("short", HOLD)
    kubelet.evict(k.running("short").metadata.name)
    assert k.settled("short").failed == 1
    [pod] = k.pods("short")
    assert (pod.status.phase, pod.status.reason) == ("Failed", "Evicted")
    assert pod.status.message == "The node was low on resource: memory. "
    assert [c.reason for c in pod.status.conditions if c.type == "DisruptionTarget"] == ["TerminationByKubelet"]


def test_a_preempted_pod_ends_like_a_victim_of_the_scheduler(k: Cluster, kube: FakeKube) -> None:
    k.job("victim", HOLD)
    name = k.running("victim").metadata.name
    kube.preempt(k.namespace, name)
    assert k.settled("victim").failed == 1
    assert "higher priority" in k.event(name, "Preempted").message


def test_an_image_can_be_broken_and_mended(k: Cluster, kubelet: ProcessKubelet) -> None:
    kubelet.break_image(k.image)
    k.job("pull")
    pod = k.waiting("pull", "ImagePullBackOff")
    assert "Back-off: failed to pull image" in k.event(pod.metadata.name, "BackOff").message
    kubelet.mend_image(k.image)
    assert k.settled("pull").succeeded == 1


def test_a_quota_can_be_closed_and_opened(k: Cluster, kube: FakeKube) -> None:
    kube.set_quota(k.namespace, {"pods": "0"})
    k.job("held")
    assert (
        "exceeded quota: quota, requested: pods=1, used: pods=0, limited: pods=0"
        in k.event("held", "FailedCreate").message
    )
    kube.set_quota(k.namespace, {"pods": "1"})
    assert k.settled("held").succeeded == 1


# ---------------------------------------------------------------------- nodes


@pytest.fixture
def back(kube: FakeKube, kubelet: ProcessKubelet) -> Iterator[None]:
    """Have cpu-1 back whatever a test did to it."""
    yield
    kube.return_node("cpu-1", kubelet)
    kube.wait(lambda kube: kube.list("", "nodes", fields="metadata.name=cpu-1"))
    kube.cordon("cpu-1", unschedulable=False)


def _ready(k: Cluster, name: str) -> str:
    return next(c.status for c in k.core.read_node(name).status.conditions if c.type == "Ready")


@pytest.mark.usefixtures("back")
def test_a_cordoned_node_takes_no_new_pod(k: Cluster, kube: FakeKube) -> None:
    kube.cordon("cpu-1")
    k.job("new", pod=ON_CPU)
    assert "1 node(s) were unschedulable" in k.unschedulable("new")
    kube.cordon("cpu-1", unschedulable=False)
    assert k.settled("new").succeeded == 1


@pytest.mark.usefixtures("back")
def test_a_lost_node_keeps_its_process_and_its_pod_ends_when_it_returns(
    k: Cluster, kube: FakeKube, kubelet: ProcessKubelet
) -> None:
    k.job("lost", HOLD, pod=ON_CPU)
    name = k.running("lost").metadata.name
    kube.lose_node("cpu-1", kubelet, evict_after=0.8)  # longer than a heartbeat
    assert _ready(k, "cpu-1") == "Unknown"
    pod = k.core.read_namespaced_pod(name, k.namespace)
    assert (pod.status.phase, pod.status.reason) == ("Running", "NodeLost")
    # Counted as failed by its deletion timestamp. Nobody can say that it ended, so the Job is not finished either.
    status = k.until(lambda: k.status("lost").failed == 1 and k.status("lost"))
    assert set(k.conditions("lost")) == {"FailureTarget"}
    assert status.terminating == 1
    pod = k.core.read_namespaced_pod(name, k.namespace)
    assert pod.metadata.deletion_timestamp
    assert pod.status.phase == "Running"
    assert kubelet.pids()
    assert _ready(k, "cpu-1") == "Unknown"
    kube.return_node("cpu-1", kubelet)
    k.until(lambda: not k.pods("lost") and not kubelet.pids())
    assert k.settled("lost").failed == 1
    k.until(lambda: _ready(k, "cpu-1") == "True")


@pytest.mark.usefixtures("back")
def test_a_node_that_returns_in_time_goes_on(k: Cluster, kube: FakeKube, kubelet: ProcessKubelet) -> None:
    k.job("short", k.waits(then="echo done"), pod=ON_CPU)
    pod = k.waiting_now("short")
    kube.lose_node("cpu-1", kubelet, pod_phase="Unknown")
    assert k.pods("short")[0].status.phase == "Unknown"
    k.release(pod)
    k.until(lambda: not kubelet.running)
    time.sleep(0.5)
    assert not k.status("short").succeeded  # it has ended, and nobody can tell
    kube.return_node("cpu-1", kubelet)
    assert k.settled("short").succeeded == 1
    assert k.log("short") == "waits\ndone\n"
    assert not k.pods("short")[0].status.reason


@pytest.mark.usefixtures("back")
def test_a_node_without_power_stops_its_processes(k: Cluster, kube: FakeKube, kubelet: ProcessKubelet) -> None:
    k.job("dead", HOLD, pod=ON_CPU)
    k.running("dead")
    kube.lose_node("cpu-1", kubelet, processes="stop", pod_phase="Failed")
    k.until(lambda: not kubelet.pids())  # a process that was killed is there for a moment yet
    assert k.settled("dead").failed == 1
    [pod] = k.pods("dead")
    assert (pod.status.phase, pod.status.reason) == ("Failed", "NodeLost")


@pytest.mark.usefixtures("back")
def test_a_removed_node_takes_its_pods_along(k: Cluster, kube: FakeKube, kubelet: ProcessKubelet) -> None:
    k.job("gone", HOLD, job={"backoffLimit": 1}, pod=ON_CPU)
    first = k.running("gone").metadata.name
    kube.remove_node("cpu-1", kubelet)
    k.until(lambda: k.status("gone").failed == 1 and first not in [pod.metadata.name for pod in k.pods("gone")])
    assert "untolerated taint" in k.unschedulable("gone")  # the replacement finds only gpu-1
    kube.return_node("cpu-1", kubelet)
    k.running("gone")


# ---------------------------------------------------------------------- the API server


def _answers(kube: FakeKube) -> bool:
    with suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(f"{kube.url}/healthz", timeout=5):  # noqa: S310
        return True
    return False


def test_an_api_server_that_is_away_comes_back_on_its_port(k: Cluster, kube: FakeKube, kubelet: ProcessKubelet) -> None:
    k.job("meanwhile", k.waits(then="echo done"))
    pod = k.waiting_now("meanwhile")
    port = kube.port
    kube.stop_serving()
    try:
        with pytest.raises(urllib.error.URLError, match="Connection refused"):
            urllib.request.urlopen(f"{kube.url}/healthz", timeout=5)  # noqa: S310
        with pytest.raises(urllib3.exceptions.HTTPError):  # a connection that was open is of no use either
            k.core.list_namespaced_pod(k.namespace)
        assert len(kubelet.running) == 1
        k.release(pod)
        kube.wait(lambda _: not kubelet.running, timeout=120)
    finally:
        kube.serve_again()
    assert kube.port == port
    assert k.settled("meanwhile").succeeded == 1
    assert k.log("meanwhile") == "waits\ndone\n"


def test_an_absence_has_its_length(kube: FakeKube) -> None:
    began = time.monotonic()
    kube.away(1.0)
    kube.wait(_answers, timeout=120)
    assert time.monotonic() - began >= 1.0


def test_an_absence_ends_watches(k: Cluster, kube: FakeKube) -> None:
    from kubernetes import watch

    k.core.create_namespaced_config_map(k.namespace, {"metadata": {"name": "there"}})
    seen: list[str] = []

    def look() -> None:
        stream: Any = watch.Watch().stream(k.core.list_namespaced_config_map, k.namespace, timeout_seconds=300)
        with suppress(Exception):  # the client's error differs with the moment; that it ends is what counts
            seen.extend(event["object"].metadata.name for event in stream)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    k.until(lambda: seen)
    assert watcher.is_alive()
    kube.stop_serving()
    watcher.join(120)
    kube.serve_again()
    assert not watcher.is_alive()
    assert seen == ["there"]


def _seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_a_slow_api_server_answers_later(k: Cluster, kube: FakeKube) -> None:
    def ask() -> object:
        return k.core.list_namespaced_pod(k.namespace)

    with kube.slow(0.4):
        assert _seconds(ask) >= 0.4
    k.until(lambda: _seconds(ask) < 0.4)


def test_requests_can_be_failed_by_kind(k: Cluster, kube: FakeKube) -> None:
    kube.fail_requests(503, times=2, method="POST", path="/jobs$")
    assert refused(k.job, "first")[0] == 503
    k.core.list_namespaced_pod(k.namespace)
    assert refused(k.job, "second")[0] == 503
    k.job("third")
    assert [
        code for method, path, code in kube.requests if method == "POST" and path.endswith(f"{k.namespace}/jobs")
    ] == [
        503,
        503,
        201,
    ]


def test_a_controller_that_fails_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("in a controller")

    kube = FakeKube(tick=0.05)
    monkeypatch.setattr(kube._controllers[0], "sync", fail)
    with pytest.raises(RuntimeError, match="in a controller"), kube:
        kube.wait(lambda kube: kube._failures)


def test_nodes_of_one_kubelet_share_no_gpu(tmp_path: Any) -> None:
    specs = [NodeSpec("one", gpus=1), NodeSpec("two", gpus=2)]
    with FakeKube() as kube:
        kubeconfig = kube.write_kubeconfig(tmp_path / "kubeconfig.json")
        with ProcessKubelet(kubeconfig, specs, {"*": Image()}, tmp_path / "node", poll=0.05) as kubelet:
            k = Cluster(kubeconfig, kube, kubelet)
            with k.own_namespace():
                for number in range(3):
                    k.job(f"job-{number}", k.waits(), gpus=1)
                pods = [k.waiting_now(f"job-{number}") for number in range(3)]
                k.job("job-3", gpus=1)
                assert "Insufficient nvidia.com/gpu" in k.unschedulable("job-3")
                for pod in pods:
                    k.release(pod)
                for number in range(4):
                    assert k.settled(f"job-{number}").succeeded == 1
    assert kubelet.max_gpu_in_use == {"one": 1, "two": 2}
