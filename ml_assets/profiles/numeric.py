"""The profile of a numeric column: how many rows of each day lie in each of some hundred cells of values.

A block is one partition's part. Its cells are disjoint intervals between values that occur, cut so that none but
those of a single value holds more than one part in `CELLS` of the rows. For each day it has the exact number of rows
in each cell, so the share of a day's rows up to any edge can be read without the rows. Profiles add up by keeping
their blocks side by side: adding loses nothing, its order does not matter, and the error does not grow with the parts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ml_assets.profiles.distinct import Registers, estimate, hash_numbers, registers_of

CELLS = 256
"""Cells of a block aim at this part of its rows: the rank of any value is known to within one part in it."""

EXACT_VALUES = 512
"""A block with no more distinct values than these has one cell for each, and every count is exact."""

NULL, NAN, NEGATIVE_INFINITY, POSITIVE_INFINITY = range(4)


@dataclass(frozen=True, kw_only=True, eq=False)
class NumericBlock:
    """One partition's part of a numeric column.

    Attributes:
        days: Sorted distinct local days, datetime64[D], shape (n_days,).
        lo: Least value in each cell, float64, shape (n_cells,); cells ascend and do not overlap.
        hi: Greatest value in each cell; equal to `lo` for a cell of one value.
        counts: Rows of each day in each cell, unsigned, shape (n_days, n_cells).
        special: Rows of each day that are null, NaN, -inf, +inf; unsigned, shape (n_days, 4).
        mean: Mean of each day's finite values, float64, shape (n_days,); 0 where there are none.
        m2: Sum of squared differences from that mean; inf where that is beyond float64.
        registers: For the number of distinct values; None when each has its own cell.
    """

    days: NDArray[np.datetime64]
    lo: NDArray[np.float64]
    hi: NDArray[np.float64]
    counts: NDArray[np.unsignedinteger]
    special: NDArray[np.unsignedinteger]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    registers: Registers | None

    @property
    def n_rows(self) -> int:
        """Return all rows, with and without a value."""
        return int(self.counts.sum(dtype=np.int64) + self.special.sum(dtype=np.int64))

    @cached_property
    def cumulative(self) -> NDArray[np.int64]:
        """Return the rows of each day below each cell's start and, last, all finite: shape (n_days, n_cells + 1)."""
        return np.cumsum(np.pad(self.counts, ((0, 0), (1, 0))), axis=1, dtype=np.int64)

    @cached_property
    def totals(self) -> NDArray[np.int64]:
        """Return the rows in each cell over all days, shape (n_cells,)."""
        return self.counts.sum(axis=0, dtype=np.int64)

    def day_ranks(self, xs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the finite rows of each day that are at most each x, shape (n_days, n_xs).

        Exact where x is not inside a cell of several values; there, a share of the cell's rows.
        """
        cell, share = self._places(xs)
        return self.cumulative[:, cell] + share * np.pad(self.counts, ((0, 0), (0, 1)))[:, cell]

    def ranks(self, xs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the finite rows that are at most each x, shape (n_xs,); the same as `day_ranks` over all days."""
        cell, share = self._places(xs)
        cumulative = np.concatenate([[0], np.cumsum(self.totals)])
        return cumulative[cell] + share * np.append(self.totals, 0)[cell]

    def _places(self, xs: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the first cell that is not wholly at most each x, and which share of its rows is.

        One row of such a cell is at its least value and one at its greatest; those between are taken as even.
        """
        cell = np.searchsorted(self.hi, xs, side="right")
        lo, hi = np.append(self.lo, np.inf)[cell], np.append(self.hi, np.inf)[cell]
        inside = lo <= xs
        share = np.zeros(len(xs))
        if inside.any():
            x, lo, hi = xs[inside] / 2, lo[inside] / 2, hi[inside] / 2  # halves, so that the width is not infinite
            width = hi - lo
            along = np.divide(x - lo, width, out=np.full(len(x), 0.5), where=width > 0)
            n = self.totals[cell[inside]]
            share[inside] = (1 + (n - 2) * along) / n
        return cell, share


@dataclass(frozen=True, kw_only=True, eq=False)
class NumericProfile:
    """A numeric column over any set of partitions; timestamps, dates and times are seconds (see `profile_table`).

    Attributes:
        blocks: One for each partition, in an order that depends on their content alone.
    """

    kind: ClassVar[Literal["numeric"]] = "numeric"
    blocks: tuple[NumericBlock, ...] = ()

    @property
    def n_rows(self) -> int:
        """Return all rows, with and without a value."""
        return sum(block.n_rows for block in self.blocks)

    @property
    def n_values(self) -> int:
        """Return the rows with a finite value."""
        return sum(int(block.totals.sum()) for block in self.blocks)

    @property
    def n_nulls(self) -> int:
        """Return the rows without a value."""
        return self._special(NULL)

    @property
    def n_nans(self) -> int:
        """Return the rows that are NaN."""
        return self._special(NAN)

    @property
    def n_infinities(self) -> tuple[int, int]:
        """Return the rows that are -inf and that are +inf."""
        return self._special(NEGATIVE_INFINITY), self._special(POSITIVE_INFINITY)

    @property
    def min(self) -> float:
        """Return the least finite value, exactly; NaN when there is none."""
        return min((float(block.lo[0]) for block in self.blocks if len(block.lo)), default=math.nan)

    @property
    def max(self) -> float:
        """Return the greatest finite value, exactly; NaN when there is none."""
        return max((float(block.hi[-1]) for block in self.blocks if len(block.hi)), default=math.nan)

    @property
    def mean(self) -> float:
        """Return the mean of the finite values; NaN when there is none."""
        return self._moments[0]

    @property
    def m2(self) -> float:
        """Return the sum of squared differences of the finite values from their mean; inf beyond float64."""
        return self._moments[1]

    @property
    def std(self) -> float:
        """Return the standard deviation with n - 1; NaN for fewer than two values."""
        n = self.n_values
        return math.sqrt(self.m2 / (n - 1)) if n > 1 else math.nan

    @property
    def is_distinct_exact(self) -> bool:
        """Whether `n_distinct` is counted, not estimated."""
        return all(block.registers is None for block in self.blocks)

    @cached_property
    def n_distinct(self) -> int:
        """Return the number of distinct finite values; an estimate has a standard error of 2.3 %."""
        if self.is_distinct_exact:
            return len(np.unique(np.concatenate([b.hi for b in self.blocks]))) if self.blocks else 0
        parts = [registers_of(hash_numbers(b.hi)) if b.registers is None else b.registers for b in self.blocks]
        return round(estimate(np.maximum.reduce(parts)))

    @property
    def rank_error(self) -> float:
        """Return the greatest possible error of `ranks`, as a fraction; about 1/256 at most, 0 when all is exact."""
        inexact = [b.totals[b.lo < b.hi].max(initial=0) for b in self.blocks]
        return float(sum(inexact) / max(self.n_values, 1))

    @cached_property
    def grid(self) -> NDArray[np.float64]:
        """Return sorted distinct values that occur, at which ranks are known best: the greatest of every cell."""
        return np.unique(np.concatenate([b.hi for b in self.blocks])) if self.blocks else np.empty(0)

    def ranks(self, xs: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the fraction of the finite values that are at most each x, to within `rank_error`; NaN when none."""
        xs, n = np.asarray(xs, dtype=np.float64), self.n_values
        if n == 0:
            return np.full(len(xs), np.nan)
        return np.sum([block.ranks(xs) for block in self.blocks], axis=0) / n

    def quantiles(self, ps: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return for each p the least value of the grid that a fraction p of the finite values do not exceed.

        It is a value that occurs, as numpy's method "inverted_cdf" gives; its rank is within `rank_error` and one
        grid cell of p. NaN when there are no values.

        Args:
            ps: Fractions from 0 to 1.
        """
        ps = np.asarray(ps, dtype=np.float64)
        if len(self.grid) == 0:
            return np.full(len(ps), np.nan)
        found = np.searchsorted(self._grid_ranks, ps - 1e-12)
        return np.where(ps <= 0, self.min, self.grid[np.minimum(found, len(self.grid) - 1)])

    @cached_property
    def _grid_ranks(self) -> NDArray[np.float64]:
        return np.maximum.accumulate(self.ranks(self.grid))

    def _special(self, which: int) -> int:
        return sum(int(block.special[:, which].sum(dtype=np.int64)) for block in self.blocks)

    @cached_property
    def _moments(self) -> tuple[float, float]:
        """Return mean and m2 of all days (Chan, Golub and LeVeque), summed so that the order does not matter."""
        n = np.concatenate([np.empty(0), *(block.cumulative[:, -1] for block in self.blocks)])
        mean = np.concatenate([np.empty(0), *(block.mean for block in self.blocks)])[n > 0]
        m2 = np.concatenate([np.empty(0), *(block.m2 for block in self.blocks)])[n > 0]
        n = n[n > 0]
        if len(n) == 0:
            return math.nan, math.nan
        overall = min(max(math.fsum(n / n.sum() * mean), self.min), self.max)
        with np.errstate(over="ignore"):
            squares = m2 + n * (mean - overall) ** 2
        return overall, math.inf if np.isinf(squares).any() else _sum(squares)


def numeric_block(
    values: NDArray[np.float64], null: NDArray[np.bool_], days: NDArray[np.datetime64], starts: NDArray[np.intp]
) -> NumericBlock:
    """Return the block of one column whose rows are ordered by day.

    Args:
        values: Shape (n_rows,); anything where null.
        null: Which rows have no value.
        days: Sorted distinct days.
        starts: First row of each day, each with at least one row.
    """
    finite = np.isfinite(values) & ~null
    special = np.zeros((len(days), 4), dtype=np.int64)
    n = np.diff(np.append(starts, len(values)))
    if not finite.all():
        kinds = {NULL: null, NAN: np.isnan(values) & ~null}
        kinds |= {NEGATIVE_INFINITY: (values == -np.inf) & ~null, POSITIVE_INFINITY: (values == np.inf) & ~null}
        for which, rows in kinds.items():
            special[:, which] = np.add.reduceat(rows, starts, dtype=np.int64)
        n = n - special.sum(axis=1)
        values = values[finite]
    ordered = values + 0.0  # a copy, in which -0.0 is 0.0
    ends = np.cumsum(n)
    parts = [ordered[start:end] for start, end in zip(ends - n, ends, strict=True)]
    for part in parts:
        part.sort()
    overall = np.sort(ordered)
    changes = np.flatnonzero(overall[1:] != overall[:-1]) + 1
    first = np.concatenate([[0], changes]) if len(overall) else changes
    cells = first if len(first) <= EXACT_VALUES else _cells(overall)
    hi = overall[np.append(cells[1:], len(overall)) - 1] if len(cells) else np.empty(0)
    below = np.zeros((len(days), len(hi) + 1), dtype=np.int64)
    for row, part in zip(below, parts, strict=True):
        row[1:] = part.searchsorted(hi, side="right")
    mean, m2 = _day_moments(ordered, n)
    return NumericBlock(
        days=days,
        lo=overall[cells],
        hi=hi,
        counts=smallest_unsigned(np.diff(below, axis=1)),
        special=smallest_unsigned(special),
        mean=mean,
        m2=m2,
        registers=None if cells is first else registers_of(hash_numbers(overall[first])),
    )


def smallest_unsigned(counts: NDArray[np.int64]) -> NDArray[np.unsignedinteger]:
    """Return the same counts in the narrowest unsigned type that holds them."""
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))


def _cells(ordered: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return where cells start in sorted values: even parts, values that repeat in one cell, common ones alone."""
    n = len(ordered)
    size = -(-n // CELLS)
    values = np.unique(ordered[np.minimum(np.arange(size, n + size, size), n) - 1])
    left, right = ordered.searchsorted(values, side="left"), ordered.searchsorted(values, side="right")
    starts = np.concatenate([[0], right[:-1]])
    crowded = (right - starts > size) & (left > starts)
    return np.unique(np.concatenate([starts, left[crowded]]))


def _day_moments(values: NDArray[np.float64], n: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each day's mean and m2 of values that are ordered by day; very large and small ones are scaled first."""
    mean, m2 = np.zeros(len(n)), np.zeros(len(n))
    some = n > 0
    if not some.any():
        return mean, m2
    starts = (np.cumsum(n) - n)[some]
    exponent = int(np.frexp(np.abs(values).max())[1])
    exponent = exponent if abs(exponent) > 300 else 0
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.ldexp(values, -exponent) if exponent else values
        # Rounding must not put the mean of equal values beside them.
        low, high = np.minimum.reduceat(scaled, starts), np.maximum.reduceat(scaled, starts)
        mean[some] = np.clip(np.add.reduceat(scaled, starts) / n[some], low, high)
        m2[some] = np.add.reduceat((scaled - np.repeat(mean, n)) ** 2, starts)
        return np.ldexp(mean, exponent), np.ldexp(m2, 2 * exponent)


def _sum(values: NDArray[np.float64]) -> float:
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf
