"""Whether predictions still mean what they say: the mean of label minus prediction, over days that hang together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.metrics import Floats, Task
from ml_assets.quality.day_error import DayEstimate, day_codes, day_estimate, holm, ratio_influence
from ml_assets.quality.settings import QualitySettings

N_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Mean of label minus prediction.

    Attributes:
        label: Class whose chance was predicted; empty for binary and regression.
        gap: For classifiers rate minus mean chance, −1 to 1; for regression as a share of the mean absolute target.
        p_value: Of no gap, two-sided.
        adjusted: The same over all classes (Holm).
        miscalibrated: Whether the gap is beyond the policy's, and the adjusted p-value below alpha.
    """

    label: str
    gap: DayEstimate
    p_value: float
    adjusted: float
    miscalibrated: bool

    def to_document(self, confidence: float) -> dict[str, Any]:
        """Return JSON-ready values."""
        lower, upper = self.gap.interval(confidence)
        return {
            "label": self.label,
            "gap": self.gap.estimate,
            "lower": lower,
            "upper": upper,
            "p_value": self.p_value,
            "adjusted": self.adjusted,
            "miscalibrated": self.miscalibrated,
        }


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Rows of similar prediction: what was predicted, and what happened.

    Attributes:
        n_rows: Rows.
        mean_predicted: Mean chance or prediction.
        mean_true: Rate of the class, or mean target.
        lower: Lower end of its interval; equal to the mean where there are too few days.
        upper: Upper end.
    """

    n_rows: int
    mean_predicted: float
    mean_true: float
    lower: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far predictions are from what happened.

    Attributes:
        gaps: One, or for multiclass one for each class.
        bins: By prediction, from low to high; for multiclass of the class with the largest gap.
    """

    gaps: tuple[Gap, ...]
    bins: tuple[ReliabilityBin, ...]

    @property
    def worst(self) -> Gap:
        """Return the gap to show: a miscalibrated one before others, then the largest."""
        return max(self.gaps, key=lambda gap: (gap.miscalibrated, abs(gap.gap.estimate)))


def calibrate(
    *,
    task: Task,
    y: NDArray[Any],
    score: Floats,
    days: NDArray[np.datetime64],
    settings: QualitySettings,
    classes: Sequence[str] = (),
) -> Calibration | None:
    """Judge the calibration of labelled rows; None when there are too few days for an error.

    Args:
        task: What kind of target it is.
        y: Labels as `metrics.validated` returns them, shape (n,).
        score: Shape (n,), or (n, n_classes).
        days: Local day of each row, datetime64[D], shape (n,).
        settings: What the policy asks.
        classes: For multiclass the names of the score columns.
    """
    found, code = day_codes(days)
    if task == "multiclass":
        pairs = [((y == k).astype(np.float64), np.ascontiguousarray(score[:, k])) for k in range(len(classes))]
    else:
        pairs = [(y.astype(np.float64), score)]
    scale = np.abs(y).astype(np.float64) if task == "regression" else np.ones(len(score))
    estimates = [_gap(true - predicted, scale, code, found.size, settings.block_days) for true, predicted in pairs]
    known = [estimate for estimate in estimates if estimate is not None]
    if len(known) < len(pairs):
        return None
    p_values = [estimate.two_sided_p_value() for estimate in known]
    gaps = tuple(
        Gap(
            label=label,
            gap=estimate,
            p_value=p,
            adjusted=adjusted,
            miscalibrated=abs(estimate.estimate) > settings.calibration_gap and adjusted < settings.alpha,
        )
        for label, estimate, p, adjusted in zip(classes or ("",), known, p_values, holm(p_values), strict=True)
    )
    largest = max(range(len(gaps)), key=lambda k: abs(gaps[k].gap.estimate))
    return Calibration(gaps=gaps, bins=_reliability(*pairs[largest], code, found.size, settings))


def _gap(residual: Floats, scale: Floats, code: NDArray[np.int64], n_days: int, block_days: int) -> DayEstimate | None:
    totals, sizes = (np.bincount(code, values, minlength=n_days).astype(np.float64) for values in (residual, scale))
    if sizes.sum() <= 0.0:  # every target is 0: a share of nothing
        return None
    return day_estimate(*ratio_influence(totals, sizes), block_days)


def _reliability(
    true: Floats, predicted: Floats, code: NDArray[np.int64], n_days: int, settings: QualitySettings
) -> tuple[ReliabilityBin, ...]:
    """Return the rows cut at quantiles of their prediction; equal predictions stay together."""
    edges = np.unique(np.quantile(predicted, np.linspace(0.0, 1.0, N_BINS + 1)))
    number = np.searchsorted(edges[1:-1], predicted, side="left")
    bins = []
    for which in np.unique(number):
        inside = number == which
        days = np.bincount(code[inside], minlength=n_days).astype(np.float64)
        totals = np.bincount(code[inside], true[inside], minlength=n_days).astype(np.float64)
        mean, influence = ratio_influence(totals, days)
        estimate = day_estimate(mean, influence, settings.block_days)
        lower, upper = (mean, mean) if estimate is None else estimate.interval(0.95)
        bins.append(
            ReliabilityBin(
                n_rows=int(inside.sum()),
                mean_predicted=float(predicted[inside].mean()),
                mean_true=mean,
                lower=lower,
                upper=upper,
            )
        )
    return tuple(bins)
