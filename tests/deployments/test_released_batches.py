"""A batch that is given back leaves no run behind: neither in the queue's antechamber, nor at work."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from ml_assets.delivery.settings import LEASE
from ml_assets.delivery.tags import BATCH_TAG, RUN_KEY_TAG
from tests.deployments.test_arrivals_sensor import Clock, Location

pytestmark = pytest.mark.filterwarnings("ignore:Non-compliant tag keys")  # Dagster's own, of two dimensions


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def location(tmp_path: Path, clock: Clock) -> Iterator[Location]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Location(tmp_path, instance)


def claimed_without_a_range(location: Location) -> str:
    """Leave a batch that no one run can carry any more, as when the declared groups changed; return its name."""
    location.offer("DE|2024-01", "DE|2024-03")
    name = "shop/returns/0f1e2d3c"
    assert location.world.inbox.claim([1, 2], name, lease=LEASE, now=datetime.now(UTC)) is not None
    return name


def made(location: Location, batch: str) -> dg.DagsterRun:
    """Make the batch's run as the daemon does before it submits it."""
    (job,) = (j for j in location.repository.get_all_jobs() if j.name.startswith("arrivals_"))
    return location.instance.create_run_for_job(job, tags={RUN_KEY_TAG: batch, BATCH_TAG: batch})


def test_a_run_that_was_never_submitted_is_canceled_when_its_batch_is_released(
    location: Location, clock: Clock
) -> None:
    name = claimed_without_a_range(location)
    run = made(location, name)
    other = made(location, "shop/returns/another")
    clock.forward(seconds=61)

    requests = location.tick()

    assert sorted(r.partition_key or "" for r in requests) == ["DE|2024-01", "DE|2024-03"]
    assert name not in {r.run_key for r in requests}
    status = {r.run_id: r.status.value for r in location.instance.get_runs()}
    assert status == {run.run_id: "CANCELED", other.run_id: "NOT_STARTED"}
    (event,) = location.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_CANCELED)
    assert "Its batch of events was released before the run was submitted." in event.message


def test_a_run_that_got_into_the_queue_meanwhile_keeps_the_batch(location: Location, clock: Clock) -> None:
    name = claimed_without_a_range(location)
    run = made(location, name)
    location.instance.report_run_failed(run, "its process was killed")
    clock.forward(seconds=61)

    assert location.tick() == []

    assert {e.reason for e in location.world.inbox.events()} == {
        f"Run {run.run_id} failed before it made [{p}]: its process was killed" for p in ("DE|2024-01", "DE|2024-03")
    }
    assert {e.not_before - datetime.now(UTC) > timedelta(0) for e in location.world.inbox.events()} == {True}
