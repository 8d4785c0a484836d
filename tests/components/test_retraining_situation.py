"""What retraining sees of a real pipeline: complete periods, new labels, monitoring, events, and what holds it back."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.digest import document_digest
from ml_assets.interfaces import Event, EventFailure, RetryPolicy
from ml_assets.retraining.decide import decide
from ml_assets.retraining.decision import RetrainingDecision
from ml_assets.retraining.gathering import gather
from ml_assets.retraining.recording import history_of
from ml_assets.retraining.situation import Situation
from ml_assets.spec import AutomationSpec
from ml_assets.stages.step import Step
from tests.components.shop import Shop, land_orders, services
from tests.components.test_conditions import spoil

MakeShop = Callable[..., Shop]
PATH = ("shop", "returns")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Path]]:
    """Yield the shop with data of three months, the row index of two, and the model of February; with its folder."""
    folder = tmp_path_factory.mktemp("shop")
    land_orders(folder / "landing")
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(folder, services(folder / "landing"), instance, automation=AutomationSpec(retraining=True))
        for month in ("2024-01", "2024-02", "2024-03"):
            shop.data(month)
        assert shop.run("row_index", partition="2024-01").success
        assert shop.models("2024-02").success
        yield shop, folder


@pytest.fixture
def shop(made: tuple[Shop, Path], instance: dg.DagsterInstance) -> Shop:
    """Return a copy of the shop for one test."""
    return made[0].copy(instance)


def seen(shop: Shop, now: datetime | None = None) -> Situation:
    step = Step(pipeline=shop.pipeline, services=shop.world, partition="", run_id="")
    return gather(step, history_of(shop.world.ledger, PATH), now or datetime.now(UTC))


def decided(shop: Shop, *, days: float = 2.0) -> RetrainingDecision:
    """Decide some days after now: the cool-down after the model of February is over then."""
    now = datetime.now(UTC) + timedelta(days=days)
    return decide(seen(shop, now), shop.world.policy.effective(PATH), now)


def watch(shop: Shop, stage: str, partition: str, **document: Any) -> None:
    """Write what a monitoring stage says of a partition."""
    asset = ("shop", "returns", stage)
    shop.world.data_store.write_document(asset, partition, document, data_version=document_digest(document))


def labelled(shop: Shop, month: str, before: datetime) -> int:
    table = shop.world.data_store.read(("shop", "returns", "row_index"), month)
    return sum(
        at < before
        for at, given in zip(table["label_time"].to_pylist(), table["labelled"].to_pylist(), strict=True)
        if given
    )


def test_the_newest_complete_period_and_its_labels_are_found(shop: Shop) -> None:
    found = seen(shop)

    assert found.period is not None
    assert found.training is not None
    assert (found.period.key, found.training.period) == ("2024-03", "2024-02")
    assert found.period.window == ("2024-01", "2024-02")
    assert found.period.unindexed == ()
    begin = datetime(2024, 3, 1, tzinfo=UTC)
    assert found.period.new_labels == labelled(shop, "2024-02", begin) > 1000
    assert found.period.labels == 31 * 30 * 2
    assert found.period.labels_known_at is not None
    assert datetime(2024, 4, 1, tzinfo=UTC) < found.period.labels_known_at < datetime(2024, 4, 2, tzinfo=UTC)


def test_new_labels_are_a_cause_and_before_they_are_known_the_period_waits_for_them(shop: Shop) -> None:
    ready = decided(shop)
    assert (ready.outcome, ready.period, ready.number) == ("retrain", "2024-03", 1)
    assert [cause.name for cause in ready.causes if cause.counts] == ["new_data"]
    assert "(retraining.min_new_labels: 1000, built-in" in ready.reasons[0]

    early = datetime(2024, 3, 20, tzinfo=UTC)
    waiting = decide(seen(shop, early), shop.world.policy.effective(PATH), early)

    assert waiting.outcome == "wait"
    assert "labels" in [guard.name for guard in waiting.holding]


def test_a_refused_file_of_the_newest_month_leaves_the_month_before(shop: Shop, made: tuple[Shop, Path]) -> None:
    spoil(made[1], "2024-03", "FR", 5000.0)
    shop.run("raw_data", "features", partition="FR|2024-03")

    found = seen(shop)

    assert found.period is not None
    assert found.period.key == "2024-02"
    assert "2024-03: Gate 'expectations' failed on shop/returns/raw_data [FR|2024-03]" in found.incomplete[0]
    held = decided(shop)
    assert held.outcome == "wait"
    assert "tried" in [guard.name for guard in held.holding], "February was decided on"


def test_a_missing_row_index_is_waited_for(make_shop: MakeShop) -> None:
    shop = make_shop(automation=AutomationSpec(retraining=True))
    for month in ("2024-01", "2024-02"):
        shop.data(month)

    held = decided(shop)

    assert held.outcome == "wait"
    assert "1 periods to learn from have no row index: 2024-01." in " ".join(held.reasons)


def test_events_and_dead_letters_of_the_period_hold_it_back(shop: Shop) -> None:
    now, inbox = datetime.now(UTC), shop.world.inbox
    event = Event(source="arrivals", key="a", pipeline=PATH, partition="DE|2024-03", payload={"place": "a"})
    inbox.receive([event], dedup=timedelta(hours=1), now=now)
    bad = Event(source="arrivals", key="b", pipeline=PATH, partition="FR|2024-03", payload={"place": "b"})
    inbox.bury(bad, EventFailure(reason="wrong schema", transient=False), now=now)

    names = {guard.name: guard.sentence for guard in decided(shop).holding}

    assert names.keys() == {"bad_data", "events"}
    assert names["events"] == "1 event of 2024-03 waiting for a run, or in one."
    assert names["bad_data"].startswith("1 dead letter concerns 2024-03")


def test_a_dead_letter_counts_however_many_events_came_after_it(shop: Shop) -> None:
    now, inbox = datetime.now(UTC), shop.world.inbox
    bad = Event(source="arrivals", key="b", pipeline=PATH, partition="FR|2024-03", payload={"place": "b"})
    inbox.bury(bad, EventFailure(reason="wrong schema", transient=False), now=now)
    later = [Event(source="http", key=str(n), pipeline=PATH, partition="DE|2024-01") for n in range(1100)]
    inbox.receive(later, dedup=timedelta(hours=1), now=now)

    assert "bad_data" in {guard.name for guard in decided(shop).holding}


def test_a_dead_letter_whose_partition_a_newer_event_made_holds_nothing(shop: Shop) -> None:
    now, inbox = datetime.now(UTC), shop.world.inbox
    for key in ("bad", "corrected"):
        event = Event(source="arrivals", key=key, pipeline=PATH, partition="FR|2024-03", payload={"place": "b"})
        (kept,) = inbox.receive([event], dedup=timedelta(hours=1), now=now).new
        inbox.claim([kept.number], key, lease=timedelta(minutes=1), now=now)
        dies = {kept.number: EventFailure(reason="wrong schema", transient=False)} if key == "bad" else {}
        assert "bad_data" not in {guard.name for guard in decided(shop).holding} or key == "corrected"
        inbox.finish(key, dies, retry=RetryPolicy(attempts=2, backoff=timedelta(minutes=1)), now=now)

    held = {guard.name for guard in decided(shop).holding}

    assert not held & {"bad_data", "events"}


def test_drift_counts_only_when_quality_suffers(shop: Shop) -> None:
    moved = {"verdict": "drift", "moved": ["amount"], "importance_moved": 0.6}
    watch(shop, "drift", "DE|2024-03", **moved)
    watch(shop, "performance", "DE|2024-03", verdict="fine", reasons=[])
    harmless = {cause.name: cause for cause in decided(shop).causes}
    assert not harmless["drift"].counts
    assert "quality does not suffer" in harmless["drift"].sentence
    assert "DE|2024-03: amount moved, with 60% of the importance" in harmless["drift"].sentence

    watch(shop, "performance", "DE|2024-03", verdict="decayed", reasons=["log_loss rose by 0.1."])

    harmful = {cause.name: cause for cause in decided(shop).causes}
    assert harmful["drift"].counts
    assert harmful["decay"].counts
    assert "DE|2024-03: log_loss rose by 0.1" in harmful["decay"].sentence


def test_what_was_said_of_a_replaced_champion_is_no_cause(shop: Shop) -> None:
    assert shop.world.ledger.decisions(PATH)[-1].outcome == "promoted"
    watch(shop, "performance", "DE|2024-02", verdict="decayed", reasons=["log_loss rose."])

    assert seen(shop).performance == ()


def test_nothing_is_trained_on_what_was_decided_on_already(shop: Shop) -> None:
    assert shop.models("2024-03").success

    held = decided(shop)

    assert held.outcome == "wait"
    assert "tried" in [guard.name for guard in held.holding]


def test_a_pipeline_without_data_waits(make_shop: MakeShop) -> None:
    held = decided(make_shop(automation=AutomationSpec(retraining=True)))

    assert (held.outcome, held.period) == ("wait", None)
    assert held.reasons[0] == "No period is complete. No features have been made."
