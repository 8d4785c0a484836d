"""The contract of pods: what keeps one from being made, what it waits for, and where it runs.

See `contract_cluster.py` for how to point it at a cluster.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kubernetes.contract_cluster import HOLD, Cluster, contract_cluster, refused

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with contract_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def k(cluster: Cluster) -> Iterator[Cluster]:
    with cluster.own_namespace():
        yield cluster


# ---------------------------------------------------------------------- Jobs without a pod


def test_a_missing_service_account_is_told_by_an_event_alone(k: Cluster) -> None:
    k.job("nosa", pod={"serviceAccountName": "ghost"})
    assert 'serviceaccount "ghost" not found' in k.event("nosa", "FailedCreate").message
    status = k.status("nosa")
    assert not k.pods("nosa")
    assert not status.failed
    assert not status.active


def test_a_missing_priority_class_is_told_by_an_event_alone(k: Cluster) -> None:
    k.job("nopc", pod={"priorityClassName": "ghost"})
    assert "no PriorityClass with name ghost was found" in k.event("nopc", "FailedCreate").message
    assert not k.pods("nopc")
    assert not k.status("nopc").failed


def test_a_quota_on_gpus_holds_back_pods_not_jobs(k: Cluster) -> None:
    k.need_nodes()
    k.quota(**{"requests.nvidia.com/gpu": "1"})
    k.job("q1", HOLD, gpus=1)
    first = k.running("q1")
    k.job("q2", gpus=1)
    gpu = "requests.nvidia.com/gpu=1"
    told = f"exceeded quota: quota, requested: {gpu}, used: {gpu}, limited: {gpu}"
    assert told in k.event("q2", "FailedCreate").message
    status = k.status("q2")
    assert not k.pods("q2")
    assert not status.failed
    assert not status.active
    k.core.delete_namespaced_pod(first.metadata.name, k.namespace)
    assert k.settled("q2").succeeded == 1  # the controller tries again by itself


def test_a_quota_demands_that_pods_say_what_they_need(k: Cluster) -> None:
    k.quota(**{"requests.cpu": "2", "limits.memory": "1Gi"})
    k.job("noreq")
    told = "failed quota: quota: must specify limits.memory for: main; requests.cpu for: main"
    assert told in k.event("noreq", "FailedCreate").message
    k.job("withreq", limits={"memory": "64Mi"}, requests={"cpu": "100m"})
    assert k.settled("withreq").succeeded == 1


def test_a_limit_range_fills_in_and_caps(k: Cluster) -> None:
    k.quota(**{"requests.cpu": "2", "requests.memory": "1Gi"})
    limit = {
        "type": "Container",
        "defaultRequest": {"cpu": "250m", "memory": "64Mi"},
        "default": {"memory": "128Mi"},
        "max": {"memory": "512Mi"},
    }
    body = {"metadata": {"name": "limits"}, "spec": {"limits": [limit]}}
    k.core.create_namespaced_limit_range(k.namespace, body)
    if not k.kube:
        time.sleep(1)  # a server's admission reads LimitRanges from a cache
    k.job("small")
    assert k.settled("small").succeeded == 1
    resources = k.pods("small")[0].spec.containers[0].resources
    assert resources.requests == {"cpu": "250m", "memory": "64Mi"}
    assert resources.limits == {"memory": "128Mi"}
    k.job("big", limits={"memory": "1Gi"})
    message = k.event("big", "FailedCreate").message
    assert "maximum memory usage per Container is 512Mi, but limit is 1Gi" in message


def test_a_restricted_namespace_takes_no_pod_that_may_gain_rights(k: Cluster) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    k.core.patch_namespace(k.namespace, {"metadata": {"labels": labels}})
    k.job("loose")
    message = k.event("loose", "FailedCreate").message
    assert 'violates PodSecurity "restricted:latest"' in message
    for rule in (
        "allowPrivilegeEscalation != false",
        "unrestricted capabilities",
        "runAsNonRoot != true",
        "seccompProfile",
    ):
        assert rule in message
    own = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    whole = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    k.job("strict", container={"securityContext": own}, pod={"securityContext": whole})
    assert k.settled("strict").succeeded == 1
    k.job("root", container={"securityContext": own}, pod={"securityContext": {**whole, "runAsNonRoot": False}})
    assert "runAsNonRoot != true" in k.event("root", "FailedCreate").message


# ---------------------------------------------------------------------- pods that wait


def test_an_image_that_cannot_be_pulled_never_fails_the_job(k: Cluster) -> None:
    k.job("noimg", image="double.test/missing:1")
    pod = k.waiting("noimg", "ImagePullBackOff")
    status = k.status("noimg")
    assert status.active == 1
    assert not status.failed
    assert refused(k.core.read_namespaced_pod_log, pod.metadata.name, k.namespace)[0] == 400


def test_a_missing_secret_holds_the_container_until_it_is_there(k: Cluster) -> None:
    source = {"secretKeyRef": {"name": "secret", "key": "a"}}
    k.job("cfg", "echo $A", container={"env": [{"name": "A", "valueFrom": source}]})
    k.waiting("cfg", "CreateContainerConfigError")
    k.core.create_namespaced_secret(k.namespace, {"metadata": {"name": "secret"}, "stringData": {"a": "value"}})
    assert k.settled("cfg").succeeded == 1
    assert k.log("cfg") == "value\n"


def test_the_environment_of_a_pod_comes_from_many_places(k: Cluster) -> None:
    k.core.create_namespaced_config_map(k.namespace, {"metadata": {"name": "map"}, "data": {"B": "from-map"}})
    env = [
        {"name": "A", "value": "plain"},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "BOTH", "value": "$(A)/$(POD)/$$(A)"},
    ]
    k.job("env", "echo $BOTH $B $1", container={"env": env, "envFrom": [{"configMapRef": {"name": "map"}}]})
    assert k.settled("env").succeeded == 1
    assert k.log("env") == f"plain/{k.pods('env')[0].metadata.name}/$(A) from-map\n"


def test_init_containers_run_first_and_their_failure_is_the_pods(k: Cluster) -> None:
    def init(command: str) -> list[dict[str, Any]]:
        return [{"name": "first", "image": k.image, "command": ["sh", "-c", command]}]

    k.job("init", "echo main", pod={"initContainers": init("echo init")})
    k.job("noinit", "echo main", pod={"initContainers": init("exit 4")})
    assert k.settled("init").succeeded == 1
    assert k.settled("noinit").failed == 1
    assert (k.log("init", container="first"), k.log("init")) == ("init\n", "main\n")
    [pod] = k.pods("noinit")
    assert pod.status.init_container_statuses[0].state.terminated.exit_code == 4
    assert not pod.status.container_statuses[0].state.terminated


# ---------------------------------------------------------------------- scheduling


def test_limits_become_requests_of_the_pod(k: Cluster) -> None:
    k.need_nodes()
    job = k.job("lim", limits={"cpu": "1", "memory": "64Mi"}, gpus=1)
    assert job.spec.template.spec.containers[0].resources.requests is None  # the Job is left as it is
    k.settled("lim")
    [pod] = k.pods("lim")
    assert pod.spec.containers[0].resources.requests == {"cpu": "1", "memory": "64Mi", "nvidia.com/gpu": "1"}
    assert pod.spec.node_name == "gpu-1"
    assert pod.status.qos_class == "Guaranteed"


def test_one_gpu_serves_one_pod_at_a_time(k: Cluster) -> None:
    kubelet = k.need_nodes()
    k.job("g1", k.waits(), gpus=1)
    first = k.waiting_now("g1")
    k.job("g2", "echo $CUDA_VISIBLE_DEVICES", gpus=1)
    assert "Insufficient nvidia.com/gpu" in k.unschedulable("g2")
    k.release(first)
    assert k.settled("g1").succeeded
    assert k.settled("g2").succeeded
    assert k.log("g2") == "0\n"
    ended = {h["pod"].rsplit("-", 1)[0]: h for h in kubelet.history if h["namespace"] == k.namespace}
    assert ended["g1"]["end"] <= ended["g2"]["start"]
    assert ended["g1"]["gpus"] == ended["g2"]["gpus"] == [0]


def test_taints_selectors_and_affinity_choose_the_node(k: Cluster) -> None:
    k.need_nodes()
    k.job("sel", pod={"nodeSelector": {"pool": "gpu"}})  # without a toleration
    why = k.unschedulable("sel")
    assert "untolerated taint" in why
    assert "didn't match Pod's node affinity/selector" in why
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Equal", "value": "present", "effect": "NoSchedule"}]
    k.job("tol", pod={"nodeSelector": {"pool": "gpu"}, "tolerations": tolerations})
    expression = {"key": "pool", "operator": "NotIn", "values": ["gpu"]}
    term = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    k.job("aff", pod={"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}})
    assert k.settled("tol").succeeded == 1
    assert k.pods("tol")[0].spec.node_name == "gpu-1"
    assert k.settled("aff").succeeded == 1
    assert k.pods("aff")[0].spec.node_name == "cpu-1"


def test_an_event_of_a_waiting_pod_names_what_is_missing(k: Cluster) -> None:
    k.job("big", limits={"cpu": "640"})
    pod = k.until(lambda: k.pods("big"))[0]
    event = k.event(pod.metadata.name, "FailedScheduling")
    assert event.type == "Warning"
    assert "nodes are available:" in event.message
    assert "Insufficient cpu" in event.message


def test_a_pod_of_higher_priority_takes_the_place_of_a_lower_one(k: Cluster) -> None:
    k.need_nodes()
    with k.priority_class(100) as low, k.priority_class(1000) as high:
        k.job("low", HOLD, gpus=1, pod={"priorityClassName": low})
        victim = k.running("low")
        assert victim.spec.priority == 100
        k.job("high", gpus=1, pod={"priorityClassName": high})
        assert k.settled("high").succeeded == 1
        status = k.settled("low")
        assert status.failed == 1
        assert not status.active
        assert "Preempted" in k.event(victim.metadata.name, "Preempted").message


def test_a_class_that_never_preempts_waits_its_turn(k: Cluster) -> None:
    k.need_nodes()
    with k.priority_class(100) as low, k.priority_class(1000, preemptionPolicy="Never") as polite:
        k.job("low", k.waits(), gpus=1, pod={"priorityClassName": low})
        first = k.waiting_now("low")
        k.job("wait", gpus=1, pod={"priorityClassName": polite})
        assert "Insufficient nvidia.com/gpu" in k.unschedulable("wait")
        k.release(first)
        assert k.settled("low").succeeded == 1
        assert k.settled("wait").succeeded == 1
