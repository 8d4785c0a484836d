"""A champion's reference is built once and frozen; its performance is estimated at once and measured with labels."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from ml_assets.digest import document_digest
from ml_assets.errors import EvaluationError
from ml_assets.gates import CALIBRATION, PERFORMANCE
from ml_assets.interfaces import Decision
from ml_assets.metadata import markdown_table
from ml_assets.spec import EvaluationSpec, LabelSpec, SelectionSpec, VariantSpec
from ml_assets.stages import performance
from ml_assets.stages.predictions import NoChampionYet
from ml_assets.stages.reference import STAGE, build, reference_of
from ml_assets.stages.serving import UnservableError
from ml_assets.stages.step import StageResult, Step
from ml_assets.stages.trust import trusted_champion
from ml_assets.testing.data_store import FakeDataStore
from tests.components.shop import Shop, land_orders, orders, services
from tests.components.shop import shop as shop_pipeline

PATH = ("shop", "returns")
BEFORE, FIRST, NEXT = "2024-01", "2024-02", "2024-03"
PARTITION = f"DE|{NEXT}"
FAR_FUTURE = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop whose February made a champion that scored the German orders of March."""
    variants = {"logistic": shop_pipeline().variants["logistic"]}
    return _scored(tmp_path_factory.mktemp("shop"), variants=variants)


@pytest.fixture
def shop(scored: Shop, instance: dg.DagsterInstance) -> Shop:
    """A copy of it of the test's own."""
    return scored.copy(instance)


def _scored(folder: Path, **changes: Any) -> Shop:
    with dg.DagsterInstance.ephemeral() as instance:
        world = services(folder / "landing", **{"log_loss.margin": 0.02, "mae.margin": 1.0})
        shop = Shop(folder, world, instance, **changes)
        land_orders(Path(shop.world.landing.root), (BEFORE, FIRST, NEXT))
        for month in (BEFORE, FIRST):
            shop.data(month)
        assert shop.run("row_index", partition=BEFORE).success
        assert shop.models(FIRST).success
        assert shop.run("raw_data", "features", "predictions", partition=PARTITION).success
    return shop


def step(shop: Shop, partition: str = PARTITION) -> Step:
    return Step(pipeline=shop.pipeline, services=shop.world, partition=partition, run_id="run")


def champion(shop: Shop) -> Decision:
    found = trusted_champion(shop.world, PATH, NEXT).champion
    assert found is not None
    return found


def measured(shop: Shop) -> tuple[StageResult, dict[str, Any]]:
    result = performance.run(step(shop))
    return result, shop.world.data_store.read_document(result.stored.asset, PARTITION)


def checks(result: StageResult) -> dict[str, bool]:
    return {j.check: j.passed for j in result.judgements}


def land_march(shop: Shop, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Rewrite the German orders of March as they would arrive again, and what is made of them."""
    changed = change(orders(NEXT, "DE", per_day=30, signal=1.5))
    changed.to_csv(Path(shop.world.landing.root) / "shop" / f"{NEXT}_DE.csv", index=False)
    assert shop.run("raw_data", "features", partition=PARTITION).success


OTHER_TASKS: dict[str, dict[str, Any]] = {
    "multiclass": {"label": {"column": "outcome", "task": "multiclass"}, "metrics": ("log_loss", "roc_auc_ovr")},
    "multiclass in whole numbers": {
        "label": {"column": "outcome_code", "task": "multiclass"},
        "metrics": ("log_loss", "accuracy"),
    },
    "regression": {"label": {"column": "spend", "task": "regression"}, "metrics": ("mae", "wape", "r2")},
}


def test_a_reference_is_built_once_and_the_same_whoever_builds_it(shop: Shop) -> None:
    store = shop.world.data_store
    first = reference_of(step(shop), champion(shop))
    stored = store.describe(("shop", "returns", STAGE), "1")
    again = reference_of(step(shop, f"FR|{NEXT}"), champion(shop))
    built = build(step(shop), champion(shop), "1")

    assert stored is not None
    assert first.document() == again.document() == built.document()
    assert stored.data_version == document_digest(built.document())
    assert first.partition == FIRST
    assert first.partitions == tuple(
        (f"{country}|{BEFORE}", _version(shop, f"{country}|{BEFORE}")) for country in ("DE", "FR")
    )


def _version(shop: Shop, partition: str) -> str:
    stored = shop.world.data_store.describe(("shop", "returns", "features"), partition)
    assert stored is not None
    return stored.data_version


def test_a_reference_knows_importance_scores_and_groups(shop: Shop) -> None:
    found = reference_of(step(shop), champion(shop))

    assert set(found.importance) == {"amount", "per_item", "country"}
    assert sum(found.importance.values()) == pytest.approx(1.0, abs=1e-5)
    assert found.importance["amount"] > 0.8  # the chance of a return depends on nothing else
    assert found.scores.n_rows == found.parts[""].n_rows
    assert set(found.parts) == {"", "DE", "FR"}
    assert found.part("DE").n_rows + found.part("FR").n_rows == found.part(None).n_rows
    assert found.part("IT") is found.parts[""]


def test_later_versions_of_the_training_data_do_not_move_a_reference(shop: Shop) -> None:
    before = build(step(shop), champion(shop), "1").document()
    path = Path(shop.world.landing.root) / "shop" / f"{FIRST}_DE.csv"
    pd.read_csv(path).assign(amount=1.0).to_csv(path, index=False)
    assert shop.run("raw_data", "features", partition=f"DE|{FIRST}").success
    assert shop.run("row_index", partition=FIRST).success

    assert build(step(shop), champion(shop), "1").document() == before


@pytest.mark.parametrize("other", [{"model_digest": "0" * 64}, {"evaluation": "0" * 64}, {"format": 0}])
def test_a_reference_of_another_model_or_release_is_built_again(shop: Shop, other: dict[str, Any]) -> None:
    right = reference_of(step(shop), champion(shop)).document()
    store, asset = shop.world.data_store, ("shop", "returns", STAGE)
    store.write_document(asset, "1", right | other, data_version="0" * 64)

    assert reference_of(step(shop), champion(shop)).document() == right


def test_a_reference_says_when_the_evaluation_is_gone(shop: Shop) -> None:
    emptied = replace(step(shop), services=replace(shop.world, data_store=FakeDataStore()))
    with pytest.raises(
        EvaluationError, match=r"champion version 1 was evaluated on is gone .* Restore the data store's"
    ):
        reference_of(emptied, champion(shop))


def test_a_reference_says_when_the_candidate_was_replaced(shop: Shop) -> None:
    store, asset = shop.world.data_store, ("shop", "returns", "candidate")
    other = store.read_document(asset, FIRST) | {"prediction_digest": "another"}
    store.write_document(asset, FIRST, other, data_version="1" * 64)

    with pytest.raises(EvaluationError, match=r"candidate of 2024-02 was materialized again after version 1"):
        reference_of(step(shop), champion(shop))


def test_a_reference_is_not_built_of_a_changed_model(shop: Shop) -> None:
    with pytest.raises(UnservableError):
        reference_of(step(shop), replace(champion(shop), model_digest="0" * 64))


def test_a_good_champion_is_fine_by_its_labels(shop: Shop) -> None:
    result, document = measured(shop)

    assert document["verdict"] == "fine"
    assert document["basis"] == "realised"
    assert document["champion"] == document["reference"]["version"] == "1"
    assert document["reference"]["group"] == "DE"
    assert document["n_rows"] == document["n_labelled"] == 31 * 30
    assert not document["calibration"]["miscalibrated"]
    auc = {kind: document[kind]["metrics"]["roc_auc"] for kind in ("reference", "estimated", "realised")}
    assert auc["estimated"]["lower"] < auc["realised"]["value"] < auc["estimated"]["upper"]
    assert checks(result) == {PERFORMANCE: True, CALIBRATION: True}
    assert {j.severity for j in result.judgements} == {"warning"}
    assert set(result.pictures) == {"performance", "calibration"}
    table = result.tables["performance"]
    assert list(table["rows"][:3]) == ["reference", "estimated", "realised"]
    shown = markdown_table(table)
    assert "nan" not in shown.lower()
    head, _, reference, *_ = shown.splitlines()
    assert head.endswith("| loss | margin | p-value |")
    assert reference.endswith("| – | – | – |"), "the reference is compared with nothing"


def test_the_same_inputs_give_the_same_data_version(shop: Shop) -> None:
    assert measured(shop)[0].stored.data_version == measured(shop)[0].stored.data_version


def test_labels_that_come_later_turn_the_estimate_into_a_measurement(shop: Shop) -> None:
    land_march(shop, lambda rows: rows.assign(returned=np.nan))
    result, early = measured(shop)

    assert early["n_labelled"] == 0
    assert early["realised"] is early["calibration"] is None
    assert early["basis"] == "estimated"
    assert early["verdict"] == "fine"
    assert "roc_auc" in early["estimated"]["metrics"]
    assert checks(result) == {PERFORMANCE: True, CALIBRATION: True}
    assert "not judged: labels of 0 of 930 rows are known" in result.judgements[1].reason
    assert set(result.pictures) == {"performance"}
    assert any("performance.min_days asks for 7" in reason for reason in early["reasons"])

    land_march(shop, lambda rows: rows)
    late_result, late = measured(shop)

    assert late["basis"] == "realised"
    assert late["n_labelled"] == 930
    assert late["estimated"] == early["estimated"]
    assert late_result.stored.data_version != result.stored.data_version


def test_labels_that_mean_something_else_are_decay(shop: Shop) -> None:
    land_march(shop, lambda rows: rows.assign(returned=1 - rows["returned"]))
    result, document = measured(shop)

    assert document["verdict"] == "decayed"
    assert document["basis"] == "realised"
    assert {loss["metric"] for loss in document["realised"]["losses"] if loss["sure"]} == {"roc_auc", "log_loss"}
    assert not checks(result)[PERFORMANCE]
    assert "realised roc_auc, log_loss lost more than the margin." in result.judgements[0].reason
    assert document["estimated"]["losses"][0]["sure"] is False  # the scores alone cannot know


def test_a_shifted_rate_is_miscalibration_that_the_ranking_does_not_see(shop: Shop) -> None:
    def fewer(rows: pd.DataFrame) -> pd.DataFrame:
        chance = 1 / (1 + np.exp(-1.5 * (rows["amount"] - 65) / 20))  # of 50 as the champion learnt it
        return rows.assign(returned=(np.random.default_rng(0).random(len(rows)) < chance).astype(int))

    land_march(shop, fewer)
    result, document = measured(shop)

    assert document["verdict"] == "decayed"
    assert document["calibration"]["miscalibrated"]
    assert document["calibration"]["gap"] < -0.1
    assert not checks(result)[CALIBRATION]
    assert "roc_auc" not in {loss["metric"] for loss in document["realised"]["losses"] if loss["sure"]}


def test_days_whose_labels_are_known_in_part_do_not_count(shop: Shop) -> None:
    reference = reference_of(step(shop), champion(shop))
    middle = performance.scored_rows(step(shop), reference, now=datetime(2024, 3, 15, 12, tzinfo=UTC))
    everything = performance.scored_rows(step(shop), reference, now=FAR_FUTURE)

    # A label is known a day later; at noon of the 15th those of the 14th's afternoon are still to come.
    assert middle.days[middle.known].max() == np.datetime64("2024-03-13")
    assert int(middle.known.sum()) == 13 * 30 == middle.y.size
    assert everything.known.all()


def test_without_champion_or_predictions_there_is_no_performance(shop: Shop) -> None:
    with pytest.raises(NoChampionYet, match=r"No version of shop/returns was promoted before 2024-02"):
        performance.run(step(shop, f"DE|{FIRST}"))
    with pytest.raises(NoChampionYet, match=r"\[FR\|2024-03\] was not scored"):
        performance.run(step(shop, f"FR|{NEXT}"))


def test_scores_of_another_version_are_not_taken_for_the_champion(shop: Shop) -> None:
    import pyarrow as pa

    store, asset = shop.world.data_store, ("shop", "returns", "predictions")
    table = store.read(asset, PARTITION)
    other = table.set_column(
        table.column_names.index("model_version"), "model_version", pa.array(["9"] * table.num_rows)
    )
    store.write(asset, PARTITION, other)

    with pytest.raises(EvaluationError, match=r"was scored by version 9, and version 1 is champion of its time now"):
        performance.run(step(shop))


def test_only_the_champions_own_rows_are_judged(shop: Shop) -> None:
    import pyarrow as pa

    store, asset = shop.world.data_store, ("shop", "returns", "predictions")
    table = store.read(asset, PARTITION)
    half = ["1", "2"] * (table.num_rows // 2)
    store.write(
        asset,
        PARTITION,
        table.set_column(table.column_names.index("model_version"), "model_version", pa.array(half)),
    )

    assert measured(shop)[1]["n_rows"] == 465


def test_the_asset_shows_the_verdict_and_both_checks(shop: Shop) -> None:
    done = shop.run("performance", partition=PARTITION)

    assert done.success
    (event,) = done.asset_materializations_for_node("shop__returns__performance")
    assert event.metadata["verdict"].value == "fine"
    assert event.metadata["roc_auc_realised"].value == pytest.approx(event.metadata["roc_auc_estimated"].value, abs=0.1)
    checked = {e.check_name: e for e in done.get_asset_check_evaluations()}
    assert {name: e.passed for name, e in checked.items()} == {PERFORMANCE: True, CALIBRATION: True}
    assert checked[CALIBRATION].metadata["calibration_gap"].value == 0.05


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(OTHER_TASKS))
def test_other_tasks_are_judged_too(tmp_path: Path, task: str) -> None:
    given = OTHER_TASKS[task]
    estimator = "Regressor" if task == "regression" else "Classifier"
    estimator = f"sklearn.ensemble.HistGradientBoosting{estimator}"
    shop = _scored(
        tmp_path,
        label=LabelSpec.model_validate({**given["label"], "known_after": "1d"}),
        variants={"boosting": VariantSpec(estimator=estimator, params={"max_iter": 15})},
        selection=SelectionSpec(metric=given["metrics"][0]),
        evaluation=EvaluationSpec(metrics=given["metrics"], replicates=200),
        gates=(),
    )
    result, document = measured(shop)

    assert (document["verdict"], document["basis"]) == ("fine", "realised")
    assert set(document["realised"]["metrics"]) == set(given["metrics"])
    assert len(document["calibration"]["gaps"]) == (1 if task == "regression" else 3)
    assert set(result.pictures) == {"performance", "calibration"}
    reference = reference_of(step(shop), champion(shop))
    assert sum(reference.importance.values()) == pytest.approx(1.0, abs=1e-5)
    assert len(reference.scores.columns) == (1 if task == "regression" else 3)
