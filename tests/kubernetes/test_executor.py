"""One executor for both worlds, on the cluster double: light steps are forked, heavy steps are pods."""

import dagster as dg
import pytest

from tests.kubernetes.conftest import World

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`"),
]


def test_only_steps_that_do_not_fit_the_worker_get_pods(world: World) -> None:
    run = world.run("mixed")
    assert run.status == dg.DagsterRunStatus.SUCCESS, "\n".join(world.story())
    steps = {job["metadata"]["labels"]["dagster/op"] for job in world.jobs_made().values()}
    assert steps == {"first", "second", "large"}
    # light steps are children of the run's worker
    assert world.notes("forked") == [world.workers[0].pid]
    assert world.notes("after") == [[world.workers[0].pid, 5]]
    # one GPU: the cluster has one step wait for the other
    one, other = sorted(world.notes("spans"), key=lambda span: span["start"])
    assert one["end"] <= other["start"]
    assert {span["gpu"] for span in (one, other)} == {"0"}
    assert {span["threads"] for span in (one, other)} == {"1"}
    world.wait_for_pods_to_end()
