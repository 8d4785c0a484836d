"""A run whose worker was killed: the next worker takes its pods over, and starts again what died with the first."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType as Type

from tests.kubernetes.conftest import ON_BOTH_STORAGES, ROOT, World
from tests.kubernetes.pod_jobs import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`"),
]


def _takeovers(world: World) -> int:
    return sum("goes on in its pod" in message for message in world.told("in_pod"))


@ON_BOTH_STORAGES
def test_pods_outlive_two_workers_and_no_step_has_a_second_copy(world: World) -> None:
    first = world.start("two_worlds")
    pod = world.noted("in_pod")
    world.noted("forked")
    run = world.the_run()

    first.send_signal(signal.SIGTERM)  # its node is drained: the run is not cancelled
    first.wait(240)
    assert world.the_run().status == dg.DagsterRunStatus.STARTED
    assert world.alive() == [pod]
    second = world.resume(run)
    wait_for(lambda: len(world.notes("forked")) == 2, lambda: "\n".join(world.story()))

    second.kill()
    second.wait(30)
    assert world.alive() == [pod]
    # The API answers the third one only when it is asked again: the pod is taken over all the same, and the log tells.
    world.cluster.kube.fail_requests(503, method="POST", path=f"/{world.namespace}/jobs$")
    third = world.resume(run)
    wait_for(lambda: len(world.notes("forked")) == 3, lambda: "\n".join(world.story()))
    wait_for(lambda: _takeovers(world) == 2, lambda: "\n".join(world.story()))
    Path(world.notes_folder, "go").touch()

    assert world.end_of(third).status == dg.DagsterRunStatus.SUCCESS, "\n".join(world.story())
    assert world.notes("in_pod") == [pod]  # it ran once
    assert len(world.notes("done")) == 1  # what had ended stayed so
    assert world.notes("after") == [2]
    assert _takeovers(world) == 2
    assert len(world.jobs_made()) == 1
    assert not world.events(Type.STEP_FAILURE, Type.STEP_UP_FOR_RETRY)
    assert world.slots() == 0


def test_a_pod_that_failed_between_two_workers_is_retried(world: World) -> None:
    first = world.start("held", 1)
    pod = world.noted("held")
    first.kill()
    first.wait(30)
    assert world.cluster.nodes.kill(pod)
    wait_for(lambda: [job for job in world.jobs().values() if job.status.failed], "the Job to fail")

    assert world.end_of(world.resume(world.the_run())).status == dg.DagsterRunStatus.SUCCESS, "\n".join(world.story())
    (retry,) = world.events(Type.STEP_UP_FOR_RETRY)
    assert "exit code 137 (SIGKILL)" in retry.step_retry_data.error.message
    assert world.notes("after") == [1]
    assert sorted(name.rpartition("-")[2] for name in world.jobs_made()) == ["0", "1"]
    assert world.slots() == 0


def test_dagsters_monitoring_replaces_a_run_pod_that_was_killed(world: World) -> None:
    environment = {**os.environ, "DAGSTER_HOME": str(world.home), "PYTHONPATH": str(ROOT)}
    programs = Path(sys.executable).parent
    location = ["-m", "tests.kubernetes.pod_location"]
    launch = [str(programs / "dagster"), "job", "launch", *location, "-j", "job"]
    subprocess.run(launch, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=480)
    pod = world.noted("in_pod")
    world.noted("forked")
    (run_pod,) = set(world.alive()) - {pod}
    assert run_pod.startswith("dagster-run-")
    assert world.cluster.nodes.kill(run_pod)

    with (world.home.parent / "worker-daemon.log").open("wb") as log:
        command = [str(programs / "dagster-daemon"), "run", *location]
        daemon = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    world.workers.append(daemon)
    wait_for(lambda: len(world.notes("forked")) == 2, lambda: "\n".join(world.story()))
    Path(world.notes_folder, "go").touch()
    wait_for(lambda: world.the_run().is_finished, lambda: "\n".join(world.story()))
    daemon.terminate()
    assert world.the_run().status == dg.DagsterRunStatus.SUCCESS, "\n".join(world.story())
    assert world.notes("in_pod") == [pod]
    assert world.notes("after") == [2]
    assert world.slots() == 0
