"""The contract of Jobs: how they end, what replaces their pods, and what goes with them.

See `contract_cluster.py` for how to point it at a cluster.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kubernetes.contract_cluster import HOLD, Cluster, contract_cluster, refused

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DISRUPTION = [{"type": "DisruptionTarget", "status": "True"}]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with contract_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def k(cluster: Cluster) -> Iterator[Cluster]:
    with cluster.own_namespace():
        yield cluster


def _failed_because(status: Any) -> list[str]:
    return [condition.reason for condition in status.conditions if condition.type == "Failed"]


# ---------------------------------------------------------------------- how Jobs end


def test_a_job_that_succeeds_is_complete_and_its_pod_has_logs(k: Cluster) -> None:
    k.job("ok", "echo hello; echo on $HOSTNAME")

    status = k.settled("ok")

    assert (status.succeeded, status.failed, status.active) == (1, None, None)
    assert status.start_time
    assert status.completion_time
    [pod] = k.pods("ok")
    assert pod.status.phase == "Succeeded"
    assert pod.metadata.name.startswith("ok-")
    assert pod.metadata.owner_references[0].kind == "Job"
    assert pod.metadata.owner_references[0].controller
    names = {"job-name", "controller-uid", "batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid"}
    assert names <= set(pod.metadata.labels)
    assert k.log("ok") == f"hello\non {pod.metadata.name}\n"
    assert k.log("ok", tail_lines=1) == f"on {pod.metadata.name}\n"
    stamped = k.log("ok", timestamps=True, follow=True).splitlines()
    assert len(stamped) == 2
    assert all(line.split(" ", 1)[0].endswith("Z") for line in stamped)


def test_a_log_is_followed_to_its_end(k: Cluster) -> None:
    k.job("talk", k.waits(then="echo 1; sleep 0.3; echo 2"))
    pod = k.waiting_now("talk")
    read = k.core.read_namespaced_pod_log
    lines = iter(read(pod.metadata.name, k.namespace, follow=True, _preload_content=False))
    assert next(lines) == b"waits\n"
    k.release(pod)
    assert list(lines) == [b"1\n", b"2\n"]


def test_a_job_that_fails_says_why(k: Cluster) -> None:
    k.job("bad", "exit 3")
    status = k.settled("bad")
    assert (status.succeeded, status.failed, status.active) == (None, 1, None)
    assert _failed_because(status) == ["BackoffLimitExceeded"]
    [pod] = k.pods("bad")
    ended = pod.status.container_statuses[0].state.terminated
    assert pod.status.phase == "Failed"
    assert (ended.exit_code, ended.reason) == (3, "Error")


def test_a_finished_pod_holds_no_tracking_finalizer(k: Cluster) -> None:
    k.job("held", HOLD)
    assert k.running("held").metadata.finalizers == ["batch.kubernetes.io/job-tracking"]
    k.job("done")
    k.settled("done")
    assert not k.pods("done")[0].metadata.finalizers


def test_memory_beyond_the_limit_is_an_oom_kill(k: Cluster) -> None:
    k.job("oom", "(head -c 200m /dev/zero; sleep 20) | tail > /dev/null", limits={"memory": "64Mi"})
    assert k.settled("oom").failed == 1
    ended = k.pods("oom")[0].status.container_statuses[0].state.terminated
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")


def test_a_command_that_is_not_there_is_a_start_error(k: Cluster) -> None:
    k.job("nocmd", container={"command": ["/no/such/program"]})
    assert k.settled("nocmd").failed == 1
    assert k.pods("nocmd")[0].status.container_statuses[0].state.terminated.exit_code == 128


def test_a_deadline_ends_a_running_job(k: Cluster) -> None:
    k.job("late", HOLD, job={"activeDeadlineSeconds": 1})
    status = k.settled("late")
    assert _failed_because(status) == ["DeadlineExceeded"]
    assert status.failed == 1
    assert not status.active
    assert "FailureTarget" in k.conditions("late")


def test_a_job_is_failed_only_when_its_pod_has_ended(k: Cluster) -> None:
    """`FailureTarget` comes at once, `Failed` not before the last pod has gone through its grace time."""
    k.job("slow", f"trap : TERM; {k.waits(then='exit 1')}", pod={"terminationGracePeriodSeconds": 120})
    pod = k.waiting_now("slow")  # not before: it would end at once
    k.batch.patch_namespaced_job("slow", k.namespace, {"spec": {"activeDeadlineSeconds": 1}})
    k.until(lambda: "FailureTarget" in k.conditions("slow"))
    between = k.status("slow")
    assert not _failed_because(between)
    assert between.terminating == 1
    assert not between.active
    k.release(pod)
    assert _failed_because(k.settled("slow")) == ["DeadlineExceeded"]


def test_a_deadline_ends_a_job_that_never_got_a_pod(k: Cluster) -> None:
    """It has failed, yet counts no failed pod: who looks at `status.failed` alone waits for ever."""
    k.job("blocked", pod={"serviceAccountName": "ghost"}, job={"activeDeadlineSeconds": 1})
    status = k.settled("blocked")
    assert _failed_because(status) == ["DeadlineExceeded"]
    assert not status.failed
    assert not status.active
    assert not status.succeeded


def test_a_pending_pod_that_a_deadline_ends_counts_as_failed(k: Cluster) -> None:
    k.job("pend", limits={"cpu": "640"}, job={"activeDeadlineSeconds": 1})
    status = k.settled("pend")
    assert status.failed == 1
    assert not status.active


def test_a_finished_job_goes_after_its_time_with_its_pods(k: Cluster) -> None:
    k.job("ttl", k.waits(), job={"ttlSecondsAfterFinished": 1})
    k.release(k.waiting_now("ttl"))
    k.until(lambda: not k.batch.list_namespaced_job(k.namespace).items and not k.pods("ttl"))


# ---------------------------------------------------------------------- replaced and removed pods


def test_deleting_a_running_pod_fails_the_job(k: Cluster) -> None:
    k.job("del", HOLD)
    k.core.delete_namespaced_pod(k.running("del").metadata.name, k.namespace)
    status = k.settled("del")
    assert status.failed == 1
    assert not status.active


def test_a_pod_deleted_without_grace_counts_as_failed(k: Cluster) -> None:
    k.job("force", HOLD)
    k.core.delete_namespaced_pod(k.running("force").metadata.name, k.namespace, grace_period_seconds=0)
    assert k.settled("force").failed == 1
    k.until(lambda: not k.pods("force"))


def test_a_backoff_limit_gives_a_replacement(k: Cluster) -> None:
    k.job("again", HOLD, job={"backoffLimit": 2})
    first = k.running("again").metadata.name
    k.core.delete_namespaced_pod(first, k.namespace)
    k.until(lambda: [p for p in k.pods("again") if p.metadata.name != first and p.status.phase == "Running"])
    status = k.until(lambda: k.status("again").failed and k.status("again"))
    assert status.failed == 1
    assert status.active == 1


def test_an_evicted_pod_is_marked_and_counts_as_failed(k: Cluster) -> None:
    k.job("evict", HOLD)
    name = k.running("evict").metadata.name
    seen: list[Any] = []

    def marked() -> bool:
        seen.extend(c for p in k.pods("evict") for c in p.status.conditions or [] if c.type == "DisruptionTarget")
        return bool(seen)

    k.core.create_namespaced_pod_eviction(name, k.namespace, {"metadata": {"name": name, "namespace": k.namespace}})
    k.until(lambda: marked() or k.status("evict").failed)
    assert k.settled("evict").failed == 1
    assert not seen or seen[0].reason == "EvictionByEvictionAPI"


def test_a_failure_policy_that_ignores_disruption_hides_it(k: Cluster) -> None:
    """The pod is replaced and nothing is counted: a step can be run twice without a trace in the Job's status."""
    policy = {"rules": [{"action": "Ignore", "onPodConditions": DISRUPTION}]}
    k.job("ign", HOLD, job={"podFailurePolicy": policy})
    name = k.running("ign").metadata.name
    k.core.create_namespaced_pod_eviction(name, k.namespace, {"metadata": {"name": name, "namespace": k.namespace}})
    k.until(lambda: [p for p in k.pods("ign") if p.metadata.name != name and p.status.phase == "Running"])
    status = k.status("ign")
    assert not status.failed
    assert status.active == 1


def test_a_failure_policy_fails_a_job_by_exit_code(k: Cluster) -> None:
    codes = {"operator": "In", "values": [42]}
    policy = {"rules": [{"action": "FailJob", "onExitCodes": codes}]}
    k.job("code", "exit 42", job={"backoffLimit": 5, "podFailurePolicy": policy})
    status = k.settled("code")
    assert _failed_because(status) == ["PodFailurePolicy"]
    assert status.failed == 1


def test_a_container_is_restarted_in_its_pod_on_failure(k: Cluster) -> None:
    k.job("retry", "exit 1", job={"backoffLimit": 1}, pod={"restartPolicy": "OnFailure"})
    assert _failed_because(k.settled("retry")) == ["BackoffLimitExceeded"]


def test_a_suspended_job_has_no_pod_until_it_is_resumed(k: Cluster) -> None:
    k.job("later", job={"suspend": True})
    k.until(lambda: "Suspended" in k.conditions("later"))
    assert not k.pods("later")
    assert not k.status("later").start_time
    k.batch.patch_namespaced_job("later", k.namespace, {"spec": {"suspend": False}})
    assert k.settled("later").succeeded == 1


# ---------------------------------------------------------------------- what goes with what


def test_deleting_a_job_leaves_its_pods(k: Cluster) -> None:
    """As dagster-k8s does it: no propagation policy."""
    k.job("orphan", HOLD)
    name = k.running("orphan").metadata.name
    k.batch.delete_namespaced_job("orphan", k.namespace)
    k.until(lambda: not k.batch.list_namespaced_job(k.namespace).items)
    time.sleep(0.5)
    pod = k.core.read_namespaced_pod(name, k.namespace)
    assert pod.status.phase == "Running"
    assert not pod.metadata.deletion_timestamp
    assert not [owner for owner in pod.metadata.owner_references or [] if owner.kind == "Job"]


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_deleting_a_job_with_a_policy_takes_its_pods(k: Cluster, policy: str) -> None:
    k.job("with", HOLD)
    k.running("with")
    k.batch.delete_namespaced_job("with", k.namespace, propagation_policy=policy)
    k.until(lambda: not k.pods("with") and not k.batch.list_namespaced_job(k.namespace).items)


def test_a_job_that_a_pod_owns_goes_with_the_pod(k: Cluster) -> None:
    """What `enable_owner_references` of the dagster-k8s executor rests on."""
    k.job("run", HOLD)
    run = k.running("run")
    body = k.job_body("step", HOLD)
    body["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "Pod", "name": run.metadata.name, "uid": run.metadata.uid}
    ]
    k.batch.create_namespaced_job(k.namespace, body)
    k.running("step")
    k.batch.delete_namespaced_job("run", k.namespace)
    k.core.delete_namespaced_pod(run.metadata.name, k.namespace)
    k.until(lambda: not k.pods("step") and not k.batch.list_namespaced_job(k.namespace).items)


def test_a_namespace_goes_with_all_that_runs_in_it(k: Cluster) -> None:
    from kubernetes.client import ApiException

    def gone(name: str) -> bool:
        try:
            k.core.read_namespace(name)
        except ApiException as error:
            return error.status == 404
        return False

    with k.own_namespace() as name:
        k.job("inside", HOLD)
        k.running("inside")
        k.core.delete_namespace(name)
        assert refused(k.core.create_namespaced_config_map, name, {"metadata": {"name": "late"}})[0] in (403, 404)
        k.until(lambda: gone(name))
