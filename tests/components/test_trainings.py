"""Trainings within the whole pipeline: boosting libraries, checkpoints, and teams' own train functions."""

import importlib.metadata
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.checkpoints import StoredCheckpoint
from ml_assets.spec import ComputeSpec, EvaluationSpec, LabelSpec, PreprocessingSpec, SelectionSpec, VariantSpec
from ml_assets.testing.checkpoints import FakeCheckpoints
from ml_assets.testing.model_registry import FakeModelRegistry
from ml_assets.trainers import rounds
from tests.components.shop import Shop

MakeShop = Callable[..., Shop]
PIPELINE = ("shop", "returns")
MONTH = "2024-02"
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "train-functions.md"
CHECKPOINTED = ComputeSpec(checkpoint=True)
FOREST = VariantSpec(
    estimator="sklearn.ensemble.RandomForestClassifier",
    params={"n_estimators": 20, "max_depth": 5},
    compute=CHECKPOINTED,
)
LIGHTGBM = VariantSpec(
    estimator="lightgbm.LGBMClassifier", params={"n_estimators": 20, "subsample": 0.7, "subsample_freq": 1}
)
XGBOOST = VariantSpec(estimator="xgboost.XGBClassifier", params={"n_estimators": 20, "subsample": 0.7})


@pytest.fixture(autouse=True)
def ten_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut also these quick trainings into ten parts."""
    monkeypatch.setattr(rounds, "PART_SECONDS", 0.0)


class Killed(BaseException):
    """Stands for the end of the step's process."""


class KillingCheckpoints(FakeCheckpoints):
    """Ends the process when it saves for the n-th time, just after."""

    after: int = 10**9

    def open(self, key: str) -> StoredCheckpoint:
        checkpoint, save = super().open(key), StoredCheckpoint.save

        def counted(step: int, files: Any) -> None:
            save(checkpoint, step, files)
            if len(self.saved) == self.after:
                raise Killed

        checkpoint.save = counted  # pyright: ignore[reportAttributeAccessIssue]
        return checkpoint


def prepared(shop: Shop) -> Shop:
    shop.data("2024-01")
    shop.data(MONTH)
    assert shop.run("row_index", partition="2024-01").success
    assert shop.run("row_index", "training_set", partition=MONTH).success
    return shop


def facts(shop: Shop, stage: str) -> dict[str, Any]:
    records = shop.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey([*PIPELINE, *stage.split("/")]), asset_partitions=[MONTH]), limit=1
    ).records
    found = records[0].asset_materialization
    assert found is not None
    return {key: value.value for key, value in found.metadata.items()}


def document(shop: Shop, *stage: str) -> dict[str, Any]:
    return shop.world.data_store.read_document((*PIPELINE, *stage), MONTH)


def code_version(shop: Shop, *stage: str) -> str | None:
    key = dg.AssetKey([*PIPELINE, *stage])
    assets = [a for a in shop.definitions.assets or [] if isinstance(a, dg.AssetsDefinition) and key in a.keys]
    return assets[0].code_versions_by_key[key]


@pytest.mark.parametrize("compute", [ComputeSpec(), CHECKPOINTED], ids=["one-call", "in-rounds"])
@pytest.mark.parametrize("variant", [LIGHTGBM, XGBOOST], ids=["lightgbm", "xgboost"])
def test_boosting_libraries_go_through_the_whole_pipeline(
    make_shop: MakeShop, variant: VariantSpec, compute: ComputeSpec
) -> None:
    shop = prepared(make_shop(variants={"boosting": variant.model_copy(update={"compute": compute})}))

    assert shop.models(MONTH).success
    assert shop.world.ledger.decisions(PIPELINE)[-1].outcome == "promoted"
    shop.data("2024-03")
    assert shop.run("predictions", partition="DE|2024-03").success

    found = facts(shop, "models/boosting")
    assert found["device"] == "cpu"
    assert found.get("rounds") == (20 if compute.checkpoint else None)
    registry = shop.world.model_registry
    assert isinstance(registry, FakeModelRegistry)
    run = registry.runs[document(shop, "candidate")["run_id"]].run
    assert run.model[-1].get_params()["random_state"] == 7
    assert "notes" not in found


@pytest.mark.parametrize(
    ("estimator", "task"),
    [("lightgbm.LGBMClassifier", "multiclass"), ("lightgbm.LGBMRegressor", "regression")],
)
def test_lightgbm_learns_several_classes_and_numbers(make_shop: MakeShop, estimator: str, task: str) -> None:
    metric = "log_loss" if task == "multiclass" else "mae"
    label = {"column": "outcome" if task == "multiclass" else "spend", "task": task, "known_after": "1d"}
    shop = prepared(
        make_shop(
            label=LabelSpec.model_validate(label),
            selection=SelectionSpec(metric=metric),
            evaluation=EvaluationSpec(metrics=(metric,), replicates=100),
            gates=(),
            variants={"it": VariantSpec(estimator=estimator, params={"n_estimators": 12}, compute=CHECKPOINTED)},
        )
    )

    assert shop.run("models/it", "candidate", "evaluation", partition=MONTH).success


def test_a_killed_training_is_resumed_and_gives_the_same_model(make_shop: MakeShop) -> None:
    shop = prepared(make_shop(variants={"forest": FOREST}))
    undisturbed = shop.copy(shop.instance)
    assert undisturbed.run("models/forest", "candidate", partition=MONTH).success
    killing = KillingCheckpoints()
    shop.world = type(shop.world)(**{**vars(shop.world), "checkpoints": killing})

    for after in (3, 5):
        killing.after = after
        assert not shop.run("models/forest", partition=MONTH).success
    killing.after = 10**9
    assert shop.run("models/forest", partition=MONTH).success
    assert facts(shop, "models/forest")["resumed"] == "resumed from round 10"
    assert not killing.content
    killing.after = len(killing.saved) + 3
    assert not shop.run("candidate", partition=MONTH).success
    killing.after = 10**9
    assert shop.run("candidate", partition=MONTH).success

    assert facts(shop, "candidate")["resumed"] == "resumed from round 6"
    for stage in (("models", "forest"), ("candidate",)):
        assert document(shop, *stage)["prediction_digest"] == document(undisturbed, *stage)["prediction_digest"]
        ours = shop.world.data_store.describe((*PIPELINE, *stage), MONTH)
        theirs = undisturbed.world.data_store.describe((*PIPELINE, *stage), MONTH)
        assert ours is not None
        assert theirs is not None
        assert ours.data_version == theirs.data_version
    assert not killing.content


@pytest.mark.parametrize(
    "changes",
    [
        {"variants": {"forest": FOREST.model_copy(update={"params": {"n_estimators": 20, "max_depth": 6}})}},
        {"training": {"seed": 8}},
    ],
    ids=["params", "seed"],
)
def test_a_changed_training_does_not_go_on_from_another_ones_checkpoint(
    make_shop: MakeShop, changes: dict[str, Any]
) -> None:
    shop = prepared(make_shop(variants={"forest": FOREST}))
    killing = KillingCheckpoints()
    killing.after = 3
    shop.world = type(shop.world)(**{**vars(shop.world), "checkpoints": killing})
    assert not shop.run("models/forest", partition=MONTH).success
    killing.after = 10**9
    if "training" in changes:
        changes = {"training": shop.component.training.model_copy(update=changes["training"])}
    other = make_shop(**({"variants": {"forest": FOREST}} | changes))
    other.world = shop.world
    assert other.run("training_set", "models/forest", partition=MONTH).success

    assert "resumed" not in facts(other, "models/forest")
    assert shop.run("training_set", "models/forest", partition=MONTH).success
    assert facts(shop, "models/forest")["resumed"] == "resumed from round 6"


def test_checkpoints_change_the_code_version_only_where_they_change_the_model(make_shop: MakeShop) -> None:
    def versions(compute: ComputeSpec) -> dict[str, str | None]:
        variants = {
            name: variant.model_copy(update={"compute": compute})
            for name, variant in {
                "forest": FOREST,
                "sampled": XGBOOST,
                "plain": VariantSpec(estimator="xgboost.XGBClassifier"),
            }.items()
        }
        shop = make_shop(variants=variants)
        return {name: code_version(shop, "models", name) for name in variants}

    without, with_checkpoints = versions(ComputeSpec()), versions(CHECKPOINTED)

    assert {name for name in without if without[name] != with_checkpoints[name]} == {"sampled"}


@pytest.fixture
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The guide's module as a module of the shop, under a name of its own."""
    (source,) = re.findall(r'```python\n(""".*?)```', GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    name = f"shop_training_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield name, tmp_path / f"{name}.py"
    sys.modules.pop(name, None)


def network(module: str, **params: Any) -> VariantSpec:
    return VariantSpec(
        estimator=f"{module}.Network",
        train=f"{module}.fit_network",
        params={"units": 8, "epochs": 20, "step": 0.3, **params},
        preprocessing=PreprocessingSpec(numeric="standardize", missing="median", categorical="one_hot"),
        trusted_types=(f"{module}.Network",),
    )


def test_the_guides_train_function_is_trained_killed_resumed_promoted_and_scores(
    make_shop: MakeShop, guide: tuple[str, Path]
) -> None:
    module, _ = guide
    shop = prepared(make_shop(variants={"network": network(module)}))
    undisturbed = shop.copy(shop.instance)
    assert undisturbed.models(MONTH).success
    killing = KillingCheckpoints()
    killing.after = 2
    shop.world = type(shop.world)(**{**vars(shop.world), "checkpoints": killing})
    assert not shop.models(MONTH).success
    assert shop.models(MONTH).success

    found = facts(shop, "models/network")
    assert found["resumed"] == "resumed from round 10"
    assert found["train"] == f"{module}.fit_network"
    assert document(shop, "candidate")["prediction_digest"] == document(undisturbed, "candidate")["prediction_digest"]
    assert document(shop, "candidate")["validation"]["network"]["roc_auc"]["estimate"] > 0.7
    assert shop.world.ledger.decisions(PIPELINE)[-1].outcome == "promoted"
    assert not killing.content
    shop.data("2024-03")
    assert shop.run("predictions", partition="FR|2024-03").success


def test_a_training_begins_anew_under_another_release_of_what_its_function_imports(
    make_shop: MakeShop, guide: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = prepared(make_shop(variants={"network": network(guide[0])}))
    killing = KillingCheckpoints()
    killing.after = 2
    shop.world = type(shop.world)(**{**vars(shop.world), "checkpoints": killing})
    assert not shop.run("models/network", partition=MONTH).success
    release = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99" if name == "numpy" else release(name))

    assert shop.run("models/network", partition=MONTH).success

    assert "resumed" not in facts(shop, "models/network")


def test_the_code_of_a_train_function_is_part_of_the_code_version_and_of_what_is_compared(
    make_shop: MakeShop, guide: tuple[str, Path]
) -> None:
    module, file = guide
    first = make_shop(variants={"network": network(module)})
    file.write_text(file.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    second = make_shop(variants={"network": network(module)})

    for stage in (("models", "network"), ("candidate",)):
        assert code_version(first, *stage) != code_version(second, *stage)
    assert code_version(first, "training_set") == code_version(second, "training_set")


def test_a_train_function_that_was_changed_since_it_was_loaded_does_not_run(
    make_shop: MakeShop, guide: tuple[str, Path]
) -> None:
    module, file = guide
    shop = prepared(make_shop(variants={"network": network(module)}))
    file.write_text(file.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")

    result = shop.run("models/network", partition=MONTH)

    assert not result.success
    (failed,) = result.get_step_failure_events()
    assert "was changed since this pipeline was loaded" in str(failed.step_failure_data.user_failure_data)


def test_a_train_function_that_needs_a_gpu_is_not_run_without(make_shop: MakeShop, guide: tuple[str, Path]) -> None:
    module, file = guide
    source = file.read_text(encoding="utf-8").replace("def fit_network", "@gpu_required\ndef fit_network")
    file.write_text(source.replace("import io\n", "import io\n\nfrom ml_assets.trainers import gpu_required\n"))
    variant = network(module).model_copy(update={"compute": ComputeSpec(gpus=1, cpu_fallback=False)})
    shop = prepared(make_shop(variants={"network": variant}))

    result = shop.run("models/network", partition=MONTH)

    assert not result.success
    (failed,) = result.get_step_failure_events()
    assert "needs a GPU, and this step has none" in str(failed.step_failure_data.user_failure_data)


@pytest.mark.parametrize(
    ("variant", "why"),
    [
        (LIGHTGBM, "lightgbm.LGBMClassifier cannot be fitted on cuda: No OpenCL device found"),
        (XGBOOST, "xgboost.XGBClassifier was to be fitted on a GPU, and XGBoost used the processor"),
    ],
    ids=["lightgbm", "xgboost"],
)
@pytest.mark.skipif(Path("/proc/driver/nvidia/gpus").exists(), reason="the refusal needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_told_and_not_replaced_quietly(
    make_shop: MakeShop, variant: VariantSpec, why: str
) -> None:
    from ml_assets.interfaces import Machine

    shop = prepared(make_shop(variants={"it": variant.model_copy(update={"compute": ComputeSpec(gpus=1)})}))
    shop.world = type(shop.world)(**{**vars(shop.world), "machine": Machine(gpus=1)})

    result = shop.run("models/it", partition=MONTH)

    assert not result.success
    (failed,) = result.get_step_failure_events()
    assert why in str(failed.step_failure_data.user_failure_data)
    assert "Install a build of the library for GPUs" in str(failed.step_failure_data.user_failure_data)
