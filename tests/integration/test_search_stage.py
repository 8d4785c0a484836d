"""A variant's stage with a search in the real world, killed again and again: the same result, trials recorded once."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.spec import VariantSpec
from ml_assets.stages import models
from ml_assets.stages.step import Services, Step
from resources.checkpoints import CheckpointFolder
from resources.data_store import ParquetDataStore
from resources.model_registry import QUIET_ENVIRONMENT, MlflowRegistry
from resources.studies import SqlStudies
from tests.components.shop import Shop, land_orders, services

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # MLflow on SQLAlchemy 2.1
]

FORK = multiprocessing.get_context("fork")
MONTH, PATH = "2024-03", ("shop", "returns", "models", "boosting")
TRIALS, KILLS = 8, 5
VARIANT = VariantSpec.model_validate(
    {
        "estimator": "sklearn.ensemble.HistGradientBoostingClassifier",
        "params": {"max_iter": 40, "early_stopping": False},
        "compute": {"checkpoint": True},
        "search": {
            "trials": TRIALS,
            "folds": 1,
            "pruner": "median",
            "metric": "log_loss",
            "space": {
                "estimator.learning_rate": {"float": [0.01, 0.5], "log": True},
                "estimator.max_leaf_nodes": {"int": [4, 31]},
            },
        },
    }
)


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUIET_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """The shop up to its training set, in a folder that is copied for each search."""
    land_orders(tmp_path / "landing")
    world = real_world(tmp_path / "state", services(tmp_path / "landing"))
    with dg.DagsterInstance.ephemeral() as instance:
        made = Shop(tmp_path, world, instance, variants={"boosting": VARIANT})
        for month in ("2024-01", "2024-02", MONTH):
            made.data(month)
            assert made.run("row_index", partition=month).success
        assert made.run("training_set", partition=MONTH).success
        yield made


def real_world(state: Path, world: Services) -> Services:
    return replace(
        world,
        data_store=ParquetDataStore(str(state / "data")),
        checkpoints=CheckpointFolder(str(state / "data")),
        model_registry=MlflowRegistry(f"sqlite:///{state}/mlflow.db", str(state / "artifacts")),
        studies=SqlStudies(f"sqlite:///{state}/ledger.db"),
    )


def run_variant(shop: Shop, world: Services) -> None:
    step = Step(pipeline=shop.pipeline, services=world, partition=MONTH, run_id="r", launched_by="lena")
    models.run_variant(step, "boosting")


def searched(shop: Shop, state: Path, *, kills_after: list[float]) -> tuple[dict[str, Any], int]:
    """Run the stage in forked processes, some of them killed, and return its document and how many were."""
    shutil.copytree(state.parent / "state", state)
    world = real_world(state, Services(**{f.name: getattr(shop.world, f.name) for f in fields(Services)}))
    killed = 0
    while True:
        process = FORK.Process(target=run_variant, args=(shop, world))
        process.start()
        process.join(kills_after[killed] if killed < len(kills_after) else 200)
        if process.exitcode is None:
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            killed += 1
        elif process.exitcode == 0:
            return world.data_store.read_document(PATH, MONTH), killed
        else:
            pytest.fail(f"the stage ended with {process.exitcode}")


def test_a_stage_killed_five_times_finds_the_same_and_records_each_trial_once(shop: Shop, tmp_path: Path) -> None:
    import mlflow

    started = time.monotonic()
    calm, _ = searched(shop, tmp_path / "calm", kills_after=[])
    seconds = time.monotonic() - started
    drawn = random.Random(5)  # noqa: S311 - points in time

    kills = [drawn.uniform(0.12, 0.3) * seconds for _ in range(KILLS)]
    stormy, killed = searched(shop, tmp_path / "stormy", kills_after=kills)

    assert killed >= 3
    assert stormy["search"] == calm["search"]
    assert stormy["prediction_digest"] == calm["prediction_digest"]
    assert stormy["search_record"]["resumed"] <= 1
    uri = f"sqlite:///{tmp_path}/stormy/mlflow.db"
    client = mlflow.MlflowClient(uri, registry_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("shop/returns").experiment_id])
    (parent,) = [run for run in runs if "ml_assets.trial" not in run.data.tags]
    trials = sorted((run for run in runs if "ml_assets.trial" in run.data.tags), key=trial_number)
    assert [trial_number(run) for run in trials] == list(range(TRIALS))
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id} == {stormy["run_id"]}
    assert parent.info.status == "FINISHED"
    expected = {"completed": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    assert [run.info.status for run in trials] == [expected[t["state"]] for t in stormy["search"]["trials"]]
    assert [run.data.metrics["log_loss"] for run in trials] == [t["value"] for t in stormy["search"]["trials"]]
    assert not list((tmp_path / "stormy" / "data").glob("_checkpoints/**/*.checkpoint"))


def trial_number(run: Any) -> int:
    return int(run.data.tags["ml_assets.trial"])
