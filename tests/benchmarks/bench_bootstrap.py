"""Time of the block bootstrap against the straightforward way: `python -m tests.benchmarks.bench_bootstrap`.

The goal: 2,000 replicates of AUC and log loss on 50,000 rows in day blocks below 2 s on one core, each equal to the
straightforward way to 1e-12. Straightforward: for each replicate weigh every row by how often its day was drawn, and
call scikit-learn's `roc_auc_score` and `log_loss`. Both run on one core and draw the same days; their numbers are
compared before their times are.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ml_assets.bootstrap import block_bootstrap, draw_block_weights


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Return the function's result and its time in seconds."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def rows(n_rows: int, n_days: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, scores and days of a made-up month in which days differ."""
    rng = np.random.default_rng(0)
    day = rng.integers(0, n_days, n_rows)
    logit = rng.normal(-1.3, 0.9, n_rows)
    y = rng.random(n_rows) < 1 / (1 + np.exp(-logit - rng.normal(0, 0.5, n_days)[day]))
    return y.astype(int), 1 / (1 + np.exp(-logit)), day


def straightforward(y: np.ndarray, score: np.ndarray, day: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return shape (replicates, 2): ROC AUC and log loss with each row weighed by its day."""
    from sklearn.metrics import log_loss, roc_auc_score

    values = []
    for weight in weights:
        of_row = weight[day]
        values.append((roc_auc_score(y, score, sample_weight=of_row), log_loss(y, score, sample_weight=of_row)))
    return np.array(values)


def main() -> None:
    """Print seconds and ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--replicates", type=int, default=2_000)
    parser.add_argument("--limit-seconds", type=float, default=2.0)
    parser.add_argument("--reference-replicates", type=int, default=50, help="timed, and scaled to --replicates")
    options = parser.parse_args()
    y, score, day = rows(options.rows, options.days)
    with threadpool_limits(limits=1):
        found, ours = timed(
            lambda: block_bootstrap(
                task="binary",
                y_true=y,
                scores={"m": score},
                blocks=day,
                metrics=["roc_auc", "log_loss"],
                replicates=options.replicates,
                seed=1,
            )
        )
        weights = np.concatenate(list(draw_block_weights(options.days, options.replicates, 1)))
        head = weights[: options.reference_replicates]
        expected, reference = timed(lambda: straightforward(y, score, day, head))
    reference *= options.replicates / len(head)
    values = np.column_stack([found.values["m", "roc_auc"], found.values["m", "log_loss"]])[: len(head)]
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    print(  # noqa: T201 - a benchmark prints its result
        f"{options.replicates:,} replicates of AUC and log loss, {options.rows:,} rows, {options.days} days:"
        f" {ours:.3f} s; straightforward {reference:.1f} s (from {len(head)}); ratio {reference / ours:.0f}"
    )
    if ours > options.limit_seconds:
        raise SystemExit(f"{ours:.3f} s is above the limit of {options.limit_seconds:g} s")


if __name__ == "__main__":
    main()
