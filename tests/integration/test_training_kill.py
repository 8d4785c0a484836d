"""Trainings in real processes that are killed at any moment: resumed, they give the model of an undisturbed one."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # seven processes, each of which imports for seconds

ROOT = Path(__file__).parents[2]
KILLS = 5
ENSEMBLE = "sklearn.ensemble."
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "histogram": (f"{ENSEMBLE}HistGradientBoostingClassifier", {"max_iter": 60, "max_features": 0.5}),
    "forest": (f"{ENSEMBLE}RandomForestClassifier", {"n_estimators": 60, "max_depth": 8}),
    "lightgbm": ("lightgbm.LGBMClassifier", {"n_estimators": 60, "subsample": 0.6, "subsample_freq": 1}),
    "xgboost": ("xgboost.XGBClassifier", {"n_estimators": 60, "subsample": 0.6, "colsample_bynode": 0.5}),
    "network": ("sklearn.neural_network.MLPClassifier", {"max_iter": 30, "hidden_layer_sizes": [20]}),
}
TRAINER = """
    import hashlib, json, sys
    import numpy as np, pandas as pd
    import sklearn.ensemble, sklearn.neural_network, skops.io
    from ml_assets.spec import ComputeSpec, PreprocessingSpec, VariantSpec
    from ml_assets.training import make_estimator, predict, train
    from resources.checkpoints import CheckpointFolder

    estimator, params, folder = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
    rng = np.random.default_rng(1)
    X = pd.DataFrame(rng.normal(size=(4000, 8)), columns=list("abcdefgh"))
    y = (X["a"] + X["b"] ** 2 + rng.normal(size=4000) > 1).astype(float).to_numpy()
    variant = VariantSpec(
        estimator=estimator,
        params=params,
        preprocessing=PreprocessingSpec(numeric="standardize"),
        compute=ComputeSpec(checkpoint=True),
    )
    make_estimator(variant, seed=1)
    def told(step, model):
        print("done", step, flush=True)
        sys.stdin.readline()  # whoever is to be killed comes no further than it is let
        return False
    print("ready", flush=True)
    fitted = train(
        variant, X, y, seed=1, checkpoint=CheckpointFolder(folder).open("shop/returns/models/it/2024-02/aa"),
        report=told,
    )
    scores = predict(fitted.model, X, task="binary")
    print(json.dumps({
        "digest": hashlib.sha256(scores.tobytes()).hexdigest(),
        "resumed": fitted.facts.get("resumed"),
        "notes": fitted.notes,
    }), flush=True)
"""


def start(case: str, folder: Path) -> "subprocess.Popen[str]":
    estimator, params = CASES[case]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(TRAINER), estimator, json.dumps(params), str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def let_on(process: "subprocess.Popen[str]", parts: int) -> None:
    """Let a process go on after so many parts more."""
    assert process.stdin is not None
    process.stdin.write("go\n" * parts)
    process.stdin.flush()


def finish(process: "subprocess.Popen[str]") -> tuple[dict[str, Any] | None, int]:
    """Return what a process reported, if it came so far, and how many parts it trained."""
    assert process.stdout is not None
    assert process.stdin is not None
    lines = process.stdout.read().splitlines()
    process.wait()
    process.stdout.close()
    process.stdin.close()
    parts = sum(line.startswith("done ") for line in lines)
    ended = bool(lines) and lines[-1].startswith("{")
    return (json.loads(lines[-1]) if ended else None), parts


@pytest.mark.parametrize("case", CASES)
def test_killed_at_any_moment_and_resumed_it_is_the_same_model(case: str, tmp_path: Path) -> None:
    process = start(case, tmp_path / "undisturbed")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    let_on(process, 10)
    expected, parts = finish(process)
    assert expected is not None
    assert parts == 10

    moments, kills, trained = random.Random(case), 0, 0  # noqa: S311 - moments to kill at, not secrets
    while True:
        process = start(case, tmp_path / "killed")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        waited = 0
        if kills < KILLS:
            # Within one of the next parts, or while it is told of or saved.
            for _ in range(moments.randint(0, 1)):
                waited += process.stdout.readline().startswith("done ")
                let_on(process, 1)
            time.sleep(moments.uniform(0.0, 0.15))
            os.kill(process.pid, signal.SIGKILL)
        else:
            let_on(process, 10)
        found, parts = finish(process)
        trained += waited + parts
        if found is not None:
            break
        kills += 1

    assert found["digest"] == expected["digest"]
    assert found["notes"] == []
    assert kills == KILLS
    assert trained <= 10 + kills  # at most one part is done twice for each kill
