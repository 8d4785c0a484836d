"""Whether shares of rows differ between two sets of days by more than days of one process do.

Rows of one day share weather, staff and prices, and a day resembles the one before. So the unit is the day. The
statistic is a squared distance between two vectors of shares: Pearson's, each bin weighed by one over its mean share,
for categories; Anderson and Darling's, of the shares up to each edge, for numbers, which sees a shift best. What it is
without drift is found from the reference's own days:

- The variance of a share over days in a row is its long-run variance, found from the first B cosine transforms of the
  daily deviations (Lazarus, Lewis, Stock & Watson, 2018, "HAR inference: recommendations for practice"). Each of
  them is one independent look at the days, as a block of days is, and they suffer less from the blocks' borders.
- The statistic over its mean without drift is judged as F(d, d·B), where d counts how many independent directions the
  variance has: the second-order correction of Rao & Scott (1984) for clustered tables, as Thomas & Rao (1987)
  recommend it. Far out, the largest direction alone decides; so a p-value is never less than that of a t test with B
  degrees of freedom in which it bears the whole distance. Few days have a small B and need a large distance: the test
  errs to the safe side.

A variance is never taken as less than that of independent days, nor than that of independent rows. When the days
of the current side scatter more than those of the reference, they count with their own variance: a storm that no
day of the reference has seen, on one day of the current ones, is no drift. As this is no simulation, a p-value can
be as small as many columns ask for, and is the same each time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_LOOKS = 8
"""Blocks become longer with the reference as long as so many are left: slow swings need long blocks."""


@dataclass(frozen=True, kw_only=True)
class DayTest:
    """How far two sets of days are apart, and how often days of one process are that far apart.

    Attributes:
        p_value: Chance of such a distance without drift, 0 to 1.
        statistic: Squared distance over its mean without drift; about 1 without drift.
        directions: Numerator's degrees of freedom: independent directions in which the shares vary.
        looks: Independent looks at the reference's variance, about its number of blocks.
    """

    p_value: float
    statistic: float
    directions: float
    looks: int


_NOTHING = DayTest(p_value=1.0, statistic=0.0, directions=1.0, looks=0)

MOST_ALIKE = 0.95
"""Largest coefficient of one day on the day before."""


def block_length(reference_days: int, current_days: int, block_days: int) -> int:
    """Return how many days hang together: longer for a long reference, at most as long as the current side.

    A year's reference is read in months when a month is compared with it: a month may differ from the year's mean as
    much as the year's own months do.

    >>> block_length(30, 30, 5), block_length(90, 30, 5), block_length(365, 30, 5)
    (5, 11, 30)
    """
    return max(block_days, min(current_days, reference_days // MIN_LOOKS))


def day_test(reference: Floats, current: Floats, *, block_days: int, ordered: bool = False) -> DayTest:
    """Compare the bins' shares of two sets of days.

    Args:
        reference: Rows by day and bin, shape (reference days, n_bins), days in order.
        current: The same of the current side, shape (current days, n_bins).
        block_days: Fewest days that hang together, ≥ 1.
        ordered: Whether the bins are those of a number.
    """
    reference, current = reference[reference.sum(axis=1) > 0], current[current.sum(axis=1) > 0]
    if len(reference) < 2 or not len(current):
        return _NOTHING
    used = (reference.sum(axis=0) + current.sum(axis=0)) > 0
    then, now = _Counts.of(reference[:, used], ordered=ordered), _Counts.of(current[:, used], ordered=ordered)
    middle = (then.shares + now.shares) / 2.0
    weight = np.sqrt(1.0 / (middle * (1.0 - middle) if ordered else middle))
    row_variance = float((weight**2 * then.shares * (1.0 - then.shares)).sum())
    return _compared(then, now, weight, row_variance, block_days)


def mean_test(reference: Floats, current: Floats, *, block_days: int) -> DayTest:
    """Compare the means of two sets of days.

    Shares are all that counts between numbers that overlap; when the sides lie apart, they cannot be further apart
    than wholly, and only the means tell how far. One day's likeness to the day before is taken into the variance as
    well (an autoregression, as Andrews & Monahan, 1992, recolour with it), found from the days of both sides: there is
    one direction only, and no other to make up for a variance that few days give too small.

    Args:
        reference: By day the number of rows, their sum and their sum of squares, shape (reference days, 3).
        current: The same of the current side.
        block_days: Fewest days that hang together, ≥ 1.
    """
    reference, current = reference[reference[:, 0] > 0], current[current[:, 0] > 0]
    if len(reference) < 2 or not len(current):
        return _NOTHING
    then, now = (
        _Counts(side[:, 1:2], side[:, 0], side[:, 1:2].sum(axis=0) / side[:, 0].sum()) for side in (reference, current)
    )
    row_variance = float(reference[:, 2].sum() / then.rows.sum() - then.shares[0] ** 2)
    return _compared(then, now, np.ones(1), max(0.0, row_variance), block_days, recolour=True)


def _compared(
    then: "_Counts", now: "_Counts", weight: Floats, row_variance: float, block_days: int, *, recolour: bool = False
) -> DayTest:
    distance = float((((now.shares - then.shares) * weight) ** 2).sum())
    n_then, n_now = len(then.rows), len(now.rows)
    looks = max(1, n_then // block_length(n_then, n_now, block_days))
    past = _Scatter.of(then, weight, looks, row_variance)
    if recolour:
        variance = _recoloured([side.deviations(weight)[:, 0] for side in (then, now)])
        past = replace(past, long_run=max(past.long_run, variance))
    mean = past.long_run / n_then + _current_variance(past, now, weight)
    if mean <= 0.0:
        # All rows of a side are alike, and stay so.
        return DayTest(p_value=1.0 if distance == 0.0 else 0.0, statistic=0.0, directions=1.0, looks=looks)
    return _judged(distance / mean, past, looks)


def _recoloured(sides: Sequence[Floats]) -> float:
    """Return the long-run variance of an autoregression of one day, from each side's deviations from its own mean.

    The coefficient is freed from its bias of (1 + 4·coefficient) / days.
    """
    squares = sum(float((side**2).sum()) for side in sides)
    n = sum(len(side) for side in sides)
    if n < 8 or squares <= 0.0:
        return 0.0
    alike = sum(float((side[1:] * side[:-1]).sum()) for side in sides) / squares
    alike = min(MOST_ALIKE, max(0.0, alike + (1.0 + 4.0 * alike) * len(sides) / n))
    return squares / (n - len(sides)) * (1.0 + alike) / (1.0 - alike)


def _judged(statistic: float, past: "_Scatter", looks: int) -> DayTest:
    from scipy.special import fdtrc

    together = fdtrc(past.directions, past.directions * looks, statistic)
    alone = fdtrc(1.0, looks, statistic / past.largest)
    p_value = float(max(together, alone))
    return DayTest(p_value=p_value, statistic=statistic, directions=past.directions, looks=looks)


@dataclass(frozen=True, eq=False)
class _Counts:
    """One side.

    Attributes:
        table: Rows by day and bin, or up to each edge, shape (days, k).
        rows: All rows of each day, shape (days,).
        shares: Shares of all rows, shape (k,).
    """

    table: Floats
    rows: Floats
    shares: Floats

    @classmethod
    def of(cls, table: Floats, *, ordered: bool) -> "_Counts":
        rows = table.sum(axis=1)
        table = np.cumsum(table, axis=1)[:, :-1] if ordered else table
        return cls(table, rows, table.sum(axis=0) / rows.sum())

    def deviations(self, weight: Floats) -> Floats:
        """Return each day's part in the error of the shares, in units of a day's mean number of rows."""
        return (self.table - self.rows[:, None] * self.shares) * (weight / self.rows.mean())

    @property
    def unevenness(self) -> float:
        """Return the mean square of a day's number of rows over the square of their mean."""
        return float((self.rows**2).mean() / self.rows.mean() ** 2)


@dataclass(frozen=True)
class _Scatter:
    """How the shares scatter over days, weighed and summed over bins.

    Attributes:
        long_run: Variance of one day's deviation as it counts in a mean over many days in a row.
        inflation: Long-run variance over that of independent days, ≥ 1.
        directions: Independent directions, ≥ 1.
        largest: Part of the variance that lies in the largest of them, 0 to 1.
        row_variance: Variance of one row.
        rows: Mean number of rows of a day.
        unevenness: See `_Counts`.
    """

    long_run: float
    inflation: float
    directions: float
    largest: float
    row_variance: float
    rows: float
    unevenness: float

    @classmethod
    def of(cls, counts: _Counts, weight: Floats, looks: int, row_variance: float) -> "_Scatter":
        days, rows = len(counts.rows), float(counts.rows.mean())
        deviations = counts.deviations(weight)
        angle = np.pi * (np.arange(days) + 0.5) / days
        waves = np.sqrt(2.0 / days) * np.cos(np.arange(1, looks + 1)[:, None] * angle) @ deviations
        slow = float((waves**2).sum()) / looks
        independent = float((deviations**2).sum()) / (days - 1)
        directions, largest = _directions(waves, deviations)
        return cls(
            long_run=max(slow, independent, row_variance / rows),
            inflation=max(1.0, slow / independent) if independent > 0.0 else 1.0,
            directions=directions,
            largest=largest,
            row_variance=row_variance,
            rows=rows,
            unevenness=counts.unevenness,
        )


def _directions(waves: Floats, deviations: Floats) -> tuple[float, float]:
    """Return (Σλ)²/Σλ² and max λ/Σλ of the covariance with fewer directions: that of the waves or that of the days."""

    def directions(rows: Floats) -> tuple[float, float]:
        variances = np.linalg.svd(rows, compute_uv=False) ** 2
        total = float(variances.sum())
        if total <= 0.0:
            return 1.0, 1.0
        return max(1.0, total**2 / float((variances**2).sum())), float(variances[0]) / total

    (few, large), (many, small) = directions(waves), directions(deviations)
    return min(few, many), max(large, small)


def _current_variance(past: _Scatter, now: _Counts, weight: Floats) -> float:
    """Return the variance of the current shares, from the more scattered of both sides' days."""
    days = len(now.rows)
    own = float((now.deviations(weight) ** 2).sum()) / (days - 1) * past.inflation if days > 1 else 0.0
    # Days of uneven size count as fewer days.
    uneven = max(1.0, now.unevenness / past.unevenness)
    # Fewer rows a day than the reference has: the rows' own error is larger than its days show.
    thin = past.row_variance * max(0.0, 1.0 / float(now.rows.sum()) - 1.0 / (days * past.rows))
    return max(past.long_run * uneven, own) / days + thin
