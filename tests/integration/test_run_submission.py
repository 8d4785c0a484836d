"""Runs submitted from outside of the daemon, on a real Dagster home: the queue holds what the sensor puts there."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ml_assets.delivery.plan import BatchPlan
from ml_assets.errors import MlAssetsError
from resources.dagster_home import initialise_home
from resources.run_submission import QueuedSubmission

pytestmark = pytest.mark.filterwarnings("ignore:Non-compliant tag keys")

ROOT = Path(__file__).parents[2]
WORKSPACE = ROOT / "workspace.yaml"
PATH = ("flights", "arrival_delay")


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    home = tmp_path_factory.mktemp("submission") / "dagster"
    initialise_home(home)
    with dg.DagsterInstance.from_config(str(home)) as opened:
        yield opened


@pytest.fixture(scope="module")
def submission(instance: dg.DagsterInstance) -> QueuedSubmission:
    return QueuedSubmission(instance, WORKSPACE, "flights")


def plan(name: str, first: str, last: str, *partitions: str) -> BatchPlan:
    return BatchPlan(name=name, pipeline=PATH, numbers=(1,), first=first, last=last, partitions=partitions)


def test_a_single_partition_is_queued_with_its_batch_and_key(
    submission: QueuedSubmission, instance: dg.DagsterInstance
) -> None:
    run_id = submission.submit(plan("b1", "EWR|2013-01", "EWR|2013-01", "EWR|2013-01"))

    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.QUEUED
    assert run.job_name.startswith("arrivals_")
    assert run.tags == {
        "dagster/partition_set": f"{run.job_name}_partition_set",
        "dagster/code_location": "flights",
        "dagster/partition": "EWR|2013-01",
        "dagster/partition/group": "EWR",
        "dagster/partition/time": "2013-01",
        "dagster/run_key": "b1",
        "dagster/sensor_name": "arrivals",
        "ml_assets/batch": "b1",
        "ml_assets/launched_by": "sensor:arrivals",
        "ml_assets/pipeline": "flights/arrival_delay",
        "ml_assets/team": "flights",
        "ml_assets/gpus": "0",
        "ml_assets/cores": "1",
    }
    assert run.asset_selection == {dg.AssetKey([*PATH, "raw_data"]), dg.AssetKey([*PATH, "features"])}
    origin = run.remote_job_origin
    assert origin is not None
    assert origin.repository_origin.get_label() == "__repository__@flights"


def test_a_range_is_one_run(submission: QueuedSubmission, instance: dg.DagsterInstance) -> None:
    run_id = submission.submit(plan("b2", "EWR|2013-01", "LGA|2013-02", "EWR|2013-01"))

    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.tags["dagster/asset_partition_range_start"] == "EWR|2013-01"
    assert run.tags["dagster/asset_partition_range_end"] == "LGA|2013-02"
    assert "dagster/partition" not in run.tags


def test_it_knows_when_the_code_of_the_location_changed(instance: dg.DagsterInstance) -> None:
    submission = QueuedSubmission(instance, WORKSPACE, "births")
    assert [path for path in submission.changed() if "deployments" in path] == []
    file = ROOT / "deployments" / "births" / "defs" / "daily_births" / "defs.yaml"
    before = file.stat()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    try:
        assert str(file) in submission.changed()
    finally:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_location_that_is_not_in_the_workspace_is_told(instance: dg.DagsterInstance) -> None:
    with pytest.raises(MlAssetsError, match="There is no code location 'ships' in"):
        QueuedSubmission(instance, WORKSPACE, "ships")


def test_runs_that_are_not_queued_cannot_be_pushed() -> None:
    with (
        dg.DagsterInstance.ephemeral() as instance,
        pytest.raises(MlAssetsError, match="Runs can only be pushed into a queue"),
    ):
        QueuedSubmission(instance, WORKSPACE, "flights")


def test_the_prompt_queue_is_a_queue_that_is_looked_at_twice_a_second(tmp_path: Path) -> None:
    initialise_home(tmp_path / "home")

    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        assert type(instance.run_coordinator).__name__ == "PromptRunQueue"
        assert instance.run_coordinator.dequeue_interval_seconds == 0.5  # pyright: ignore[reportAttributeAccessIssue]
        assert QueuedSubmission(instance, WORKSPACE, "births").pipelines is not None
