"""What arrived before a pipeline had a champion is scored by itself once there is one: once, and not while paused."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.delivery.tags import AFTER_BATCH_TAG, AFTER_PROMOTION_TAG, BATCH_TAG, RANGE_END_TAG, RANGE_START_TAG
from ml_assets.digest import document_digest
from ml_assets.retraining.pauses import pause, resume
from ml_assets.testing.ledger import decision
from tests.deployments.test_arrivals_sensor import PATH, Clock, Location

pytestmark = pytest.mark.filterwarnings("ignore:Non-compliant tag keys")  # Dagster's own, of two dimensions


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def location(tmp_path: Path, clock: Clock) -> Iterator[Location]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Location(tmp_path, instance)


def arrive(location: Location, *names: str) -> None:
    """Let files arrive and their data be made."""
    location.land(*names)
    (request,) = location.tick()
    assert location.carry_out(request).success
    assert location.tick() == []
    assert set(location.events().values()) == {"done"}


def promote(location: Location, clock: Clock, month: str = "2024-01", **changes: Any) -> None:
    """Let a model be promoted, and its promotion settle."""
    promoted = decision(pipeline=PATH, partition=month, recorded_at=datetime.now(UTC), **changes)
    location.world.ledger.record_decision(promoted)
    clock.forward(seconds=61)


def score(location: Location, partition: str) -> None:
    """Let there be predictions of a partition."""
    text = {"scored": partition}
    location.world.data_store.write_document(
        (*PATH, "predictions"), partition, text, data_version=document_digest(text)
    )


def test_what_came_while_there_was_no_champion_is_scored_once_there_is_one(location: Location, clock: Clock) -> None:
    arrive(location, *(f"{month}_{country}.csv" for month in ("2024-01", "2024-02", "2024-03") for country in ("DE",)))
    assert location.tick() == []
    promote(location, clock)

    (request,) = location.tick()

    assert (request.tags[RANGE_START_TAG], request.tags[RANGE_END_TAG]) == ("DE|2024-02", "DE|2024-03"), (
        "January has no champion before it"
    )
    stages = [key.path[2] for key in request.asset_selection or []]
    assert stages[0] == "predictions"
    assert set(stages) <= {"predictions", "drift", "performance"}
    assert request.tags[AFTER_PROMOTION_TAG] == "shop/returns"
    assert BATCH_TAG not in request.tags
    (again,) = location.tick()
    assert again.run_key == request.run_key, "until there is its run; Dagster drops the second one"
    location.carry_out(request)  # the fake model cannot be loaded: what becomes of the run does not matter
    cursor = location.cursor
    for _ in range(3):
        assert location.tick() == []
    location.cursor = None
    assert location.tick() == [], "the cursor saves work only"
    assert cursor is not None
    promote(location, clock, "2024-02")
    assert location.tick() == [], "it was asked for"


def test_a_promotion_that_was_recorded_just_now_may_not_have_moved_the_alias(location: Location, clock: Clock) -> None:
    arrive(location, "2024-02_DE.csv")
    location.world.ledger.record_decision(decision(pipeline=PATH, partition="2024-01", recorded_at=datetime.now(UTC)))
    assert location.tick() == []
    clock.forward(seconds=61)

    (request,) = location.tick()
    assert request.partition_key == "DE|2024-02"


def test_a_pause_holds_it_and_loses_nothing(location: Location, clock: Clock) -> None:
    arrive(location, "2024-02_DE.csv")
    now = datetime.now(UTC)
    pause(location.world.ledger, PATH, by="lena", reason="Inventory.", now=now)
    promote(location, clock)
    with pytest.MonkeyPatch.context() as patched:  # there may be a million events, and a pause may last for days
        patched.setattr(type(location.world.inbox), "events", None)
        for _ in range(2):
            assert location.tick() == []
            assert location.said == "Nothing to start."

    resume(location.world.ledger, PATH, by="lena", reason="Over.", now=now)

    (request,) = location.tick()
    assert request.partition_key == "DE|2024-02"


def test_what_has_predictions_and_what_no_event_made_is_left_alone(location: Location, clock: Clock) -> None:
    arrive(location, "2024-02_DE.csv", "2024-02_FR.csv")
    assert location.tick() == []
    location.land("2024-03_DE.csv")
    assert location.shop.run("raw_data", "features", partition="DE|2024-03").success  # by hand
    score(location, "DE|2024-02")
    assert location.tick() == [], "the file by hand is known by its bytes"
    promote(location, clock)

    (request,) = location.tick()

    assert request.partition_key == "FR|2024-02"


def test_what_a_batch_asked_for_is_not_asked_for_again(location: Location, clock: Clock) -> None:
    promote(location, clock)
    location.land("2024-02_DE.csv")
    (request,) = location.tick()
    assert location.carry_out(request).success
    (follow_up,) = location.tick()
    assert follow_up.tags[AFTER_BATCH_TAG] == request.run_key
    location.carry_out(follow_up)  # and fails, since there is no such model
    promote(location, clock, "2023-12")

    for _ in range(3):
        assert location.tick() == []
    assert location.world.data_store.partitions((*PATH, "predictions")) == []


def test_what_a_run_is_at_work_on_is_its_batches_to_score(location: Location, clock: Clock) -> None:
    location.land("2024-02_DE.csv")
    (request,) = location.tick()
    assert location.carry_out(request).success
    promote(location, clock)

    (follow_up,) = location.tick()

    assert follow_up.tags[AFTER_BATCH_TAG] == request.run_key
    assert AFTER_PROMOTION_TAG not in follow_up.tags


def test_many_partitions_are_scored_in_runs_of_the_policys_size(tmp_path: Path, clock: Clock) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        location = Location(tmp_path, instance, **{"inbox.batch_partitions": 1})
        location.land("2024-02_DE.csv", "2024-02_FR.csv", "2024-03_DE.csv")
        for request in location.tick():
            assert location.carry_out(request).success
        assert location.tick() == []
        promote(location, clock)

        first, *rest = location.tick()
        assert [first.partition_key, *(r.partition_key for r in rest)] == ["DE|2024-02", "FR|2024-02", "DE|2024-03"]

        location.carry_out(first)  # and the daemon dies before it submits the others
        assert [r.run_key for r in location.tick()] == [r.run_key for r in rest]
