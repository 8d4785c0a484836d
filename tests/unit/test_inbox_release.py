"""`ml-assets inbox release`: batches that no sensor looks after are marked, and end; others are left alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.cli.inbox import inbox as inbox_command
from ml_assets.delivery.tags import RUN_KEY_TAG
from ml_assets.errors import InboxError
from ml_assets.testing.inbox import NOW, PIPELINE, event
from ml_assets.testing.inbox_examples import DEDUP, MINUTE, OTHER
from tests.unit.test_inbox_cli import Desk, desk

__all__ = ["desk"]

OLD = "flights/cancellation/0f1e2d3c"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def fill(desk: Desk) -> None:
    """Leave a batch (1, 2) of a pipeline that there is not, and one (3) of the one that there is."""
    inbox = desk.inbox
    inbox.receive(
        [event(key="1", pipeline=OTHER), event(key="2", pipeline=OTHER), event(key="3")], dedup=DEDUP, now=NOW
    )
    inbox.claim([1, 2], OLD, lease=MINUTE, now=NOW)
    inbox.claim([3], "flights/arrival_delay/4a5b", lease=MINUTE, now=NOW)


def make_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **tags: str) -> str:
    @dg.job
    def carrying() -> None:
        pass

    return instance.create_run_for_job(carrying, status=status, tags={RUN_KEY_TAG: OLD, **tags}).run_id


def states(desk: Desk) -> dict[int, str]:
    return {kept.number: kept.state for kept in desk.inbox.events()}


def test_a_batch_that_no_sensor_looks_after_is_marked(desk: Desk) -> None:
    fill(desk)

    said = desk.say(inbox_command, "list")

    assert said.count("claimed *") == 2
    assert said.endswith(f"* flights/cancellation: no sensor looks after it. End it: ml-assets inbox release {OLD}")
    assert "*" not in desk.say(inbox_command, "list", "flights/arrival_delay")


def test_its_events_become_dead_letters(desk: Desk, instance: dg.DagsterInstance) -> None:
    fill(desk)

    said = desk.say(inbox_command, "release", OLD)

    assert said == f"The batch {OLD} is over. Dead letters now: 1, 2. See: ml-assets dead-letters list"
    assert states(desk) == {1: "dead", 2: "dead", 3: "claimed"}
    kept = desk.inbox.event(1)
    assert kept is not None
    assert kept.reason == "Released by lena: nothing starts by events of flights/cancellation any more."
    assert "*" not in desk.say(inbox_command, "list")
    assert not desk.inbox.start(OLD, "late", now=NOW), "a run that comes late has no batch"


@pytest.mark.parametrize("status", ["STARTING", "STARTED", "CANCELING"])
@pytest.mark.parametrize("known", [False, True])
def test_a_run_that_lives_keeps_it(desk: Desk, instance: dg.DagsterInstance, status: str, *, known: bool) -> None:
    fill(desk)
    run_id = make_run(instance, dg.DagsterRunStatus(status), **({RUN_KEY_TAG: "elsewhere"} if known else {}))
    if known:
        desk.inbox.start(OLD, run_id, now=NOW)
    before = states(desk)

    error: Any = desk.run(inbox_command, "release", OLD).exception

    assert isinstance(error, InboxError)
    assert f"has run {run_id}, which is {status.lower()}. Nothing was changed: cancel the run" in str(error)
    assert states(desk) == before


def test_a_run_that_is_over_or_was_deleted_does_not(desk: Desk, instance: dg.DagsterInstance) -> None:
    fill(desk)
    make_run(instance, dg.DagsterRunStatus.FAILURE)
    desk.inbox.start(OLD, "deleted", now=NOW)

    desk.say(inbox_command, "release", OLD)

    assert states(desk) == {1: "dead", 2: "dead", 3: "claimed"}


def test_a_run_that_was_never_submitted_is_canceled(desk: Desk, instance: dg.DagsterInstance) -> None:
    fill(desk)
    run_id = make_run(instance, dg.DagsterRunStatus.NOT_STARTED)

    desk.say(inbox_command, "release", OLD)

    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.CANCELED


def test_what_a_sensor_looks_after_is_not_released(desk: Desk, instance: dg.DagsterInstance) -> None:
    fill(desk)

    error = desk.run(inbox_command, "release", "flights/arrival_delay/4a5b").exception

    assert "is looked after by the sensor `arrivals` of flights" in str(error), "its YAML is only broken"
    assert desk.inbox.counts()[PIPELINE] == {"claimed": 1}
    assert "No batch 'b9' goes on." in str(desk.run(inbox_command, "release", "b9").exception)


def test_a_pipeline_that_starts_by_events_no_more_is_looked_after_by_nobody(desk: Desk, tmp_path: Path) -> None:
    text = Path(__file__).parents[2] / "deployments" / "flights" / "defs" / "arrival_delay"
    folder = tmp_path / "deployments" / "flights" / "defs" / "arrival_delay"
    for file in text.glob("*.*"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    fill(desk)
    assert desk.say(inbox_command, "list").count("claimed *") == 2
    yaml = folder / "defs.yaml"
    written = yaml.read_text(encoding="utf-8")
    yaml.write_text(written.replace("automation: {arrivals: true, ", "automation: {"), encoding="utf-8")
    assert yaml.read_text(encoding="utf-8") != written

    assert desk.say(inbox_command, "list").count("claimed *") == 3
