"""How far two distributions over the same bins are apart: sizes that do not grow with the number of rows."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SMALLEST_SHARE = 1e-4
"""Share that an empty bin counts as in the PSI, whose logarithm has no value at 0."""


def shares(counts: Floats) -> Floats:
    """Return a bin's part of all rows, shape (n_bins,), from rows by day and bin, shape (days, n_bins)."""
    total = counts.sum(axis=0)
    return total / max(1.0, float(total.sum()))


def psi(reference: Floats, current: Floats) -> float:
    """Return the population stability index of two vectors of shares: Σ (c − r)·ln(c / r), ≥ 0, 0 when equal.

    >>> psi(np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    0.0
    """
    then, now = np.maximum(reference, SMALLEST_SHARE), np.maximum(current, SMALLEST_SHARE)
    return float(((now - then) * np.log(now / then)).sum())


def ks_distance(reference: Floats, current: Floats) -> float:
    """Return the largest difference of the cumulated shares at the bins' edges: 0 to 1.

    Between edges the distance can be larger by at most the shares of one bin.
    """
    return float(np.abs(np.cumsum(current - reference)).max(initial=0.0))


def largest_change(reference: Floats, current: Floats) -> float:
    """Return the largest change of one bin's share, 0 to 1: the distance for values without an order."""
    return float(np.abs(current - reference).max(initial=0.0))


def wasserstein(reference: Floats, current: Floats) -> float:
    """Return the mean distance between quantiles, in units of the reference's interquartile range.

    Args:
        reference: Quantiles at equally spaced shares, ascending, shape (n,).
        current: The same of the current side.
    """
    if not reference.size or not current.size:
        return 0.0
    low, high = np.interp([0.25, 0.75], np.linspace(0, 1, reference.size), reference)
    spread = float(high - low) or float(reference[-1] - reference[0]) or 1.0
    return float(np.abs(current - reference).mean()) / spread


def adjusted(p_values: Floats) -> Floats:
    """Return the p-values corrected for their number by Benjamini & Hochberg (1995).

    Of those below alpha a share of at most alpha is wrong, in the mean; when nothing moved, the chance that any is
    below alpha is at most alpha.

    >>> adjusted(np.array([0.01, 0.02, 0.9])).round(3).tolist()
    [0.03, 0.03, 0.9]
    """
    order = np.argsort(p_values, kind="stable")
    ranks = np.arange(1, p_values.size + 1)
    raw = p_values[order] * p_values.size / ranks
    found = np.empty_like(p_values)
    found[order] = np.minimum(1.0, np.minimum.accumulate(raw[::-1])[::-1])
    return found
