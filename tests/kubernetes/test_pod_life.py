"""What happens to a step whose pod is killed, taken away, starved or forgotten, and what a person reads about it."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType as Type

from tests.kubernetes.conftest import Cluster, World
from tests.kubernetes.pod_jobs import IMAGE, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`"),
]


def _numbers(world: World) -> list[str]:
    """Return the numbers of the starts of the steps, from their Jobs' names."""
    return sorted(name.rpartition("-")[2] for name in world.jobs_made())


def _no_retry_was_used(world: World) -> bool:
    return not world.events(Type.STEP_UP_FOR_RETRY, Type.STEP_FAILURE) and world.notes("after") == [0]


def test_a_killed_pod_uses_a_retry_and_its_exit_code_is_told(world: World) -> None:
    worker = world.start("held", 1)
    assert world.cluster.nodes.kill(world.noted("held"))
    assert world.end_of(worker).status == dg.DagsterRunStatus.SUCCESS, "\n".join(world.story())
    (retry,) = world.events(Type.STEP_UP_FOR_RETRY)
    assert "ended with exit code 137 (SIGKILL)" in retry.step_retry_data.error.message
    assert world.notes("after") == [1]
    assert _numbers(world) == ["0", "1"]
    assert world.slots() == 0


def test_a_crash_is_no_lost_pod_though_its_job_was_to_go_at_once(world: World) -> None:
    worker = world.start("held", 0, "hasty")
    assert world.cluster.nodes.kill(world.noted("held"))
    assert world.end_of(worker).status == dg.DagsterRunStatus.FAILURE, "\n".join(world.story())
    (failure,) = world.events(Type.STEP_FAILURE)
    assert "ended with exit code 137 (SIGKILL)" in failure.step_failure_data.error.message
    assert _numbers(world) == ["0"]


def test_a_signal_that_comes_where_python_drops_it_is_heard_all_the_same(world: World) -> None:
    assert world.run("dropped").status == dg.DagsterRunStatus.FAILURE
    (failure,) = world.events(Type.STEP_FAILURE)
    assert "ended with exit code 143 (SIGTERM)" in failure.step_failure_data.error.message
    assert len(world.notes("deafened")) == 1  # it had gone on


def test_an_evicted_pod_uses_no_retry(world: World) -> None:
    worker = world.start("held", 1)  # with one to use: Dagster's own step program would
    pod = world.noted("held")
    world.cluster.core.create_namespaced_pod_eviction(
        pod, world.namespace, {"metadata": {"name": pod, "namespace": world.namespace}}
    )
    assert world.end_of(worker).status == dg.DagsterRunStatus.SUCCESS, "\n".join(world.story())
    assert _no_retry_was_used(world)
    assert any(f"Step held lost its pod {pod}" in message for message in world.told("held"))
    assert _numbers(world) == ["0", "1"]
    assert world.slots() == 0


@pytest.fixture
def priorities(pod_cluster: Cluster) -> Iterator[None]:
    classes = {"low": 100, "high": 1000}
    for name, value in classes.items():
        pod_cluster.scheduling.create_priority_class({"metadata": {"name": name}, "value": value})
    yield
    for name in classes:
        pod_cluster.scheduling.delete_priority_class(name)


def _occupy_gpu(world: World, name: str, seconds: float, **spec: str) -> None:
    """Have a pod that is none of ours use the only GPU."""
    container = {
        "name": "main",
        "image": IMAGE,
        "command": ["sleep", str(seconds)],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
    }
    pod = {
        "restartPolicy": "Never",
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
        **spec,
    }
    body = {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": {"spec": pod}}}
    world.cluster.batch.create_namespaced_job(world.namespace, body)


@pytest.mark.usefixtures("priorities")
def test_a_preempted_pod_uses_no_retry_and_waits_for_the_gpu(world: World) -> None:
    worker = world.start("held", 0, "low")
    world.noted("held")
    _occupy_gpu(world, "urgent", 2, priorityClassName="high")
    assert world.end_of(worker).status == dg.DagsterRunStatus.SUCCESS, "\n".join(world.story())
    assert _no_retry_was_used(world)
    assert any("lost its pod" in message and "reempt" in message for message in world.told("held"))


@pytest.mark.parametrize("processes", ["keep", "stop"])
def test_a_step_on_a_lost_node_starts_again_once_the_node_had_its_time(world: World, processes: str) -> None:
    worker, cluster = world.start("held", 0, "deaf"), world.cluster
    pod = world.noted("held")
    cluster.kube.lose_node("gpu-1", cluster.nodes, processes=processes, evict_after=0.5)
    try:
        wait_for(lambda: any("lost its pod" in message for message in world.told("held")), "the node to count as lost")
    finally:
        cluster.kube.return_node("gpu-1", cluster.nodes)
    assert world.end_of(worker).status == dg.DagsterRunStatus.SUCCESS, "\n".join(world.story())
    assert _no_retry_was_used(world)
    assert any(f"pod {pod} on node gpu-1" in message for message in world.told("held"))
    assert len(world.notes("held")) == 2
    world.wait_for_pods_to_end()


def test_a_step_that_ran_out_of_memory_gets_the_next_size(world: World) -> None:
    worker = world.start("held", 0, "roomy")
    assert world.cluster.nodes.kill(world.noted("held"), signal.SIGKILL, "OOMKilled")
    assert world.end_of(worker).status == dg.DagsterRunStatus.SUCCESS, "\n".join(world.story())
    assert _no_retry_was_used(world)
    (told,) = [message for message in world.told("held") if "1536 MiB" in message]
    assert "used more than its 1024 MiB of memory" in told
    containers = [job["spec"]["template"]["spec"]["containers"][0] for _, job in sorted(world.jobs_made().items())]
    limits = [container["resources"]["limits"]["memory"] for container in containers]
    assert limits == ["1024Mi", "1536Mi"]


def test_a_step_over_its_time_limit_fails_and_says_so(world: World) -> None:
    assert world.run("held", 0, "limited").status == dg.DagsterRunStatus.FAILURE
    (failure,) = world.events(Type.STEP_FAILURE)
    assert "ran longer than 4 s and was ended" in failure.step_failure_data.error.message
    assert world.slots() == 0


def test_pods_that_cannot_start_are_ended_and_the_cluster_is_quoted(world: World) -> None:
    quota = {"metadata": {"name": "team"}, "spec": {"hard": {"requests.nvidia.com/gpu": "2"}}}
    world.cluster.core.create_namespaced_resource_quota(world.namespace, quota)
    world.instance.event_log_storage.set_concurrency_slots("stuck", 5)
    assert world.run("stuck").status == dg.DagsterRunStatus.FAILURE
    failures = {e.step_key: e.step_failure_data.error.message for e in world.events(Type.STEP_FAILURE)}
    assert set(failures) == {"image", "node", "account", "priority", "quota"}, "\n".join(world.story())
    assert "ImagePullBackOff" in failures["image"]
    assert "didn't match Pod's node affinity/selector" in failures["node"]
    assert 'serviceaccount "ghost" not found' in failures["account"]
    assert "no PriorityClass with name ghost" in failures["priority"]
    assert "exceeded quota: team" in failures["quota"]
    assert all("did not start" in message and "`pending_seconds`" in message for message in failures.values())
    # waiting was a long try already: no retry repeats it
    assert not world.events(Type.STEP_UP_FOR_RETRY)
    assert world.notes("ran") == []
    assert world.jobs() == {}
    assert world.instance.event_log_storage.get_concurrency_info("stuck").active_slot_count == 0


def test_waiting_for_a_free_gpu_is_a_queue_and_no_error(world: World) -> None:
    _occupy_gpu(world, "neighbour", 900)
    wait_for(lambda: world.alive("Running"), "the neighbour to run")
    worker = world.start("queued")
    wait_for(lambda: any("waits for" in message for message in world.told("queued")), "the run's log to tell")
    time.sleep(9)  # longer than its `pending_seconds`
    world.cluster.batch.delete_namespaced_job("neighbour", world.namespace, propagation_policy="Background")
    assert world.end_of(worker).status == dg.DagsterRunStatus.SUCCESS, "\n".join(world.story())
    assert world.notes("ran") == ["queued"]
    (told,) = [message for message in world.told("queued") if "waits for" in message]
    assert "a place that others use now" in told
    assert "Insufficient nvidia.com/gpu" in told


def test_nothing_fails_while_the_api_is_away(world: World) -> None:
    worker = world.start("pods_in_a_row")
    world.noted("first")
    world.cluster.kube.stop_serving()
    try:
        wait_for(lambda: any("does not answer" in message for message in world.told()), "the executor to notice")
        Path(world.notes_folder, "go").touch()
        wait_for(lambda: "second" in {e.step_key for e in world.events(Type.STEP_WORKER_STARTING)}, "the next step")
    finally:
        world.cluster.kube.serve_again()
    assert world.end_of(worker).status == dg.DagsterRunStatus.SUCCESS, "\n".join(world.story())
    assert len(world.notes("second")) == 1
    assert any("answers again" in message for message in world.told())
    assert not world.events(Type.STEP_FAILURE, Type.STEP_UP_FOR_RETRY)


def test_cancelling_a_run_removes_its_pods_and_frees_its_slots(world: World) -> None:
    worker = world.start("held", 1)
    world.noted("held")
    assert world.slots() == 1
    world.instance.report_run_canceling(world.the_run())
    worker.send_signal(signal.SIGTERM)
    assert world.end_of(worker).status == dg.DagsterRunStatus.CANCELED, "\n".join(world.story())
    (failure,) = world.events(Type.STEP_FAILURE)
    if "still there" not in failure.step_failure_data.error.message:  # a run waits for so long only
        assert world.alive() == []
    assert world.jobs() == {}
    world.wait_for_pods_to_end()
    assert failure.step_failure_data.error_source.value == "INTERRUPT"
    assert world.slots() == 0
