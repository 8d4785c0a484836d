"""A run that is killed while it trains, on real flights: what goes on afterwards repeats no finished step."""

import os
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType as Type
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from deployments.flights.land import land
from resources.dagster_home import initialise_home
from resources.ledger import SqlLedger
from tests.e2e.graphql import Graphql
from tests.e2e.programs import (
    ML_ASSETS,
    ROOT,
    Materialized,
    development,
    environment,
    instance,
    materializations,
    ml_assets,
    processes_of,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PREFIX = "flights/arrival_delay"
VARIANTS = tuple(f"{PREFIX}/models/{name}" for name in ("logistic", "boosting", "boosting_slow", "forest"))
TRAINING = (f"{PREFIX}/row_index", f"{PREFIX}/training_set", *VARIANTS, f"{PREFIX}/candidate", f"{PREFIX}/evaluation")
DATA = (f"{PREFIX}/raw_data", f"{PREFIX}/features")
ALL = (*DATA, *TRAINING, f"{PREFIX}/promotion")
BACKFILL = ("backfill", PREFIX, "--from", "2013-01", "--to", "2013-02")


def step_of(asset: str) -> str:
    return asset.replace("/", "__")


def steps(opened: dg.DagsterInstance, run_id: str, *kinds: Type) -> set[str]:
    """Return the steps of a run that have an event of one of these kinds."""
    return {e.step_key or "" for e in (r.dagster_event for r in opened.all_logs(run_id)) if e and e.event_type in kinds}


def in_the_middle_of_training(opened: dg.DagsterInstance, run_id: str) -> bool:
    """Whether one variant of a run is done and another one is being fitted."""
    variants = {step_of(asset) for asset in VARIANTS}
    started = steps(opened, run_id, Type.STEP_START) & variants
    done = steps(opened, run_id, Type.STEP_SUCCESS) & variants
    return bool(done) and bool(started - done)


def training_run(opened: dg.DagsterInstance, partition: str) -> str | None:
    """Return the newest run that trains for a month, if there is one."""
    records = opened.get_runs(dg.RunsFilter(tags={"dagster/partition": partition}), limit=1)
    return records[0].run_id if records else None


@dataclass(frozen=True, kw_only=True)
class Killed:
    """A backfill that was killed, as its state folder was found afterwards."""

    state: Path
    run_id: str
    before: tuple[Materialized, ...]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Backfill two months and kill the whole process group while variants of 2013-02 are being fitted."""
    state = tmp_path_factory.mktemp("resume") / "state"
    land(state / "landing", ["2013-01", "2013-02", "2013-03"])
    initialise_home(state / "dagster")  # two that open a fresh home at once ruin it
    started = subprocess.Popen(
        [ML_ASSETS, *BACKFILL],
        cwd=ROOT,
        env=environment(state),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with instance(state) as opened:
            run_id = wait_for(
                "the run of 2013-02",
                lambda: training_run(opened, "2013-02"),
                timeout_seconds=400,
            )
            wait_for(
                "one variant done and another begun",
                lambda: in_the_middle_of_training(opened, run_id),
                timeout_seconds=400,
                every_seconds=0.05,
            )
            os.killpg(started.pid, signal.SIGKILL)
            started.wait(timeout=30)
            wait_for("an end of all steps", lambda: not processes_of(state), timeout_seconds=60)
            return Killed(state=state, run_id=run_id, before=tuple(materializations(opened, *ALL)))
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


@pytest.fixture(scope="module")
def resumed(killed: Killed) -> subprocess.CompletedProcess[str]:
    return ml_assets(killed.state, *BACKFILL)


def test_the_kill_came_in_the_middle(killed: Killed) -> None:
    done = {m.asset for m in killed.before if m.partition == "2013-02"}

    assert f"{PREFIX}/training_set" in done
    assert done & set(VARIANTS)
    assert set(VARIANTS) - done
    assert f"{PREFIX}/candidate" not in done


def test_a_second_backfill_repeats_no_finished_step(killed: Killed, resumed: subprocess.CompletedProcess[str]) -> None:
    before = Counter((m.asset, m.partition) for m in killed.before)
    with instance(killed.state) as opened:
        after = Counter((m.asset, m.partition) for m in materializations(opened, *ALL))

    assert "Traceback" not in resumed.stderr
    assert {done: after[done] for done in before} == dict(before)  # a range run's data have two events each
    assert {asset for asset, partition in after if partition == "2013-02"} == set(TRAINING)
    assert {after[asset, "2013-02"] for asset in TRAINING} == {1}


def test_the_killed_run_is_marked_as_failed_and_holds_no_pool_slot(
    killed: Killed, resumed: subprocess.CompletedProcess[str]
) -> None:
    del resumed
    with instance(killed.state) as opened:
        run = opened.get_run_by_id(killed.run_id)
        slots = opened.event_log_storage.get_concurrency_info("models")

    assert run is not None
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert (slots.slot_count, slots.active_slot_count) == (2, 0)


def test_the_second_backfill_comes_to_the_demo_s_decision(
    killed: Killed, resumed: subprocess.CompletedProcess[str]
) -> None:
    decisions = SqlLedger(f"sqlite:///{killed.state}/ledger.db").decisions(("flights", "arrival_delay"))

    assert [(d.partition, d.outcome) for d in decisions] == [("2013-02", "refused")]
    assert "refused" in resumed.stdout
    assert "log_loss" in resumed.stdout


RUN = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
AGAIN = """
mutation ($params: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""


def launched(answer: dict[str, Any]) -> str:
    """Return the run that a launch gave."""
    (result,) = answer.values()
    assert result["__typename"] == "LaunchRunSuccess", result
    return result["run"]["runId"]


def status(opened: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = opened.get_run_by_id(run_id)
    assert run is not None
    return run.status


def run_process(opened: dg.DagsterInstance, run_id: str) -> int:
    """Return the process that a run's executor says it runs in."""
    for entry in opened.all_logs(run_id, of_type=Type.ENGINE_EVENT):
        event = entry.dagster_event
        if event is not None and "forked from the run process" in (event.message or ""):
            return int(str(event.engine_event_data.metadata["pid"].value))
    raise AssertionError(f"run {run_id} has not told its process")


@pytest.fixture(scope="module")
def month_with_data(killed: Killed, resumed: subprocess.CompletedProcess[str]) -> Path:
    del resumed
    done = ml_assets(killed.state, "backfill", PREFIX, "--from", "2013-03", "--to", "2013-03", "--data-only")
    assert done.returncode == 0, done.stderr
    return killed.state


def test_a_run_executed_again_from_its_failure_repeats_no_finished_step(month_with_data: Path) -> None:
    selection = [{"path": asset.split("/")} for asset in (*TRAINING, f"{PREFIX}/promotion")]
    params = {
        "selector": {
            "repositoryLocationName": "flights",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": selection,
        },
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": "2013-03"}]},
    }
    ml_assets(month_with_data, "pause", "flights", "--reason", "A person runs it here.")
    with development(month_with_data) as served, instance(month_with_data) as opened:
        server = Graphql(url=served.dagster_url)
        first = launched(server.ask(RUN, params=params))
        wait_for(
            "one variant done and another begun",
            lambda: in_the_middle_of_training(opened, first),
            timeout_seconds=400,
            every_seconds=0.05,
        )
        os.kill(run_process(opened, first), signal.SIGKILL)
        failed = dg.DagsterRunStatus.FAILURE
        wait_for("the failure", lambda: status(opened, first) == failed, timeout_seconds=400)
        finished = steps(opened, first, Type.STEP_SUCCESS)

        second = launched(server.ask(AGAIN, params={"parentRunId": first, "strategy": "FROM_FAILURE"}))
        wait_for("the end", lambda: status(opened, second) in FINISHED_STATUSES, timeout_seconds=600)

        assert status(opened, second) == dg.DagsterRunStatus.SUCCESS
        everything = {step_of(asset) for asset in (*TRAINING, f"{PREFIX}/promotion")}
        assert steps(opened, second, Type.STEP_START) == everything - finished
        done = Counter(
            m.asset for m in materializations(opened, *TRAINING, f"{PREFIX}/promotion") if m.partition == "2013-03"
        )
        assert done == Counter([*TRAINING, f"{PREFIX}/promotion"])
    decisions = SqlLedger(f"sqlite:///{month_with_data}/ledger.db").decisions(("flights", "arrival_delay"))
    assert [(d.partition, d.outcome) for d in decisions] == [("2013-02", "refused"), ("2013-03", "awaiting_approval")]
