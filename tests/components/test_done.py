"""What a second start leaves out: what is materialized and judged by the policy as it is now."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from ml_assets.cli.done import Records, refused, remaining
from ml_assets.cli.plan import Backfill
from ml_assets.testing.policy_source import FakePolicySource
from tests.components.shop import Shop, policy

MakeShop = Callable[..., Shop]
PATH = ("shop", "returns")


def planned(shop: Shop) -> tuple[Backfill, Records]:
    pipeline = shop.pipeline
    plan = Backfill(pipeline=pipeline, module="m", first="2024-02", last="2024-02", launched_by="lena")
    return plan, Records(instance=shop.instance, services=shop.world)


def left(shop: Shop) -> tuple[str, ...]:
    plan, records = planned(shop)
    (run,) = plan.model_runs("2024-02")
    rest = remaining(run, ["2024-02"], plan, records)
    return () if rest is None else tuple(asset.removeprefix("shop/returns/") for asset in rest.assets)


def test_only_what_is_not_done_and_what_follows_it_is_left(make_shop: MakeShop) -> None:
    shop = make_shop()
    for month in ("2024-01", "2024-02"):
        shop.data(month)
    shop.run("row_index", partition="2024-01")
    shop.run("row_index", "training_set", "models/boosting", partition="2024-02")

    assert left(shop) == ("models/logistic", "candidate", "evaluation", "promotion")

    shop.run("models/logistic", "candidate", "evaluation", "promotion", partition="2024-02")
    assert left(shop) == ()


def test_a_changed_threshold_leaves_the_evaluation_to_be_judged_again(make_shop: MakeShop) -> None:
    shop = make_shop(thresholds={"roc_auc.floor": 0.99})
    for month in ("2024-01", "2024-02"):
        shop.data(month)
    shop.run("row_index", partition="2024-01")
    assert not shop.models("2024-02").success
    plan, _ = planned(shop)
    assert refused(plan, "2024-02", shop.world)

    shop.world = replace(shop.world, policy=FakePolicySource({"roc_auc.floor": 0.5, "roc_auc.margin": 0.02}))

    assert left(shop) == ("evaluation", "promotion")
    assert not refused(plan, "2024-02", shop.world)
    assert shop.run("evaluation", "promotion", partition="2024-02").success


def waiting_shop(make_shop: MakeShop) -> Shop:
    """Return a shop whose first model waits for approval, with everything else done."""
    shop = make_shop(thresholds={"material.first_model": True})
    for month in ("2024-01", "2024-02"):
        shop.data(month)
    shop.run("row_index", partition="2024-01")
    assert shop.models("2024-02").success
    assert shop.world.ledger.decisions(PATH)[-1].outcome == "awaiting_approval"
    return shop


def test_what_waits_for_people_is_left_alone_until_its_time_is_over(make_shop: MakeShop) -> None:
    shop = waiting_shop(make_shop)
    assert left(shop) == ()

    (waiting,) = shop.world.ledger.decisions(PATH)
    assert waiting.recorded_at is not None
    shop.world.ledger.record_decision(replace(waiting, recorded_at=waiting.recorded_at - timedelta(days=365)))

    assert left(shop) == ("promotion",)


def test_what_waits_under_a_policy_that_is_no_more_is_decided_again(make_shop: MakeShop) -> None:
    shop = waiting_shop(make_shop)

    shop.world = replace(shop.world, policy=policy(**{"material.first_model": True, "approval.needed": 2}))

    assert left(shop) == ("promotion",)
    assert shop.run("promotion", partition="2024-02").success
    assert left(shop) == ()


def test_a_promotion_that_died_after_its_decision_is_finished(make_shop: MakeShop) -> None:
    shop = waiting_shop(make_shop)
    (waiting,) = shop.world.ledger.decisions(PATH)

    # What a process leaves that is killed when it has recorded the decision, and has moved no alias yet.
    shop.world.ledger.record_decision(replace(waiting, outcome="promoted", decided_by="anna", recorded_at=None))

    assert left(shop) == ("promotion",)
    assert shop.run("promotion", partition="2024-02").success
    assert left(shop) == ()
