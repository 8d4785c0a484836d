"""How much each feature column matters to a fitted model: permutation importance, as shares."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.errors import EvaluationError
from ml_assets.metric_values import compute
from ml_assets.metrics import METRICS, Floats, Task

if TYPE_CHECKING:
    import pandas as pd

REPEATS, SEED = 5, 0
DIGITS = 6
"""Shares are rounded to so many decimals: processors may differ in the last bits of a score."""

INSTEAD: Mapping[Task, str] = {"binary": "log_loss", "multiclass": "log_loss", "regression": "mae"}
"""What is used when the metric asked for has no value on the rows."""


def permutation_importance(
    frame: "pd.DataFrame",
    y: NDArray[Any],
    *,
    score: Callable[["pd.DataFrame"], Floats],
    task: Task,
    metric: str,
    classes: Sequence[object] | None = None,
) -> tuple[dict[str, float], str]:
    """Return how much worse a metric becomes when a column's values are shuffled among the rows, as shares of 1.

    Losses are averaged over 5 shuffles; a column whose shuffling helps has the share 0. Columns that tell the
    same share their importance, as with every permutation importance (Breiman, 2001, "Random Forests", section 10).

    Args:
        frame: The columns, shape (n, n_columns).
        y: Labels, shape (n,).
        score: The model: frame → shape (n,), or (n, n_classes).
        task: What kind of target it is.
        metric: Name in `METRICS`; replaced by log loss or mean absolute error where it has no value on these rows.
        classes: For multiclass the label of each score column.

    Returns:
        Column → share, and the metric that was used. When no column matters all shares are equal, and the metric is
        empty.
    """
    scores, n_rows = score(frame), len(frame)
    metric = _defined(metric, task, y, scores, classes)
    before = compute(metric, y, scores, classes=classes)
    rows = np.tile(np.arange(n_rows), REPEATS)  # a model scores rows one by one: all shuffles of a column at once
    better = METRICS[metric].improvement
    losses: dict[str, float] = {}
    for number, column in enumerate(frame.columns):
        # A generator for each column: a share does not depend on the columns before it.
        rng = np.random.Generator(np.random.PCG64([SEED, number]))
        order = np.concatenate([rng.permutation(n_rows) for _ in range(REPEATS)])
        shuffled = frame.iloc[rows].assign(**{column: frame[column].to_numpy()[order]})
        after = [compute(metric, y, part, classes=classes) for part in np.split(score(shuffled), REPEATS)]
        losses[str(column)] = float(np.mean(better(np.array(before), np.array(after))))
    return shares(losses), metric if any(loss > 0 for loss in losses.values()) else ""


def shares(losses: Mapping[str, float]) -> dict[str, float]:
    """Return losses as shares of their sum, those below 0 as 0; equal shares when none is above 0.

    >>> shares({"amount": 0.3, "country": 0.1, "noise": -0.01})
    {'amount': 0.75, 'country': 0.25, 'noise': 0.0}
    """
    total = sum(max(0.0, loss) for loss in losses.values())
    if total <= 0.0:
        return {name: 1.0 / len(losses) for name in losses}
    return {name: round(max(0.0, loss) / total, DIGITS) for name, loss in losses.items()}


def _defined(metric: str, task: Task, y: NDArray[Any], scores: Floats, classes: Sequence[object] | None) -> str:
    try:
        compute(metric, y, scores, classes=classes)
    except EvaluationError:
        return INSTEAD[task]
    return metric
