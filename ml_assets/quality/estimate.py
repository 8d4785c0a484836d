"""Performance before labels arrive: CBPE for classifiers, DLE for regressions, from scores alone.

Confidence-based performance estimation calibrates the scores on the reference's rows and takes the metric's value under
the calibrated chances (NannyML; Garg et al., 2022, "Leveraging unlabeled data to predict out-of-distribution
performance", study its kind). Direct loss estimation learns the size of the error on the reference's rows, here by bin
of the prediction. Both take for granted that a score still means what it meant: they see that inputs moved to
harder or easier rows, and they cannot see that the same inputs now lead to another outcome.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ml_assets.blocks import blocks_of_days
from ml_assets.errors import EvaluationError
from ml_assets.metric_values import value_of_sums
from ml_assets.metrics import METRICS, Floats, Task
from ml_assets.quality.calibrator import class_chances, expected_error, extrapolated
from ml_assets.quality.day_error import DayEstimate, added, day_codes, day_estimate, jackknife_influence
from ml_assets.quality.expected_metrics import ExpectedMetrics
from ml_assets.quality.gain import Gain, too_few_days
from ml_assets.quality.loss import losses
from ml_assets.quality.realised import Performance
from ml_assets.quality.reference import ReferencePart
from ml_assets.quality.settings import QualitySettings

MAX_UNITS = 100
"""Days that are left out one by one; of more days blocks of consecutive ones are."""

ERROR_SUMS: Mapping[str, tuple[str, str]] = {
    "mae": ("absolute_error", ""),
    "rmse": ("squared_error", ""),
    "wape": ("absolute_error", "absolute_target"),
    "bias": ("error", ""),
}
"""Regression metrics that can be estimated: what is summed, and by what it is divided; rows where empty."""

Evaluate = Callable[[Floats, Floats], tuple[Floats, ...]]
"""(weights of the reference's days, weights of the current units (k, n_units)) → value, and gain where it is known."""


def estimate(
    *,
    task: Task,
    score: Floats,
    days: NDArray[np.datetime64],
    reference: ReferencePart,
    metrics: Sequence[str],
    settings: QualitySettings,
) -> Performance:
    """Return the expected performance of scored rows; its errors hold the days' and the calibrator's uncertainty.

    Args:
        task: What kind of target it is.
        score: Finite, shape (n,), or (n, n_classes) with rows of sum 1; n ≥ 1.
        days: Local day of each row, datetime64[D], shape (n,).
        reference: The champion's own evaluation.
        metrics: Names in `METRICS`.
        settings: What the policy asks.
    """
    found, unit = day_codes(_units(days))
    expected = ExpectedMetrics(score, unit, found.size) if task != "regression" else None
    gains: dict[str, Gain] = {}
    unmeasured: dict[str, str] = {}
    for metric in metrics:
        try:
            if expected is None:
                evaluate = _error_metric(metric, score, unit, found.size, reference)
            else:
                evaluate = _class_metric(metric, score, expected, reference)
            gains[metric] = _with_errors(metric, evaluate, reference, found.size, settings.block_days)
        except EvaluationError as error:
            unmeasured[metric] = str(error)
    tested, untested = losses(reference.gains, gains, settings)
    return Performance(
        n_rows=len(score),
        n_days=int(np.unique(days).size),
        gains=gains,
        losses=tested,
        untested={**unmeasured, **untested},
        extrapolated=extrapolated(reference.bins, score),
    )


def _units(days: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    """Return the days, or the first days of blocks of consecutive ones where there are many."""
    span = int((days.max() - days.min()).astype("timedelta64[D]").astype(np.int64)) + 1
    length = -(-span // MAX_UNITS)
    return days if length == 1 else days.min() + length * blocks_of_days(days, length)


def _class_metric(metric: str, score: Floats, expected: ExpectedMetrics, reference: ReferencePart) -> Evaluate:
    def evaluate(reference_weight: Floats, weights: Floats) -> tuple[Floats, ...]:
        model, constant = expected.values(metric, class_chances(reference.bins, score, reference_weight), weights)
        return model, METRICS[metric].improvement(model, constant)

    return evaluate


def _error_metric(
    metric: str, score: Floats, unit: NDArray[np.int64], n_units: int, reference: ReferencePart
) -> Evaluate:
    if metric not in ERROR_SUMS:
        raise EvaluationError(
            f"{metric} cannot be estimated before labels arrive; {', '.join(sorted(ERROR_SUMS))} can. Add one of them "
            "to the pipeline's evaluation.metrics to have an estimate."
        )
    above, below = ERROR_SUMS[metric]
    (bins,) = reference.bins

    def evaluate(reference_weight: Floats, weights: Floats) -> tuple[Floats, ...]:
        numerator = expected_error(bins, above, score, reference_weight)
        denominator = expected_error(bins, below, score, reference_weight) if below else np.ones_like(score)
        sums = [np.bincount(unit, column, minlength=n_units) for column in (numerator, denominator)]
        return (value_of_sums(metric, weights @ np.column_stack(sums)),)

    return evaluate


def _with_errors(metric: str, evaluate: Evaluate, reference: ReferencePart, n_units: int, block_days: int) -> Gain:
    """Return the estimate with both errors: leave out each current day, and each of the reference's days."""
    own_days, own = day_codes(_units(reference.bins[0].days))
    all_own, all_units = np.ones(own.size), np.ones((1, n_units))
    whole = evaluate(all_own, all_units)
    without_unit = evaluate(all_own, 1.0 - np.eye(n_units))
    without_own = [evaluate((own != number).astype(np.float64), all_units) for number in range(own_days.size)]
    found: list[DayEstimate] = []
    for which, (estimate,) in enumerate(whole):
        without = without_unit[which], np.concatenate([values[which] for values in without_own])
        if not np.isfinite(np.concatenate([[estimate], *without])).all():
            raise EvaluationError(f"the expected {metric} has no value: one class is not expected at all.")
        parts = [day_estimate(estimate, jackknife_influence(left_out), block_days) for left_out in without]
        errors = [(part.standard_error, part.degrees) for part in parts if part is not None]
        if len(errors) < len(parts):
            raise too_few_days(min(n_units, own_days.size), block_days)
        error, degrees = added(errors)
        found.append(DayEstimate(estimate=float(estimate), standard_error=error, degrees=degrees, n_days=n_units))
    return Gain(metric=metric, value=found[0], gain=found[1] if len(found) > 1 else None)
