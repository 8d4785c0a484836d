"""What runs that are over have left in the cluster is removed; what belongs to runs in progress is not."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from resources.kubernetes.access import ClusterAccess
from resources.kubernetes.reaper import open_reaper
from tests.kubernetes.conftest import World
from tests.kubernetes.pod_jobs import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`"),
]

NOW = timedelta(0)


def _complete(world: World) -> bool:
    conditions = [condition for job in world.jobs().values() for condition in job.status.conditions or []]
    return "Complete" in {condition.type for condition in conditions}


def test_pods_and_slots_of_a_dead_run_go_and_those_of_a_live_run_stay(world: World) -> None:
    reaper = open_reaper(ClusterAccess(), world.instance, grace=NOW)
    worker = world.start("held")
    pod = world.noted("held")
    (job,) = world.jobs()
    worker.kill()
    worker.wait(30)
    # in progress as far as Dagster knows: another worker may come
    assert reaper.reap() == []
    assert (world.alive(), world.slots()) == ([pod], 1)

    world.instance.report_run_failed(world.the_run(), "its worker is gone")
    (reaped,) = reaper.reap()
    assert (reaped.job, reaped.step, reaped.namespace) == (job, "held", world.namespace)
    assert reaped.why == "its run is over (FAILURE)"
    wait_for(lambda: not world.alive(), "the pod to go")
    assert (world.jobs(), world.slots()) == ({}, 0)
    assert reaper.reap() == []


def test_jobs_that_have_ended_stay_to_be_read_and_jobs_of_others_are_left_alone(world: World) -> None:
    worker = world.start("followed")
    world.noted("behind")
    wait_for(lambda: _complete(world), "the Job to be complete")  # while its run goes on, or that might remove it
    Path(world.notes_folder, "go").touch()
    run = world.end_of(worker)
    assert run.status == dg.DagsterRunStatus.SUCCESS, "\n".join(world.story())
    assert open_reaper(ClusterAccess(), world.instance, grace=NOW).reap() == []
    with dg.DagsterInstance.ephemeral() as another:
        access = ClusterAccess(kubeconfig=world.cluster.kubeconfig)
        assert open_reaper(access, another, [world.namespace], keep=NOW, grace=NOW).reap() == []
    assert len(world.jobs()) == 1
    (reaped,) = open_reaper(ClusterAccess(), world.instance, keep=NOW, grace=NOW).reap()
    assert reaped.run_id == run.run_id
    assert world.jobs() == {}
