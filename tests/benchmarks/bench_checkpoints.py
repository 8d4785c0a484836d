"""What checkpoints cost: `python -m tests.benchmarks.bench_checkpoints`.

Each estimator is trained by one call, with checkpoints as a pipeline trains it, and in ten parts whatever they take, in
turns in one process on one core. The scores of estimators that are cut anywhere are compared before the times are.
CPU seconds, the least of the repeats.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ml_assets.spec import ComputeSpec, PreprocessingSpec, VariantSpec
from ml_assets.trainers import rounds
from ml_assets.training import Fitted, predict, train
from resources.checkpoints import CheckpointFolder

ESTIMATORS: dict[str, dict[str, Any]] = {
    "sklearn.ensemble.HistGradientBoostingClassifier": {"max_iter": 300, "early_stopping": False},
    "sklearn.ensemble.RandomForestClassifier": {"n_estimators": 40, "min_samples_leaf": 50},
    "lightgbm.LGBMClassifier": {"n_estimators": 300},
    "xgboost.XGBClassifier": {"n_estimators": 300},
    "sklearn.linear_model.SGDClassifier": {"max_iter": 50, "tol": None, "loss": "log_loss"},
}
FILLED = PreprocessingSpec(missing="median", numeric="standardize")


def rows(n_rows: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return 18 columns and a binary label."""
    rng = np.random.default_rng(1)
    X = pd.DataFrame(rng.normal(size=(n_rows, 18)), columns=[f"x{i}" for i in range(18)])
    return X, (X["x0"] + X["x1"] ** 2 + rng.normal(size=n_rows) > 1).astype(float).to_numpy()


def timed(variant: VariantSpec, X: pd.DataFrame, y: np.ndarray, part_seconds: float) -> tuple[Fitted, float, int]:
    """Return the model, CPU seconds, and the bytes of its largest state."""
    rounds.PART_SECONDS = part_seconds
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = CheckpointFolder(folder).open("shop/returns/models/it/2024-02/aa")
        start = time.process_time()
        fitted = train(variant, X, y, seed=0, checkpoint=checkpoint)
        seconds = time.process_time() - start
        sizes = [file.stat().st_size for file in Path(folder).rglob("*.checkpoint")]
    return fitted, seconds, max(sizes, default=0)


def main() -> None:
    """Print one line an estimator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    X, y = rows(options.rows)
    shipped = rounds.PART_SECONDS
    for estimator, params in ESTIMATORS.items():
        plain = VariantSpec(estimator=estimator, params=params, preprocessing=FILLED)
        kept = plain.model_copy(update={"compute": ComputeSpec(checkpoint=True)})
        ways = {"one call": (plain, shipped), "checkpoints": (kept, shipped), "ten parts": (kept, 0.0)}
        least, size, same = dict.fromkeys(ways, float("inf")), 0, True
        for _ in range(options.repeats):
            scores = {}
            for name, (variant, part_seconds) in ways.items():
                with threadpool_limits(limits=1):
                    fitted, seconds, n_bytes = timed(variant, X, y, part_seconds)
                least[name], size = min(least[name], seconds), max(size, n_bytes)
                scores[name] = predict(fitted.model, X.head(5_000), task="binary")
            same = all(np.array_equal(scores["one call"], found) for found in scores.values())
        ratios = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in least.items())
        print(  # noqa: T201 - a benchmark's output
            f"{estimator.rpartition('.')[2]}: {ratios}; checkpoints ×{least['checkpoints'] / least['one call']:.2f}, "
            f"ten parts ×{least['ten parts'] / least['one call']:.2f}; state {size / 1e6:.1f} MB; same scores: {same}"
        )


if __name__ == "__main__":
    main()
