"""Counts a column of two profiles by day in the reference's bins; touches no rows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ml_assets.drift.day_test import block_length
from ml_assets.drift.report import Bars
from ml_assets.drift.sides import ColumnSides, Side
from ml_assets.profiles.bins import day_counts, edges
from ml_assets.profiles.category import CategoryProfile
from ml_assets.profiles.numeric import NumericProfile
from ml_assets.profiles.profile import ColumnProfile

Floats = NDArray[np.float64]
Days = NDArray[np.datetime64]

BINS = 10
"""Bins of a number: the reference's deciles."""

SMALLEST_CATEGORY, MOST_CATEGORIES = 0.01, 40
"""Categories with a smaller share, and beyond so many, are one bin: rare ones make a PSI of nothing but noise."""

MOST_RANGES = 10.0
"""Interquartile ranges from the median beyond which a value counts as no further away: one wrong value is no shift."""

QUANTILES = np.linspace(0.0, 1.0, 101)
DRAWN_BINS, DRAWN_CATEGORIES, DRAWN_UNSEEN, SMALLEST_DRAWN = 24, 10, 3, 1e-9
SHOWN_NAMES = 10


def sides_of(name: str, reference: ColumnProfile, current: ColumnProfile, *, block_days: int) -> ColumnSides | str:
    """Return a column counted on both sides, or why it cannot be compared.

    Args:
        name: The column.
        reference: Its profile on the reference's side.
        current: Its profile on the current side.
        block_days: Fewest days that hang together.
    """
    if not reference.n_rows or not current.n_rows:
        return f"the {'current side' if reference.n_rows else 'reference'} has no rows of it"
    if isinstance(reference, NumericProfile) and isinstance(current, NumericProfile):
        return _numbers(name, reference, current, block_days)
    if isinstance(reference, CategoryProfile) and isinstance(current, CategoryProfile):
        return _categories(name, reference, current, block_days)
    return f"it was {reference.kind} and is {current.kind} now"


def _numbers(name: str, reference: NumericProfile, current: NumericProfile, block_days: int) -> ColumnSides:
    inner = edges(reference, BINS)
    then_days, then = day_counts(reference, inner)
    now_days, now = day_counts(current, inner)
    length = block_length(len(then_days), len(now_days), block_days)
    below, above = reference.n_infinities
    outside = _outside(current, reference.min, reference.max, below=not below, above=not above)
    own = _outside_other_blocks(reference, length) if outside.any() else np.zeros(len(then_days))
    quantiles = _quantiles(reference)
    return ColumnSides(
        name=name,
        kind="numeric",
        reference=_side(then, own, sums=_sums(reference, quantiles), quantiles=quantiles),
        current=_side(now, outside, sums=_sums(current, quantiles), quantiles=_quantiles(current)),
        bars=_number_bars(reference, current),
    )


def _side(
    counts: Floats,
    unseen: Floats,
    *,
    vanished: Floats | None = None,
    sums: Floats | None = None,
    quantiles: Floats | None = None,
) -> Side:
    return Side(
        sums=np.zeros((0, 3)) if sums is None else sums,
        values=counts[:, :-1],
        nulls=counts[:, -1],
        unseen=unseen,
        vanished=np.zeros(len(counts)) if vanished is None else vanished,
        quantiles=np.zeros(0) if quantiles is None else quantiles,
    )


def _quantiles(column: NumericProfile) -> Floats:
    return column.quantiles(QUANTILES) if column.n_values else np.zeros(0)


def _sums(column: NumericProfile, quantiles: Floats) -> Floats:
    """Return count, sum and sum of squares by day, as `Side.sums` has them."""
    days = np.unique(np.concatenate([block.days for block in column.blocks]))
    found = np.zeros((len(days), 3))
    if not quantiles.size:
        return found
    low, middle, high = quantiles[[25, 50, 75]]
    spread = float(high - low) or float(quantiles[99] - quantiles[1]) or 1.0
    for block in column.blocks:
        values = np.clip(((block.lo / 2 + block.hi / 2) - middle) / spread, -MOST_RANGES, MOST_RANGES)
        powers = np.column_stack([np.ones_like(values), values, values**2])
        np.add.at(found, np.searchsorted(days, block.days), block.counts @ powers)
    return found


def _outside(
    column: NumericProfile, least: float, greatest: float, *, below: bool = True, above: bool = True
) -> Floats:
    """Return by day the values below `least` or above `greatest`; all values when those are NaN, as nothing was seen.

    Args:
        column: What is counted.
        least: Least value that was seen.
        greatest: Greatest value that was seen.
        below: Whether values below count; not when −∞ was seen.
        above: Whether values above count; not when +∞ was seen.
    """
    if np.isnan(least):
        return day_counts(column, np.zeros(0))[1][:, 0] * (below and above)
    counts = day_counts(column, np.array([np.nextafter(least, -np.inf), greatest]))[1]
    return below * counts[:, 0] + above * counts[:, 2]


def _outside_other_blocks(column: NumericProfile, length: int) -> Floats:
    """Return by day the values outside the range of all other blocks of days; only two blocks can have any."""
    days, least, greatest = _day_ranges(column)
    block = np.arange(len(days)) // length
    found = np.zeros(len(days))
    if block[-1] == 0:
        return found
    starts = np.flatnonzero(np.diff(block, prepend=-1))
    lows, highs = np.minimum.reduceat(least, starts), np.maximum.reduceat(greatest, starts)
    for number in {int(lows.argmin()), int(highs.argmax())}:
        others = np.arange(len(lows)) != number
        here = block == number
        low, high = float(lows[others].min()), float(highs[others].max())
        found[here] = _outside(column, low, high)[here] if low <= high else 0.0
    return found


def _day_ranges(column: NumericProfile) -> tuple[Days, Floats, Floats]:
    """Return least and greatest value of each day; (inf, -inf) for a day without values."""
    all_days = np.unique(np.concatenate([block.days for block in column.blocks]))
    least, greatest = np.full(len(all_days), np.inf), np.full(len(all_days), -np.inf)
    for part in column.blocks:
        if not len(part.lo):
            continue
        some = part.counts > 0
        filled = some.any(axis=1)
        place = np.searchsorted(all_days, part.days[filled])
        first, last = some[filled].argmax(axis=1), some.shape[1] - 1 - some[filled][:, ::-1].argmax(axis=1)
        # The far end of a cell of several values: the range is rather too small than too large.
        np.minimum.at(least, place, part.hi[first])
        np.maximum.at(greatest, place, part.lo[last])
    return all_days, least, greatest


def _categories(name: str, reference: CategoryProfile, current: CategoryProfile, block_days: int) -> ColumnSides:
    known, present = reference.value_counts, current.value_counts
    n_then, n_now = max(1, reference.n_values), max(1, current.n_values)
    named = [value for value, n in known.items() if n >= SMALLEST_CATEGORY * n_then][:MOST_CATEGORIES]
    unseen_from = _surely_more(reference.count_error * n_now / n_then)
    vanished_from = _surely_more(current.count_error)
    unseen = [value for value, n in present.items() if value not in known and n >= unseen_from]
    vanished = [v for v in named if v not in present and known[v] * n_now / n_then >= vanished_from]
    then_days, then = day_counts(reference, named)
    now_days, now = day_counts(current, named)
    length = block_length(len(then_days), len(now_days), block_days)
    own = _in_one_block(reference, length) if unseen else np.zeros(len(then_days))
    return ColumnSides(
        name=name,
        kind="category",
        reference=_side(then, own, vanished=_rows_of(reference, vanished)),
        current=_side(now, _rows_of(current, unseen)),
        unseen=tuple(unseen[:SHOWN_NAMES]),
        vanished=tuple(vanished[:SHOWN_NAMES]),
        bars=_category_bars(reference, current, named, unseen),
    )


def _surely_more(hidden: float) -> float:
    """Return from how many rows on a value is more than one that a profile did not keep; 0 when it kept all.

    Args:
        hidden: Rows that the most frequent value that is not kept would have, 0 when all are kept.
    """
    return hidden + 4.0 * hidden**0.5 + 4.0 if hidden else 0.0


def _rows_of(column: CategoryProfile, values: Sequence[str]) -> Floats:
    """Return by day the rows with one of some values."""
    days, counts = day_counts(column, list(values))
    return counts[:, : len(values)].sum(axis=1) if values else np.zeros(len(days))


def _in_one_block(column: CategoryProfile, length: int) -> Floats:
    """Return by day the rows whose value occurs in one block of days only: so many are new in any block."""
    values = list(column.value_counts)
    days, counts = day_counts(column, values)
    if len(days) <= length:
        return np.zeros(len(days))
    counts = counts[:, : len(values)]
    starts = np.arange(0, len(days), length)
    in_blocks = (np.add.reduceat(counts, starts, axis=0) > 0).sum(axis=0)
    return counts[:, in_blocks == 1].sum(axis=1)


def _number_bars(reference: NumericProfile, current: NumericProfile) -> Bars:
    if not reference.n_values or not current.n_values:
        return Bars(reference=(), current=())
    grid = np.union1d(reference.grid, current.grid) if reference.n_distinct <= DRAWN_BINS else np.zeros(0)
    if 0 < grid.size <= DRAWN_BINS:
        labels = tuple(f"{value:g}" for value in grid)
        then, now = (np.diff(side.ranks(grid), prepend=0.0) for side in (reference, current))
        return Bars(labels=labels, reference=tuple(then.tolist()), current=tuple(now.tolist()))
    tails = np.array([0.005, 0.995])
    ends = np.concatenate([reference.quantiles(tails), current.quantiles(tails)])
    marks = np.linspace(ends.min(), ends.max(), DRAWN_BINS + 1)
    if not np.isfinite(marks).all() or ends.min() == ends.max():
        return Bars(reference=(), current=())
    # The first and the last bin hold the tails too.
    then, now = (np.diff(np.r_[0.0, side.ranks(marks[1:-1]), 1.0]) for side in (reference, current))
    return Bars(edges=tuple(marks.tolist()), reference=tuple(then.tolist()), current=tuple(now.tolist()))


def _category_bars(
    reference: CategoryProfile, current: CategoryProfile, named: Sequence[str], unseen: Sequence[str]
) -> Bars:
    shown = [*named[:DRAWN_CATEGORIES], *unseen[:DRAWN_UNSEEN]]
    parts = []
    for side in (reference, current):
        found = [side.value_counts.get(value, 0) / max(1, side.n_values) for value in shown]
        parts.append([*found, max(0.0, 1.0 - sum(found)) if side.n_values else 0.0])
    labels = [*shown, "others"]
    if max(part[-1] for part in parts) < SMALLEST_DRAWN:
        labels, parts = shown, [part[:-1] for part in parts]
    return Bars(labels=tuple(labels), reference=tuple(parts[0]), current=tuple(parts[1]))
