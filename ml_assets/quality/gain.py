"""A model's metrics, and what it gains over knowing only the label's mean, with errors over days.

A month in which twice as many labels are 1 has a larger log loss whatever the model does. What a model gains over the
best constant on the same rows moves far less with the label's rate, so months are compared by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.blocks import blocks_of_days
from ml_assets.bootstrap import MAX_JACKKNIFE_BLOCKS, block_bootstrap
from ml_assets.errors import EvaluationError
from ml_assets.metrics import METRICS, Floats, Task
from ml_assets.quality.day_error import DayEstimate, day_estimate, jackknife_influence

MODEL, CONSTANT = "model", "constant"
BY_MEDIAN = frozenset({"mae", "wape"})
"""Metrics whose best constant is the median; of the others it is the mean."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """One metric of one model on one set of rows.

    Attributes:
        metric: Name in `METRICS`.
        value: The metric.
        gain: How much better it is than that of the best constant on the same rows; positive is better. None where
            the targets are not known, as in the estimate for a regression.
    """

    metric: str
    value: DayEstimate
    gain: DayEstimate | None

    def to_document(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "metric": self.metric,
            "value": self.value.to_document(),
            "gain": None if self.gain is None else self.gain.to_document(),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Gain":
        """Return the gain that gave the document."""
        gain = document["gain"]
        return cls(
            metric=document["metric"],
            value=DayEstimate(**document["value"]),
            gain=None if gain is None else DayEstimate(**gain),
        )


def gains(
    *,
    task: Task,
    y: NDArray[Any],
    score: Floats,
    days: NDArray[np.datetime64],
    metrics: Sequence[str],
    block_days: int,
) -> tuple[dict[str, Gain], dict[str, str]]:
    """Measure a model on labelled rows.

    Args:
        task: What kind of target it is.
        y: Shape (n,): 0 and 1, positions of classes, or targets; as `metrics.validated` returns them.
        score: Shape (n,), or (n, n_classes).
        days: Local day of each row, datetime64[D], shape (n,).
        metrics: Names in `METRICS`.
        block_days: Consecutive days that hang together at least.

    Returns:
        Metric → gain, and metric → sentence for those that have no value or no error on these rows.
    """
    found: dict[str, Gain] = {}
    unmeasured: dict[str, str] = {}
    for metric in metrics:
        try:
            found[metric] = _gain(metric, task, y, score, days, block_days)
        except EvaluationError as error:
            unmeasured[metric] = str(error)
    return found, unmeasured


def _gain(
    metric: str, task: Task, y: NDArray[Any], score: Floats, days: NDArray[np.datetime64], block_days: int
) -> Gain:
    drawn = block_bootstrap(
        task=task,
        y_true=y,
        scores={MODEL: score, CONSTANT: constant(metric, task, y, score)},
        blocks=_units(days),
        metrics=[metric],
        classes=range(score.shape[1]) if score.ndim == 2 else None,
        replicates=2,  # the jackknife is what is wanted of it
        min_blocks=2,
    )
    estimates = {name: np.array([drawn.estimates[name, metric]]) for name in (MODEL, CONSTANT)}
    without = {name: drawn.without[name, metric] for name in (MODEL, CONSTANT)}
    if np.isnan(without[MODEL]).any() or np.isnan(without[CONSTANT]).any():
        raise EvaluationError(f"{metric} has no value without one of the days: a class is too rare for an error.")
    better = METRICS[metric].improvement
    value = day_estimate(float(estimates[MODEL][0]), jackknife_influence(without[MODEL]), block_days)
    gain = day_estimate(
        float(better(estimates[MODEL], estimates[CONSTANT])[0]),
        jackknife_influence(better(without[MODEL], without[CONSTANT])),
        block_days,
    )
    if value is None or gain is None:
        raise too_few_days(drawn.n_blocks, block_days)
    return Gain(metric=metric, value=value, gain=gain)


def _units(days: NDArray[np.datetime64]) -> NDArray[Any]:
    """Return the days, or blocks of days where there are more than the jackknife leaves out one by one."""
    span = int((days.max() - days.min()).astype("timedelta64[D]").astype(np.int64)) + 1
    return days if span <= MAX_JACKKNIFE_BLOCKS else blocks_of_days(days, -(-span // MAX_JACKKNIFE_BLOCKS))


def too_few_days(n_days: int, block_days: int) -> EvaluationError:
    """Return the error that says how many days are needed."""
    return EvaluationError(
        f"there are {n_days} days; an error needs at least {2 * block_days}, two blocks of {block_days}. Wait for more "
        "labels, or make partitions longer."
    )


def constant(metric: str, task: Task, y: NDArray[Any], score: Floats) -> Floats:
    """Return the best constant prediction for these labels, in the shape of the scores."""
    if task == "multiclass":
        shares = np.bincount(y.astype(np.int64), minlength=score.shape[1]) / y.size
        return np.tile(shares, (y.size, 1))
    centre = np.median(y) if metric in BY_MEDIAN else np.mean(y)
    return np.full(y.size, float(centre))
