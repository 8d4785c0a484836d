"""LightGBM and XGBoost models in the real registry: stored without pickle, pinned, and served by a clean process."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml_assets.errors import RegistryError
from ml_assets.interfaces import LoggedModel, ModelRun
from ml_assets.spec import ComputeSpec, VariantSpec
from ml_assets.testing.model_registry import small_training_data
from ml_assets.testing.serving_check import GENEROUS
from ml_assets.training import fit, predict, prepare, trusted_types
from resources.model_registry import QUIET_ENVIRONMENT, MlflowRegistry
from resources.serving_check import CleanProcessServingCheck

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # MLflow on SQLAlchemy 2.1
]
CASES = {
    f"{name}-{way}": VariantSpec(
        estimator=path, params={"n_estimators": 15}, compute=ComputeSpec(checkpoint=way == "in-rounds")
    )
    for name, path in (("lightgbm", "lightgbm.LGBMClassifier"), ("xgboost", "xgboost.XGBClassifier"))
    for way in ("one-call", "in-rounds")
}


@pytest.fixture(scope="module", autouse=True)
def quiet_environment():
    with pytest.MonkeyPatch.context() as environment:
        for name, value in QUIET_ENVIRONMENT.items():
            environment.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def registry(place: Path) -> MlflowRegistry:
    found = MlflowRegistry(f"sqlite:///{place}/mlflow.db", str(place / "artifacts"))
    found.initialise()
    return found


def logged(registry: MlflowRegistry, variant: VariantSpec) -> tuple[LoggedModel, pd.DataFrame, np.ndarray]:
    X, y = small_training_data()
    model = fit(variant, X, y, seed=3)
    example = prepare(X.head(5))
    run = ModelRun(
        experiment="flights/arrival_delay",
        name="2013-02 boosting",
        model=model,
        input_example=example,
        output_example=predict(model, example, task="binary"),
        params={},
        metrics={},
        tags={},
        trusted_types=trusted_types([variant]),
    )
    return registry.log_model(run), X, predict(model, X, task="binary")


@pytest.mark.parametrize("case", CASES)
def test_it_is_stored_without_pickle_and_passes_the_serving_check(
    registry: MlflowRegistry, place: Path, case: str
) -> None:
    variant = CASES[case]
    model, rows, scores = logged(registry, variant)
    version = registry.register(f"shop.{case}", model, tags={})
    check = CleanProcessServingCheck(
        f"sqlite:///{place}/mlflow.db",
        str(place / "artifacts"),
        environment={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]},
    )

    report = check.check(version, rows, scores, task="binary", limits=GENEROUS, trusted_types=trusted_types([variant]))

    assert report.problems == ()
    assert report.largest_difference == 0.0
    folder = Path(registry.stored(model.model_uri).location.removeprefix("file://"))
    names = {file.name for file in folder.rglob("*") if file.is_file()}
    assert "model.skops" in names
    assert not any(name.endswith((".pkl", ".pickle", ".joblib")) for name in names)
    with zipfile.ZipFile(folder / "model.skops") as archive:
        assert not any(b"\x80\x04\x95" in archive.read(name)[:3] for name in archive.namelist())
    assert f"{case.partition('-')[0]}" in (folder / "requirements.txt").read_text()


@pytest.mark.parametrize("case", ["lightgbm-one-call", "xgboost-one-call"])
def test_a_pipeline_without_such_a_variant_does_not_load_its_models(registry: MlflowRegistry, case: str) -> None:
    model, _, _ = logged(registry, CASES[case])

    with pytest.raises(RegistryError, match=r"types that may not be loaded: .*Booster"):
        registry.load(model.model_uri)
