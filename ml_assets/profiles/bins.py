"""Cuts a column's values into bins and counts each day's rows in them: what a comparison of partitions needs."""

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ml_assets.profiles.category import CategoryBlock, CategoryProfile, label_of
from ml_assets.profiles.numeric import NAN, NEGATIVE_INFINITY, NULL, POSITIVE_INFINITY, NumericBlock, NumericProfile
from ml_assets.profiles.profile import ColumnProfile

DayCounts = tuple[NDArray[np.datetime64], NDArray[np.float64]]


def edges(column: NumericProfile, n_bins: int) -> NDArray[np.float64]:
    """Return the inner edges of bins with about equally many values: quantiles that occur, each once.

    Bin 0 is (-inf, edges[0]], bin i is (edges[i - 1], edges[i]], the last is (edges[-1], inf). A value that fills
    several bins makes them one, so there may be fewer than `n_bins`. No edge is the greatest value, since nothing
    would lie above it; only a constant column has two edges around its value, so that any other value shows.

    Args:
        column: The reference.
        n_bins: At least 1.

    Returns:
        Ascending, shape (at most n_bins - 1,), or (2,) for a constant; empty when there are no finite values.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins is {n_bins}; expected at least 1")
    if column.min == column.max:
        return np.array([np.nextafter(column.min, -np.inf), column.min])
    found = np.unique(column.quantiles(np.arange(1, n_bins) / n_bins))
    return found[found < column.max]


@overload
def day_counts(column: NumericProfile, bins: NDArray[np.float64]) -> DayCounts: ...
@overload
def day_counts(column: CategoryProfile, bins: Sequence[str]) -> DayCounts: ...
def day_counts(column: ColumnProfile, bins: NDArray[np.float64] | Sequence[str]) -> DayCounts:
    """Return how many rows of each day fall in each bin; rows of one date in several partitions add up.

    Args:
        column: Any column; the bins need not come from it.
        bins: For a numeric column, ascending inner edges (see `edges`). For categories, distinct values.

    Returns:
        Sorted distinct days, and counts, float64, each row's sum being the day's rows.
        Numeric: shape (n_days, n_edges + 2): the bins, -inf in the first and +inf in the last, then null and NaN.
        A count is exact unless an edge is inside a cell of several values (see `NumericProfile.rank_error`).
        Category: shape (n_days, n_values + 2): the values, then all others, then null. Rows whose value a
        partition does not keep are among the others (see `CategoryProfile.count_error`).
    """
    if isinstance(column, NumericProfile):
        inner = np.asarray(bins, dtype=np.float64)
        if not np.isfinite(inner).all() or (np.diff(inner) <= 0).any():
            raise ValueError(f"the edges are {inner[:10]}; expected finite, ascending numbers")
        parts = [(block.days, _numeric_counts(block, inner)) for block in column.blocks]
    else:
        labels = [label_of(str(value)) for value in bins]
        if len(set(labels)) < len(labels):
            raise ValueError("a value is given twice; expected distinct values")
        parts = [(block.days, _category_counts(block, labels)) for block in column.blocks]
    all_days = np.concatenate([np.empty(0, dtype="datetime64[D]"), *(days for days, _ in parts)])
    days, place = np.unique(all_days, return_inverse=True)
    counts = np.zeros((len(days), len(bins) + 2))
    np.add.at(counts, place, np.concatenate([counts[:0], *(part for _, part in parts)]))
    return days, counts


def _numeric_counts(block: NumericBlock, inner: NDArray[np.float64]) -> NDArray[np.float64]:
    ranks = block.day_ranks(inner)
    total = block.cumulative[:, -1:]
    bins = np.diff(np.hstack([np.zeros_like(total), ranks, total]), axis=1)
    bins[:, 0] += block.special[:, NEGATIVE_INFINITY]
    bins[:, -1] += block.special[:, POSITIVE_INFINITY]
    missing = block.special[:, [NULL, NAN]].sum(axis=1, dtype=np.int64)
    return np.column_stack([bins, missing])


def _category_counts(block: CategoryBlock, labels: Sequence[str]) -> NDArray[np.float64]:
    counts = np.zeros((len(block.days), len(labels) + 2))
    known = [(i, block.position[label]) for i, label in enumerate(labels) if label in block.position]
    if known:
        to, source = map(list, zip(*known, strict=True))
        counts[:, to] = block.counts[:, source]
    counts[:, -1] = block.nulls
    with_value = block.counts.sum(axis=1, dtype=np.int64) + block.other
    counts[:, -2] = with_value - counts[:, : len(labels)].sum(axis=1)
    return counts
