"""Two models on live rows: each row in the arm its id says, labels joined later, a report that may be peeked at."""

from collections.abc import Callable
from dataclasses import replace

import dagster as dg
import numpy as np
import pytest

from ml_assets.experiments.assignment import arms
from ml_assets.stages.champions import latest_by_partition
from ml_assets.stages.experiment import experiments
from ml_assets.testing.serving_check import FakeServingCheck
from tests.components.shop import Shop, land_orders, policy, services

PATH = ("shop", "returns")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A champion of February, a candidate of March that more rows may decide and that is not material, and April."""
    folder = tmp_path_factory.mktemp("shop")
    land_orders(folder / "landing", ("2024-01", "2024-02", "2024-03", "2024-04"))
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(folder, services(folder / "landing"), instance)
        for month in ("2024-01", "2024-02", "2024-03", "2024-04"):
            shop.data(month)
            shop.run("row_index", partition=month)
        assert shop.models("2024-02").success
        # A margin far below the noise: the comparison does not surely end otherwise than undecided.
        settings = {"roc_auc.margin": 1e-6, "ab.challenger_share": 0.5}
        shop.world = replace(shop.world, policy=policy(**settings))
        assert shop.models("2024-03").success
    decision = latest_by_partition(shop.world.ledger.decisions(PATH))["2024-03"]
    undecided = replace(
        decision,
        outcome="undecided",
        evidence={**decision.evidence, "approval_reasons": []},
        recorded_at=None,
    )
    assert undecided.evidence["serving"]["example_scores"], "it was served: the policy lets an undecided one score"
    shop.world.ledger.record_decision(undecided)
    return shop


@pytest.fixture
def two_arms(prepared: Shop, instance: dg.DagsterInstance) -> Shop:
    """A copy of the test's own."""
    return prepared.copy(instance)


def score_april(shop: Shop) -> None:
    for country in ("DE", "FR"):
        assert shop.run("predictions", partition=f"{country}|2024-04").success


def test_each_row_is_scored_by_the_arm_that_its_id_says(two_arms: Shop) -> None:
    score_april(two_arms)

    frame = two_arms.world.data_store.read((*PATH, "predictions"), "DE|2024-04").to_pandas()
    expected = arms(frame["row_id"].to_numpy(), salt="shop/returns:2-vs-1", challenger_share=0.5)
    assert ((frame["arm"] == "challenger").to_numpy() == expected).all()
    assert (frame["model_version"] == np.where(expected, "2", "1")).all()
    assert 0.4 < expected.mean() < 0.6


def test_a_material_candidate_scores_nothing_that_is_used(two_arms: Shop) -> None:
    decision = latest_by_partition(two_arms.world.ledger.decisions(PATH))["2024-03"]
    other = {**decision.evidence["fingerprint"], "features": ["amount", "per_item"]}
    material = {**decision.evidence, "fingerprint": other, "approval_reasons": []}
    two_arms.world.ledger.record_decision(replace(decision, evidence=material, recorded_at=None))

    score_april(two_arms)

    table = two_arms.world.data_store.read((*PATH, "predictions"), "DE|2024-04")
    assert "arm" not in table.column_names
    assert set(table["model_version"].to_pylist()) == {"1"}


def test_the_report_joins_the_labels_and_says_go_on(two_arms: Shop) -> None:
    score_april(two_arms)

    (found,) = experiments(two_arms.world, two_arms.pipeline)

    assert (found.champion, found.challenger, found.periods, found.share) == ("1", "2", ("2024-04",), 0.5)
    assert found.report.scored.matches
    assert found.report.verdict.n_days == 30
    assert found.report.outcome == "go_on"


def test_a_pipeline_without_arms_has_no_experiment(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop()

    assert isinstance(shop.world.serving_check, FakeServingCheck)
    assert experiments(shop.world, shop.pipeline) == []
