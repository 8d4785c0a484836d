"""YAML (or Python) in, a run out: the whole graph over fakes, for each task type."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.compute as pc
import pytest

from ml_assets.components import TrainingPipeline
from ml_assets.spec import EvaluationSpec, FeaturesSpec, LabelSpec, SelectionSpec, VariantSpec
from ml_assets.stages import raw_data
from ml_assets.stages.step import StageResult, Step
from tests.components.shop import FEATURES, Shop, services

MakeShop = Callable[..., Shop]
PIPELINE = ("shop", "returns")


def through(shop: Shop, *months: str) -> None:
    """Take the pipeline through the first months."""
    for month in months:
        shop.data(month)
    assert shop.run("row_index", partition=months[0]).success
    for month in months[1:]:
        assert shop.models(month).success


def materialization(shop: Shop, stage: str, partition: str) -> dg.AssetMaterialization:
    records = shop.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey([*PIPELINE, *stage.split("/")]), asset_partitions=[partition]),
        limit=1,
    ).records
    found = records[0].asset_materialization
    assert found is not None
    return found


def test_every_asset_records_the_metadata_schema(make_shop: MakeShop) -> None:
    shop = make_shop()
    through(shop, "2024-01", "2024-02", "2024-03")
    assert shop.run("predictions", partition="DE|2024-03").success

    stages = {
        "raw_data": "DE|2024-02",
        "features": "DE|2024-02",
        "predictions": "DE|2024-03",
    } | dict.fromkeys(
        (
            "row_index",
            "training_set",
            "models/logistic",
            "models/boosting",
            "candidate",
            "evaluation",
            "promotion",
        ),
        "2024-02",
    )
    for stage, partition in stages.items():
        metadata = materialization(shop, stage, partition).metadata
        for key in (
            "metadata_version",
            "data_version",
            "upstream_data_versions",
            "code_version",
            "policy_version",
            "seed",
            "duration_seconds",
            "owners",
            "business",
        ):
            assert f"ml_assets/{key}" in metadata, (stage, key)
        stored = shop.world.data_store.describe((*PIPELINE, *stage.split("/")), partition)
        assert stored is not None
        assert metadata["ml_assets/data_version"].value == stored.data_version
        assert materialization(shop, stage, partition).tags["dagster/data_version"] == stored.data_version


def test_column_lineage_names_exactly_what_a_function_reads(make_shop: MakeShop) -> None:
    shop = make_shop()
    shop.data("2024-01")

    lineage = materialization(shop, "features", "DE|2024-01").metadata["dagster/column_lineage"].value
    assert isinstance(lineage, dg.TableColumnLineage)

    deps = {c: {d.column_name for d in found} for c, found in lineage.deps_by_column.items()}
    assert deps["per_item"] == {"amount", "items"}
    assert deps["amount"] == {"amount"}
    assert deps["sent_back"] == {"returned"}
    assert {d.asset_key.path[-1] for found in lineage.deps_by_column.values() for d in found} == {"raw_data"}


def test_a_training_set_refers_to_rows_and_never_to_the_future(make_shop: MakeShop) -> None:
    shop = make_shop()
    through(shop, "2024-01", "2024-02", "2024-03")

    table = shop.world.data_store.read((*PIPELINE, "training_set"), "2024-03")

    assert set(table.column_names) == {"partition", "data_version", "row", "split"}
    assert set(pc.unique(table["partition"]).to_pylist()) == {
        "DE|2024-01",
        "FR|2024-01",
        "DE|2024-02",
        "FR|2024-02",
    }
    validation = table.filter(pc.equal(table["split"], "validation"))
    assert set(pc.unique(validation["partition"]).to_pylist()) == {"DE|2024-02", "FR|2024-02"}


def test_unchanged_input_gives_unchanged_data_versions(make_shop: MakeShop) -> None:
    shop = make_shop()
    through(shop, "2024-01", "2024-02")
    stages = (
        "row_index",
        "training_set",
        "models/logistic",
        "models/boosting",
        "candidate",
        "evaluation",
        "promotion",
    )
    before = {s: materialization(shop, s, "2024-02").tags["dagster/data_version"] for s in stages}

    shop.data("2024-01")
    shop.data("2024-02")
    assert shop.run("row_index", partition="2024-01").success
    assert shop.models("2024-02").success

    assert {s: materialization(shop, s, "2024-02").tags["dagster/data_version"] for s in stages} == before
    assert len(shop.world.ledger.decisions(PIPELINE)) == 1, "the same decision is not recorded twice"
    assert materialization(shop, "promotion", "2024-02").metadata["model_version"].value is not None


def test_a_second_month_is_compared_with_the_champion(make_shop: MakeShop) -> None:
    shop = make_shop()
    through(shop, "2024-01", "2024-02", "2024-03")

    first, second = shop.world.ledger.decisions(PIPELINE)

    assert (first.outcome, first.champion_version) == ("promoted", None)
    assert second.champion_version == first.model_version
    assert second.outcome in {"promoted", "undecided"}
    assert second.reason.startswith("roc_auc against the champion: the improvement is ")
    champion = shop.world.model_registry.version_by_alias("shop.returns", "champion")
    promoted = [d for d in (first, second) if d.outcome == "promoted"][-1]
    assert champion is not None
    assert champion.version == promoted.model_version


def test_predictions_use_the_champion_of_their_time_and_keep_every_row(make_shop: MakeShop) -> None:
    shop = make_shop()
    through(shop, "2024-01", "2024-02", "2024-03")

    result = shop.run("predictions", span=("DE|2024-02", "FR|2024-03"))

    assert result.success
    assert shop.world.data_store.partitions((*PIPELINE, "predictions")) == ["DE|2024-03", "FR|2024-03"]
    scores = shop.world.data_store.read((*PIPELINE, "predictions"), "DE|2024-03")
    features = shop.world.data_store.read((*PIPELINE, "features"), "DE|2024-03")
    assert scores["row_id"].equals(features["row_id"])
    assert pc.min(scores["score"]).as_py() >= 0
    assert pc.max(scores["score"]).as_py() <= 1


def test_a_single_partition_without_a_champion_is_left_out_not_failed(make_shop: MakeShop) -> None:
    shop = make_shop()
    shop.data("2024-01")

    result = shop.run("predictions", partition="DE|2024-01")

    assert result.success
    assert not result.asset_materializations_for_node("shop__returns__predictions")


@pytest.mark.parametrize("span", [("DE|2024-01", "DE|2024-01"), ("DE|2024-01", "FR|2024-01")])
@pytest.mark.parametrize("stage", ["drift", "performance"])
def test_a_stage_that_has_nothing_to_watch_yet_is_left_out_with_its_checks_not_failed(
    make_shop: MakeShop, stage: str, span: tuple[str, str]
) -> None:
    shop = make_shop()
    shop.data("2024-01")

    first, last = span
    result = shop.run(stage, partition=first) if first == last else shop.run(stage, span=span)

    assert result.success
    assert not result.asset_materializations_for_node(f"shop__returns__{stage}")
    assert all(check.passed for check in result.get_asset_check_evaluations())


TASKS: dict[str, dict[str, Any]] = {
    "multiclass": {
        "label": LabelSpec.model_validate({"column": "outcome", "task": "multiclass", "known_after": "1d"}),
        "variants": {
            "boosting": VariantSpec(
                estimator="sklearn.ensemble.HistGradientBoostingClassifier", params={"max_iter": 15}
            )
        },
        "selection": SelectionSpec(metric="log_loss"),
        "evaluation": EvaluationSpec(metrics=("log_loss", "accuracy"), replicates=200),
        "gates": ("log_loss.beats_baseline",),
    },
    "multiclass in whole numbers": {
        "label": LabelSpec.model_validate({"column": "outcome_code", "task": "multiclass", "known_after": "1d"}),
        "variants": {
            "boosting": VariantSpec(
                estimator="sklearn.ensemble.HistGradientBoostingClassifier", params={"max_iter": 15}
            )
        },
        "selection": SelectionSpec(metric="log_loss"),
        "evaluation": EvaluationSpec(metrics=("log_loss", "accuracy"), replicates=200),
        "gates": ("log_loss.beats_baseline",),
    },
    "regression": {
        "label": LabelSpec.model_validate({"column": "spend", "task": "regression", "known_after": "1d"}),
        "variants": {"ridge": VariantSpec(estimator="sklearn.linear_model.Ridge")},
        "features": FeaturesSpec(columns=("amount", "per_item")),
        "selection": SelectionSpec(metric="mae"),
        "evaluation": EvaluationSpec(metrics=("mae", "wape"), replicates=200, baseline="amount"),
        "gates": ("mae.beats_baseline",),
    },
}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_other_tasks_run_through_the_same_graph(make_shop: MakeShop, task: str) -> None:
    shop = make_shop(
        thresholds={
            "log_loss.beats_baseline": 0.0,
            "mae.beats_baseline": 0.0,
            "log_loss.margin": 0.02,
            "mae.margin": 1.0,
        },
        **TASKS[task],
    )
    through(shop, "2024-01", "2024-02")

    assert [d.outcome for d in shop.world.ledger.decisions(PIPELINE)] == ["promoted"]
    shop.data("2024-03")
    assert shop.run("predictions", partition="DE|2024-03").success
    columns = shop.world.data_store.read((*PIPELINE, "predictions"), "DE|2024-03").column_names
    expected = {
        "multiclass": "score_disputed",
        "multiclass in whole numbers": "score_2",
        "regression": "score",
    }[task]
    assert expected in columns


def test_a_stage_is_replaced_in_a_subclass(tmp_path: Path, make_shop: MakeShop, instance: dg.DagsterInstance) -> None:
    class LargeOrders(TrainingPipeline):
        def run_raw_data(self, step: Step) -> StageResult:
            table = raw_data.ingest(step)
            return raw_data.store(step, table.filter(pc.greater(table["amount"], 50)))

    shop = make_shop()
    standard = shop.component
    replaced = LargeOrders(**{name: getattr(standard, name) for name in TrainingPipeline.model_fields})
    (tmp_path / "features.py").write_text(FEATURES, encoding="utf-8")
    before = {
        a.key: a.code_versions_by_key[a.key]
        for a in shop.definitions.assets or []
        if isinstance(a, dg.AssetsDefinition)
    }
    shop.definitions = replaced.definitions(tmp_path)
    after = {
        a.key: a.code_versions_by_key[a.key]
        for a in shop.definitions.assets or []
        if isinstance(a, dg.AssetsDefinition)
    }

    assert shop.run("raw_data", partition="DE|2024-01").success
    table = shop.world.data_store.read((*PIPELINE, "raw_data"), "DE|2024-01")
    assert pc.min(table["amount"]).as_py() > 50
    changed = {key.path[-1] for key in after if after[key] != before[key]}
    assert changed == {"raw_data"}, "the UI shows the replaced stage, and it alone, as new code"


def test_a_missing_file_is_one_clear_sentence(make_shop: MakeShop) -> None:
    shop = make_shop()

    result = shop.run("raw_data", partition="DE|2024-05")

    (event,) = [e for e in result.all_events if e.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None
    assert data.description is not None
    assert "No file has arrived at" in data.description
    assert "2024-05_DE.csv" in data.description


def test_nothing_to_learn_from_is_said_so(make_shop: MakeShop) -> None:
    shop = make_shop()
    shop.data("2024-01")
    shop.run("row_index", partition="2024-01")

    result = shop.run("training_set", partition="2024-01")

    (event,) = [e for e in result.all_events if e.is_step_failure]
    assert event.step_failure_data.user_failure_data is not None
    assert "There is no period before 2024-01" in (event.step_failure_data.user_failure_data.description or "")


def test_services_field_names_are_the_resource_keys(tmp_path: Path) -> None:
    from ml_assets.assets.stage_asset import RESOURCE_KEYS

    assert set(vars(services(tmp_path))) == RESOURCE_KEYS
