"""Fair sharing in the real daemon: a flood of one team's runs, and the single run of another."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.grpc_server_registry import GrpcServerRegistry
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget

from resources.dagster_home import initialise_home
from resources.ledger.spend import SqlSpend
from tests.e2e.programs import ROOT, stopped, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a daemon, a code server and real runs

LOCATION = """
import time

import dagster as dg

from ml_assets.compute import op_tags
from ml_assets.interfaces import StepResources


def asset(team):
    resources = StepResources(price_per_hour=360.0, profile="cpu-small")

    @dg.asset(key=[team, "delay", "forest"], op_tags=op_tags(resources))
    def made():
        time.sleep(0.2)

    return made


defs = dg.Definitions(
    assets=[asset("births"), asset("flights")],
    jobs=[dg.define_asset_job(team, [dg.AssetKey([team, "delay", "forest"])]) for team in ("births", "flights")],
    executor=dg.in_process_executor,
)
"""
RULES = """
profiles: {cpu-small: {price_per_hour: 360}}
teams:
  flights: {weight: 1, budget_per_month: 1000}
"""


def test_the_other_teams_run_starts_next_and_what_it_cost_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, home, policies = tmp_path / "two_teams.py", tmp_path / "state" / "dagster", tmp_path / "policies"
    file.write_text(LOCATION, encoding="utf-8")
    policies.mkdir()
    (policies / "compute.yaml").write_text(RULES, encoding="utf-8")
    (tmp_path / "workspace.yaml").write_text("load_from:\n  - python_file: two_teams.py\n", encoding="utf-8")
    for name, value in (("ML_ASSETS_STATE", tmp_path / "state"), ("ML_ASSETS_POLICIES", policies)):
        monkeypatch.setenv(name, str(value))
    initialise_home(home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        flood, single = submitted(instance, file)
        daemon = start_daemon(tmp_path, home)
        try:
            wait_for("the end of all runs", lambda: ended(instance, [*flood, single]), timeout_seconds=600)
            spend = SqlSpend(f"sqlite:///{tmp_path / 'state' / 'ledger.db'}")
            wait_for("the cost of the run", lambda: spend.of_runs([single]) or None, timeout_seconds=200)
        finally:
            daemon.send_signal(signal.SIGINT)
            stopped(daemon)

        records = {record.dagster_run.run_id: record for record in instance.get_run_records()}
        assert {record.dagster_run.status for record in records.values()} == {dg.DagsterRunStatus.SUCCESS}
        order = sorted(records, key=lambda run_id: launched_at(instance, run_id))
        assert order.index(single) <= 2  # two go at once, and it was asked for last
        seconds = (records[single].end_time or 0.0) - (records[single].start_time or 0.0)
        assert 0.02 <= spend.of_runs([single])[single] <= 0.1 * seconds  # 0.2 s and more at 360 an hour
    assert "Traceback" not in (tmp_path / "daemon.log").read_text(encoding="utf-8")


def submitted(instance: dg.DagsterInstance, file: Path) -> tuple[list[str], str]:
    """Queue thirty runs of births and then one of flights, and return their ids."""
    target = PythonFileTarget(str(file), None, str(file.parent), file.name)
    with WorkspaceProcessContext(instance, target) as workspace:
        request = workspace.create_request_context()
        flood = [submit(instance, request, file, "births") for _ in range(30)]
        single = submit(instance, request, file, "flights")
        servers = workspace._grpc_server_registry
    assert isinstance(servers, GrpcServerRegistry)
    servers.wait_for_processes()
    return flood, single


def submit(instance: dg.DagsterInstance, request: object, file: Path, name: str) -> str:
    location = request.get_code_location(file.name)  # pyright: ignore[reportAttributeAccessIssue]
    remote = next(iter(location.get_repositories().values())).get_full_job(name)
    plan = location.get_execution_plan(remote, {}, None, None, instance)
    run = instance.create_run(
        job_name=name,
        run_id=None,
        run_config={},
        status=dg.DagsterRunStatus.NOT_STARTED,
        tags={},
        root_run_id=None,
        parent_run_id=None,
        step_keys_to_execute=None,
        execution_plan_snapshot=plan.execution_plan_snapshot,
        job_snapshot=remote.job_snapshot,
        parent_job_snapshot=remote.parent_job_snapshot,
        asset_selection=frozenset({dg.AssetKey([name, "delay", "forest"])}),
        asset_check_selection=None,
        resolved_op_selection=None,
        op_selection=None,
        remote_job_origin=remote.get_remote_origin(),
        job_code_origin=remote.get_python_origin(),
        asset_graph=next(iter(location.get_repositories().values())).asset_graph,
    )
    instance.submit_run(run.run_id, request)  # pyright: ignore[reportArgumentType]
    return run.run_id


def start_daemon(folder: Path, home: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "resources.daemon", "run", "-w", str(folder / "workspace.yaml")]
    paths = os.pathsep.join([str(folder), str(ROOT)])
    with (folder / "daemon.log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths, "DAGSTER_HOME": str(home)},
            stdout=log,
            stderr=log,
        )


def launched_at(instance: dg.DagsterInstance, run_id: str) -> float:
    """Return when the daemon took a run out of the queue; when its process began is up to the machine."""
    (record,) = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.RUN_STARTING).records
    return record.event_log_entry.timestamp


def ended(instance: dg.DagsterInstance, run_ids: list[str]) -> bool:
    filters = dg.RunsFilter(run_ids=run_ids, statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE])
    return instance.get_runs_count(filters) == len(run_ids)
