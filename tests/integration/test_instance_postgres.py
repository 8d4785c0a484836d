"""Dagster's runs, events and schedules on PostgreSQL, as the chart has them: times, the fair queue, launched runs."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from ml_assets.compute import MODELS_POOL
from ml_assets.executors.pool_limits import give_default_limit
from ml_assets.interfaces import ComputeRules, TeamShare
from ml_assets.testing.spend import cost
from resources.fair_daemon import FairQueueDaemon
from resources.fair_queue import queue_report
from tests.integration.launched_runs import FAILURE, SUCCESS, Launches, launches, wait_until
from tests.integration.sharing_world import rules, utc_now, world
from tests.postgres_server import dagster_storages

pytestmark = [pytest.mark.slow, pytest.mark.postgres]


def test_times_are_utc_whatever_the_server_s_zone_is(postgres_database: str) -> None:
    engine = sa.create_engine(postgres_database.replace("postgresql:", "postgresql+psycopg2:"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW timezone").scalar_one() == "Asia/Kolkata"

    with world(rules(), dagster_storages(postgres_database)) as sharing:
        sharing.submit("flights-1")
        record = sharing.instance.get_run_record_by_id(sharing.id("flights-1"))
        report = queue_report(sharing.instance, sharing.policy, sharing.spend)

    assert record is not None
    assert abs(utc_now() - record.create_timestamp) < timedelta(minutes=1)
    assert abs(utc_now() - record.update_timestamp) < timedelta(minutes=1)
    (queued,) = report.queued
    assert abs(utc_now() - queued.submitted) < timedelta(minutes=1)


def test_the_queue_shares_places_budgets_and_waits_as_it_does_on_files(postgres_database: str) -> None:
    teams = {"flights": TeamShare(budget_per_month=10.0)}
    storages = dagster_storages(postgres_database)
    with world(ComputeRules(capacity={"gpus": 2}, teams=teams), storages) as sharing:
        for n in range(6):
            sharing.submit(f"births-{n}")
        assert sharing.look() == ["births-0", "births-1"]
        sharing.submit("flights-1")
        assert sharing.look() == []
        sharing.end("births-0")
        assert sharing.look() == ["flights-1"]

        sharing.spend.record([cost(run_id="old", seconds=43200, price_per_hour=1.0, ended_at=utc_now())], now=utc_now())
        sharing.submit("flights-2")
        for name in ("births-1", "flights-1"):
            sharing.end(name)
        sharing.daemon = FairQueueDaemon(0.5, policy=sharing.policy, spend=sharing.spend)  # one that has read no sums
        assert sharing.look() == ["births-2", "births-3"]
        assert "flights spent 12.00 of its budget of 10.00 EUR" in sharing.log("flights-2")


def test_a_default_limit_that_was_changed_reaches_pools_that_are_there(
    postgres_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    with world(rules(), dagster_storages(postgres_database), pools={"default_limit": 2}) as sharing:
        storage = sharing.instance.event_log_storage
        give_default_limit(storage, MODELS_POOL, 5)
        storage.set_concurrency_slots("own", 7)
        sharing.submit("births-1")

        assert sharing.look() == ["births-1"]

        assert {pool.name: pool.limit for pool in storage.get_pool_limits()} == {MODELS_POOL: 2, "own": 7}
        assert storage.get_concurrency_info(MODELS_POOL).slot_count == 2
    assert "cannot be read" not in caplog.text


@pytest.fixture
def home(postgres_database: str, tmp_path: Path) -> Iterator[Launches]:
    with launches(tmp_path, postgres_database, kill_after_seconds=1.0) as opened:
        yield opened


def test_runs_are_forked_from_the_warm_process_and_what_a_killed_one_held_is_freed(home: Launches) -> None:
    two = [home.launch("patient_job"), home.launch("steps_job")]  # one of them forks its step once more
    wait_until(lambda: len(home.notes("patient")) == 2, "two runs at once")
    home.go()
    assert [home.finish(run_id) for run_id in two] == [SUCCESS, SUCCESS]
    failing = home.launch("raising_job")
    assert home.finish(failing) == FAILURE
    assert "the reason of this failure" in home.messages(failing)

    storage = home.instance.event_log_storage
    storage.set_concurrency_slots(MODELS_POOL, 1)
    killed = home.create("crashing_job")
    assert storage.claim_concurrency_slot(MODELS_POOL, killed, "crashing").is_claimed
    home.launch_created(killed)
    assert home.finish(killed) == FAILURE
    assert "signal 11 (SIGSEGV)" in home.messages(killed)
    wait_until(lambda: not storage.get_concurrency_info(MODELS_POOL).active_slot_count, "a free slot")
