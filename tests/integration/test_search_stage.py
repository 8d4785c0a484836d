"""A variant's stage with a search in the real world, killed again and again: the same result, trials recorded once."""

import multiprocessing
import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.interfaces import Checkpoint
from ml_assets.spec import VariantSpec
from ml_assets.stages import models
from ml_assets.stages.step import Services, Step
from resources.checkpoints import CheckpointFolder
from resources.data_store import ParquetDataStore
from resources.model_registry import QUIET_ENVIRONMENT, MlflowRegistry
from resources.studies import SqlStudies
from tests.components.shop import Shop, land_orders, services
from tests.integration.launched_runs import wait_until
from tests.integration.search_world import WorkLog

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),  # the work is done twice
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


class NotedCheckpoints:
    """Checkpoints of which each one that is saved is noted; who may not go on waits before it saves the next one."""

    def __init__(self, root: str, log: WorkLog) -> None:
        self._folder, self._log = CheckpointFolder(root), log

    def open(self, key: str) -> Checkpoint:
        """Return the checkpoint under a key."""
        checkpoint: Any = self._folder.open(key)
        save = checkpoint.save

        def noted(step: int, files: Mapping[str, bytes]) -> None:
            self._log.pass_on()
            save(step, files)
            self._log.note(f"{key} {step}")

        checkpoint.save = noted
        return checkpoint


def real_world(state: Path, world: Services) -> Services:
    return replace(
        world,
        data_store=ParquetDataStore(str(state / "data")),
        checkpoints=NotedCheckpoints(str(state / "data"), WorkLog(state)),
        model_registry=MlflowRegistry(f"sqlite:///{state}/mlflow.db", str(state / "artifacts")),
        studies=SqlStudies(f"sqlite:///{state}/ledger.db"),
    )


def run_variant(shop: Shop, world: Services) -> None:
    step = Step(pipeline=shop.pipeline, services=world, partition=MONTH, run_id="r", launched_by="lena")
    models.run_variant(step, "boosting")


def searched(shop: Shop, state: Path, *, kills: Sequence[tuple[int, float]] = ()) -> dict[str, Any]:
    """Run the stage in forked processes, some of them killed, and return its document.

    Args:
        shop: The shop up to its training set.
        state: Where it is searched.
        kills: (checkpoints saved before, seconds from then on); nobody saves another one before the kill.
    """
    shutil.copytree(state.parent / "state", state)
    world = real_world(state, Services(**{f.name: getattr(shop.world, f.name) for f in fields(Services)}))
    log = WorkLog(state)
    for saved, seconds in kills:
        log.hold_at(saved)
        with stage(shop, world) as process:
            wait_until(lambda n=saved, p=process: n <= len(log.lines()) or not p.is_alive(), "a kill", seconds=800)
            time.sleep(seconds)
            assert process.is_alive(), f"the stage ended with {process.exitcode}"
    log.hold_at(None)
    with stage(shop, world) as process:
        process.join(800)
        assert process.exitcode == 0
    return world.data_store.read_document(PATH, MONTH)


@contextmanager
def stage(shop: Shop, world: Services) -> Iterator[ForkProcess]:
    """Run the stage in a forked process, which is killed at the end of the block."""
    process = FORK.Process(target=run_variant, args=(shop, world))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def test_a_stage_killed_five_times_finds_the_same_and_records_each_trial_once(shop: Shop, tmp_path: Path) -> None:
    import mlflow

    calm = searched(shop, tmp_path / "calm")
    drawn = random.Random(5)  # noqa: S311 - points of the work, and moments

    total = len(WorkLog(tmp_path / "calm").lines())
    kills = [(saved, drawn.uniform(0, 0.5)) for saved in sorted(drawn.sample(range(1, total), KILLS))]
    stormy = searched(shop, tmp_path / "stormy", kills=kills)

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
