"""The PyTorch guide's network as it stands there: killed, resumed, searched, promoted, stored and served."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.checkpoints import NoCheckpoint
from ml_assets.errors import TrainingError
from ml_assets.interfaces import Machine
from ml_assets.spec import ComputeSpec, PreprocessingSpec, SearchSpec, VariantSpec
from ml_assets.trainers import functions
from resources.checkpoints import CheckpointFolder
from resources.model_registry import QUIET_ENVIRONMENT, MlflowRegistry
from resources.serving_check import CleanProcessServingCheck
from resources.studies import SqlStudies
from tests.components.conftest import instance, make_shop
from tests.components.shop import Shop
from tests.components.test_trainings import MONTH, PIPELINE, facts, prepared

torch = pytest.importorskip("torch", reason="PyTorch is not installed: `make test-torch`")

__all__ = ["instance", "make_shop"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # MLflow on SQLAlchemy 2.1
]

MakeShop = Callable[..., Shop]
ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "pytorch.md"
EPOCHS, KILLS = 20, 4


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The guide's code as a module of the shop, under a name of its own."""
    (source,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    name = f"shop_network_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)
    torch.use_deterministic_algorithms(False)


def network(module: str, **changes: Any) -> VariantSpec:
    return VariantSpec(
        estimator=f"{module}.Network",
        train=f"{module}.fit_network",
        params={"units": 16, "epochs": EPOCHS, "step": 0.003},
        preprocessing=PreprocessingSpec(numeric="standardize", missing="median", categorical="one_hot"),
        trusted_types=(f"{module}.Network",),
        compute=ComputeSpec(gpus=1),
    ).model_copy(update=changes)


def failure(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    (failed,) = result.get_step_failure_events()
    return str(failed.step_failure_data.user_failure_data)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUIET_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("quiet")
def test_it_is_promoted_stored_without_pickle_served_by_a_clean_process_and_scores(
    make_shop: MakeShop, module: str, tmp_path: Path
) -> None:
    shop = prepared(make_shop(variants={"network": network(module)}))
    uri, artifacts = f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "artifacts")
    registry = MlflowRegistry(uri, artifacts)
    registry.initialise()
    environment = {name: os.environ[name] for name in ("PATH", "HOME")}
    check = CleanProcessServingCheck(uri, artifacts, environment=environment, project_root=tmp_path)
    changed = {"model_registry": registry, "serving_check": check, "machine": Machine(gpus=0)}
    shop.world = type(shop.world)(**{**vars(shop.world), **changed})

    assert shop.models(MONTH).success

    decision = shop.world.ledger.decisions(PIPELINE)[-1]
    assert (decision.outcome, decision.evidence["serving"]["problems"]) == ("promoted", [])
    assert decision.evidence["serving"]["largest_difference"] < 1e-12
    for stage in ("models/network", "candidate"):
        assert facts(shop, stage)["device"] == "cpu"
    assert facts(shop, "models/network")["gpus"] == 0
    files = [file for file in (tmp_path / "artifacts").rglob("*") if file.is_file()]
    assert not [file for file in files if file.suffix in {".pkl", ".pickle", ".pt", ".pth", ".joblib"}]
    stored = next(file for file in files if file.name == "model.skops")
    assert {Path(name).suffix for name in zipfile.ZipFile(stored).namelist()} == {".npy", ".json"}
    shop.data("2024-03")
    assert shop.run("predictions", partition="FR|2024-03").success


TRAINER = """
    import hashlib, json, sys
    import numpy as np, pandas as pd
    from ml_assets.spec import VariantSpec
    from ml_assets.training import predict, train
    from resources.checkpoints import CheckpointFolder

    rng = np.random.default_rng(1)
    X = pd.DataFrame(rng.normal(size=(4000, 8)), columns=list("abcdefgh"))
    y = (X["a"] + X["b"] ** 2 + rng.normal(size=4000) > 1).astype(float).to_numpy()
    checkpoint = CheckpointFolder(sys.argv[2]).open("shop/returns/models/network/2024-02/aa")

    def told(step, model):
        print("epoch", step, flush=True)
        return False

    fitted = train(VariantSpec.model_validate_json(sys.argv[1]), X, y, seed=1, checkpoint=checkpoint, report=told)
    estimator = fitted.model[-1]
    weights = b"".join(estimator.weights_[name].tobytes() for name in sorted(estimator.weights_))
    scores = predict(fitted.model, X, task="binary")
    print(json.dumps({
        "weights": hashlib.sha256(weights).hexdigest(),
        "scores": hashlib.sha256(scores.tobytes()).hexdigest(),
        "resumed": fitted.facts.get("resumed", ""),
        "device": fitted.facts["device"],
    }), flush=True)
"""


def train(variant: VariantSpec, home: Path, folder: Path, *, kill_after: int = 0) -> tuple[dict[str, Any] | None, int]:
    """Train in a process of its own; return what it reported, None when it was killed, and its epochs."""
    lines: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(TRAINER), variant.model_dump_json(), str(folder)],
        cwd=home,
        env={**os.environ, "PYTHONPATH": f"{home}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if kill_after and len(lines) == kill_after:
                time.sleep(random.SystemRandom().uniform(0.0, 0.01))  # in the next epoch, or while its state is written
                process.send_signal(signal.SIGKILL)
    epochs = [line for line in lines if line.startswith("epoch ")]
    return (json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None), len(epochs)


def test_killed_at_any_moment_and_resumed_it_is_the_same_model_bit_for_bit(module: str, tmp_path: Path) -> None:
    variant = network(module)
    expected, epochs = train(variant, tmp_path, tmp_path / "undisturbed")
    assert expected is not None
    assert epochs == EPOCHS

    done, found = 0, None
    for after in random.Random(1).sample(range(2, 8), KILLS):  # noqa: S311 - moments to kill at, not secrets
        found, epochs = train(variant, tmp_path, tmp_path / "killed", kill_after=after)
        done += epochs
        if found is not None:
            break
    if found is None:
        found, epochs = train(variant, tmp_path, tmp_path / "killed")
        done += epochs

    assert found is not None
    assert found.pop("resumed").startswith("resumed from round ")
    assert expected.pop("resumed") == ""
    assert found == expected
    assert found["device"] == "cpu"
    assert done < EPOCHS + 5 * KILLS  # a state is saved every fifth epoch


def test_a_training_that_was_killed_after_its_last_epoch_needs_none(module: str, tmp_path: Path) -> None:
    variant = network(module)
    expected, _ = train(variant, tmp_path, tmp_path / "data")
    found, epochs = train(variant, tmp_path, tmp_path / "data")

    assert expected is not None
    assert found is not None
    assert epochs == 0
    assert found == expected | {"resumed": f"resumed from round {EPOCHS}"}


def test_its_state_is_a_file_of_arrays(module: str, tmp_path: Path) -> None:
    train(network(module), tmp_path, tmp_path / "data")
    found = CheckpointFolder(str(tmp_path / "data")).open("shop/returns/models/network/2024-02/aa").load()

    assert found is not None
    (tmp_path / "state.npz").write_bytes(found[1]["state.npz"])
    assert found[0] == EPOCHS
    assert {Path(name).suffix for name in zipfile.ZipFile(tmp_path / "state.npz").namelist()} == {".npy"}


def test_it_is_searched_with_trials_that_are_pruned_on_their_way(
    make_shop: MakeShop, module: str, tmp_path: Path
) -> None:
    space = {
        "estimator.units": {"choice": [4, 16]},
        "estimator.step": {"float": [0.00001, 0.01], "log": True},
        "estimator.epochs": {"choice": [10]},
    }
    search = {"trials": 8, "parallel": 2, "sampler": "random", "pruner": "median", "folds": 1, "metric": "log_loss"}
    compute = ComputeSpec(cores=2)
    spec = SearchSpec.model_validate({**search, "space": space})
    shop = prepared(make_shop(variants={"network": network(module, search=spec, compute=compute)}))
    shop.world = type(shop.world)(**{**vars(shop.world), "studies": SqlStudies(f"sqlite:///{tmp_path}/ledger.db")})

    assert shop.run("models/network", partition=MONTH).success

    document = shop.world.data_store.read_document((*PIPELINE, "models", "network"), MONTH)
    trials = document["search"]["trials"]
    assert len(trials) == 8
    assert not [trial["reason"] for trial in trials if trial["state"] == "failed"]
    assert "pruned" in {trial["state"] for trial in trials}
    assert {len(trial["reports"]) for trial in trials if trial["state"] == "completed"} == {10}


@pytest.mark.skipif(torch.cuda.is_available(), reason="the refusal needs a machine without a GPU")
def test_a_gpu_that_pytorch_does_not_find_is_told(make_shop: MakeShop, module: str) -> None:
    shop = prepared(make_shop(variants={"network": network(module)}))
    shop.world = type(shop.world)(**{**vars(shop.world), "machine": Machine(gpus=1)})

    told = failure(shop.run("models/network", partition=MONTH))

    assert f"{module}.fit_network was to train on a GPU, and PyTorch {torch.__version__} finds none" in told
    assert "Install a build of the library for GPUs" in told


def test_a_module_without_pytorch_is_not_held_to_pytorchs_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain_training.py").write_text("def fit_it(*args, **kwargs):\n    return kwargs['device']\n")
    monkeypatch.syspath_prepend(tmp_path)
    given: dict[str, Any] = {"params": {}, "seed": 1, "checkpoint": NoCheckpoint(), "report": lambda *_: None}

    with pytest.raises(TrainingError, match=r"returned a builtins\.str"):  # it was called
        functions.call("plain_training.fit_it", "sklearn.base.BaseEstimator", None, None, device="cuda", **given)
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    sys.modules.pop("plain_training")
