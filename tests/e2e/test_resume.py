"""A run that is killed while it trains, on real flights: what goes on afterwards repeats no finished step."""

import os
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType as Type

from deployments.flights.land import land
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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

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
    started = subprocess.Popen(
        [ML_ASSETS, *BACKFILL],
        cwd=ROOT,
        env=environment(state),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for("a Dagster home", (state / "dagster" / "history" / "runs.db").exists, timeout_seconds=60)
        time.sleep(2)  # the home is made in one go, but not in one moment
        with instance(state) as opened:
            run_id = wait_for(
                "the run of 2013-02",
                lambda: training_run(opened, "2013-02"),
                timeout_seconds=120,
            )
            wait_for(
                "one variant done and another begun",
                lambda: in_the_middle_of_training(opened, run_id),
                timeout_seconds=120,
                every_seconds=0.05,
            )
            os.killpg(started.pid, signal.SIGKILL)
            started.wait(timeout=30)
            wait_for("an end of all steps", lambda: not processes_of(state), timeout_seconds=30)
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


def test_a_second_backfill_repeats_no_finished_step(
    killed: Killed, resumed: subprocess.CompletedProcess[str]
) -> None:
    with instance(killed.state) as opened:
        found = Counter((m.asset, m.partition) for m in materializations(opened, *ALL))

    assert "Traceback" not in resumed.stderr
    for m in killed.before:
        assert found[m.asset, m.partition] == 1, f"{m.asset} [{m.partition}] was done twice"
    assert {asset for asset, partition in found if partition == "2013-02"} == set(TRAINING)


def test_the_second_backfill_comes_to_the_demo_s_decision(
    killed: Killed, resumed: subprocess.CompletedProcess[str]
) -> None:
    decisions = SqlLedger(f"sqlite:///{killed.state}/ledger.db").decisions(("flights", "arrival_delay"))

    assert [(d.partition, d.outcome) for d in decisions] == [("2013-02", "refused")]
    assert "refused" in resumed.stdout
    assert "log_loss" in resumed.stdout
