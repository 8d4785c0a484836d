"""How sure a number over many days is, when rows of a day are alike and a day resembles the one before.

A number is a function of days: leaving each day out in turn says how far that day moves it (the jackknife's influence,
Efron & Stein, 1981). The error of the mean of such influences is that of an AR(1) process: n days of autocorrelation
r tell as much as n·(1 − r) / (1 + r) independent ones, and Student's t is asked with one degree of freedom less than
these (Zwiers & von Storch, 1995, "Taking serial correlation into account in tests of the mean"). A month's r is
estimated too low on average, and is corrected (Kendall, 1954). Nothing is drawn: the same rows give the same interval.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.metrics import Floats

MIN_BLOCKS = 2
"""Fewest blocks of days that hang together for which an error is given."""

LARGEST_AUTOCORRELATION = 0.9


@dataclass(frozen=True, kw_only=True)
class DayEstimate:
    """A number and how sure it is.

    Attributes:
        estimate: Value on all rows.
        standard_error: Of the estimate, over days.
        degrees: Degrees of freedom of the error, ≥ 1.
        n_days: Days with rows.
    """

    estimate: float
    standard_error: float
    degrees: float
    n_days: int

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the ends of a two-sided interval; without bounds of the metric."""
        from scipy.stats import t

        half = float(t.ppf((1.0 + confidence) / 2.0, self.degrees)) * self.standard_error
        return self.estimate - half, self.estimate + half

    def p_value(self, limit: float = 0.0) -> float:
        """Return the one-sided p-value of the hypothesis that the true number is at most `limit`."""
        from scipy.stats import t

        if self.standard_error == 0.0:
            return float(self.estimate <= limit)
        return float(t.sf((self.estimate - limit) / self.standard_error, self.degrees))

    def two_sided_p_value(self) -> float:
        """Return the p-value of the hypothesis that the true number is 0."""
        from scipy.stats import t

        if self.standard_error == 0.0:
            return float(self.estimate == 0.0)
        return 2.0 * float(t.sf(abs(self.estimate) / self.standard_error, self.degrees))

    def minus(self, other: "DayEstimate") -> "DayEstimate":
        """Return the difference to a number of other days, with Welch's degrees of freedom."""
        error, degrees = added([(self.standard_error, self.degrees), (other.standard_error, other.degrees)])
        return DayEstimate(
            estimate=self.estimate - other.estimate,
            standard_error=error,
            degrees=degrees,
            n_days=min(self.n_days, other.n_days),
        )

    def to_document(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def autocorrelation(influence: Floats) -> float:
    """Return the lag-1 autocorrelation of days in order of time, corrected for its bias, 0 to 0.9.

    >>> autocorrelation(np.array([1.0, -1.0] * 15)), round(autocorrelation(np.repeat([1.0, -1.0], 15)), 2)
    (0.0, 0.9)
    """
    deviation = influence - influence.mean()
    spread = float((deviation**2).sum())
    if spread == 0.0:
        return 0.0
    r = float((deviation[1:] * deviation[:-1]).sum()) / spread
    return min(max(r + (1.0 + 3.0 * r) / influence.size, 0.0), LARGEST_AUTOCORRELATION)


def day_estimate(estimate: float, influence: Floats, block_days: int) -> DayEstimate | None:
    """Return a number with its error, or None when there are too few days for one.

    Args:
        estimate: Value on all rows.
        influence: Of each day, in order of time, shape (n_days,); the mean of them varies as the number does.
        block_days: Days that hang together at least: so many give one degree of freedom at most.
    """
    n_days = influence.size
    if n_days // block_days < MIN_BLOCKS:
        return None
    r = autocorrelation(influence)
    independent = n_days * (1.0 - r) / (1.0 + r)
    return DayEstimate(
        estimate=float(estimate),
        standard_error=float(influence.std(ddof=1)) / independent**0.5,
        degrees=max(1.0, min(independent - 1.0, n_days / block_days)),
        n_days=n_days,
    )


def jackknife_influence(without: Floats) -> Floats:
    """Return each day's influence from the number without it, shape (n_days,)."""
    return (without.size - 1) * (without.mean() - without)


def ratio_influence(numerator: Floats, denominator: Floats) -> tuple[float, Floats]:
    """Return a ratio of sums over days, and each day's influence on it (Cochran, 1977, chapter 6).

    Args:
        numerator: Sum of each day, shape (n_days,).
        denominator: Sum of each day, shape (n_days,), of positive total.
    """
    ratio = float(numerator.sum() / denominator.sum())
    return ratio, (numerator - ratio * denominator) / denominator.mean()


def added(errors: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the standard error of a sum of independent numbers, and its degrees of freedom by Satterthwaite.

    Args:
        errors: (standard error, degrees of freedom) of each.
    """
    variances = np.array([error**2 for error, _ in errors])
    degrees = np.array([degrees for _, degrees in errors])
    total = float(variances.sum())
    if total == 0.0:
        return 0.0, float(degrees.min())
    return total**0.5, float(total**2 / (variances**2 / degrees).sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that hold together (Holm, 1979).

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted.tolist()


def day_codes(days: NDArray[np.datetime64]) -> tuple[NDArray[np.datetime64], NDArray[np.int64]]:
    """Return the sorted days, and the position of each row's day among them."""
    found, code = np.unique(days.astype("datetime64[D]"), return_inverse=True)
    return found, code.astype(np.int64)
