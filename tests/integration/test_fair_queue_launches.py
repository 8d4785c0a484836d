"""Runs that the UI, a backfill, a sensor, a schedule and automation launch by Dagster's own code: all share alike."""

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.asset_daemon import AssetDaemon
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler.scheduler import launch_scheduled_runs

from ml_assets.interfaces import TeamShare
from ml_assets.testing.spend import cost
from resources.run_demand import TEAM_TAG
from tests.e2e.programs import ROOT
from tests.integration.sharing_world import World, rules, utc_now, world

pytestmark = [
    pytest.mark.slow,  # a code server each
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # what Dagster's servers and its GraphQL deprecate is not ours
]

QUEUED, FAILURE = dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.FAILURE
LOCATION = """
import dagster as dg

from ml_assets.compute import op_tags
from ml_assets.interfaces import StepResources

GPU = op_tags(StepResources(cores=4, gpus=1, gpu_required=True, price_per_hour=0.6, profile="gpu-small"))
MONTHS = dg.StaticPartitionsDefinition(["2013-01"])


def asset(name, **options):
    return dg.asset(key=["flights", "delay", name], op_tags=GPU, **options)(lambda: None)


by_hand, by_months = asset("by_hand"), asset("by_months", partitions_def=MONTHS)
by_itself = asset("by_itself", automation_condition=dg.AutomationCondition.missing())
job = dg.define_asset_job("by_hand", [by_hand])


@dg.sensor(job=job, default_status=dg.DefaultSensorStatus.RUNNING)
def arrivals():
    yield dg.RunRequest(run_key="one")


automation = dg.AutomationConditionSensorDefinition(
    "automation", target=[by_itself], default_status=dg.DefaultSensorStatus.RUNNING
)
nightly = dg.ScheduleDefinition(
    job=job, cron_schedule="* * * * *", default_status=dg.DefaultScheduleStatus.RUNNING, execution_timezone="UTC"
)
defs = dg.Definitions(
    assets=[by_hand, by_months, by_itself], jobs=[job], sensors=[arrivals, automation], schedules=[nightly]
)
"""
LAUNCH = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
BACKFILL = """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
LOG = logging.getLogger("test")


def asked(sharing: World, query: str, params: Any) -> Any:
    """Ask the webserver's schema in this process, and return its answer to the one question."""
    from dagster_graphql.test.utils import execute_dagster_graphql

    request = sharing.workspace.create_request_context()
    (answer,) = execute_dagster_graphql(request, query, {"params": params}).data.values()
    return answer


def repository(sharing: World) -> tuple[str, str]:
    (location,) = sharing.workspace.create_request_context().code_locations
    (name,) = location.get_repositories()
    return location.name, name


def from_the_ui(sharing: World) -> str | None:
    location, name = repository(sharing)
    selector = {"repositoryLocationName": location, "repositoryName": name, "pipelineName": "by_hand"}
    return asked(sharing, LAUNCH, {"selector": selector, "mode": "default"}).get("message")


def by_a_backfill(sharing: World) -> None:
    assets = [{"path": ["flights", "delay", "by_months"]}]
    params = {"assetSelection": assets, "partitionNames": ["2013-01"]}
    assert asked(sharing, BACKFILL, params)["__typename"] == "LaunchBackfillSuccess"
    for _ in range(2):  # the second look goes on where the first one stopped
        assert not any(execute_backfill_iteration(sharing.workspace, LOG))


def by_a_sensor(sharing: World) -> None:
    assert not any(execute_sensor_iteration(sharing.workspace, LOG, None, None))


def by_a_schedule(sharing: World) -> None:
    times: dict[str, Any] = {}
    for later in (0, 61):
        at = utc_now() + timedelta(seconds=later)
        assert not any(launch_scheduled_runs(sharing.workspace, LOG, at, times))


def by_automation(sharing: World) -> None:
    daemon = AssetDaemon(settings={}, pre_sensor_interval_seconds=0)
    daemon._run_iteration_impl(sharing.workspace, None, {}, {})


LAUNCHES: dict[str, tuple[Callable[[World], str | None], str]] = {
    "ui": (from_the_ui, ""),
    "backfill": (by_a_backfill, "dagster/backfill"),
    "sensor": (by_a_sensor, "dagster/sensor_name"),
    "schedule": (by_a_schedule, "dagster/schedule_name"),
    "automation": (by_automation, "dagster/from_automation_condition"),
}
every_launch = pytest.mark.parametrize("kind", LAUNCHES)


@pytest.fixture
def location(tmp_path: Path) -> PythonFileTarget:
    file = tmp_path / "flights.py"
    file.write_text(LOCATION, encoding="utf-8")
    return PythonFileTarget(str(file), None, str(ROOT), "flights")


def of_flights(sharing: World) -> dg.DagsterRun:
    (run,) = sharing.instance.get_runs(dg.RunsFilter(tags={TEAM_TAG: "flights"}))
    return run


@every_launch
def test_whoever_launches_a_run_its_team_has_its_turn(location: PythonFileTarget, kind: str) -> None:
    launch, mark = LAUNCHES[kind]
    with world(rules(gpus=2), target=location) as sharing:
        for n in range(5):
            sharing.submit(f"births-{n}", dagster__priority="100")
        assert sharing.look() == ["births-0", "births-1"]

        assert launch(sharing) is None

        run = of_flights(sharing)
        assert run.status == QUEUED
        assert mark in run.tags if mark else not any(tag.startswith("dagster/sensor") for tag in run.tags)
        assert {name: run.tags[f"ml_assets/{name}"] for name in ("gpus", "cores", "price_per_hour")} == {
            "gpus": "1",
            "cores": "4",
            "price_per_hour": "0.6",
        }
        sharing.names[run.run_id] = "flights"
        assert sharing.look() == []
        sharing.end("births-0")
        assert sharing.look() == ["flights"]


@every_launch
def test_whoever_launches_a_run_its_teams_budget_holds(location: PythonFileTarget, kind: str) -> None:
    launch, _ = LAUNCHES[kind]
    refusing = rules({"flights": TeamShare(budget_per_month=10.0, over_budget="refuse")}, gpus=1)
    with world(refusing, target=location) as sharing:
        sharing.spend.record([cost(seconds=36000.0, ended_at=utc_now())], now=utc_now())

        told = launch(sharing)

        run = of_flights(sharing)
        sums = "flights spent 12.00 of its budget of 10.00 EUR"
        assert run.status == FAILURE
        sharing.names[run.run_id] = "flights"
        assert sums in (told if told is not None else sharing.log("flights"))
        assert (told is not None) == (kind == "ui")  # a daemon's other work goes on
