"""One column of two sets of days, counted by day in the same bins: what a comparison needs to know of it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ml_assets.drift.report import Bars, ColumnKind

Floats = NDArray[np.float64]
_NOTHING: Floats = np.zeros(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """A column on one side.

    Attributes:
        values: Rows with a known value by day and bin, shape (days, n_bins), days in order.
        nulls: Rows without a value by day, shape (days,).
        unseen: Rows by day whose value the reference never had, shape (days,). On the reference's own side: whose value
            only days nearby had; so much is new on any days.
        vanished: Rows by day in categories that the current side no longer has, shape (days,).
        sums: Number of known values, their sum and their sum of squares by day, shape (days, 3), in interquartile
            ranges of the reference and with extreme values cut; empty for categories.
        quantiles: At equally spaced shares from 0 to 1, ascending; empty for categories and without values.
    """

    values: Floats
    nulls: Floats
    unseen: Floats
    vanished: Floats
    sums: Floats = field(default_factory=lambda: _NOTHING)
    quantiles: Floats = field(default_factory=lambda: _NOTHING)

    @property
    def known(self) -> Floats:
        """Return the rows with a value by day, shape (days,)."""
        return self.values.sum(axis=1)

    @property
    def null_rate(self) -> float:
        """Return the share of rows without a value."""
        missing = float(self.nulls.sum())
        return missing / max(1.0, missing + float(self.values.sum()))

    def share(self, rows: Floats) -> float:
        """Return what part of the known values some rows by day are."""
        return float(rows.sum()) / max(1.0, float(self.values.sum()))

    @property
    def range(self) -> tuple[float, float] | None:
        """Return the least and the largest number, or None."""
        return (float(self.quantiles[0]), float(self.quantiles[-1])) if self.quantiles.size else None


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnSides:
    """A column on both sides.

    Attributes:
        name: The column.
        kind: Numbers or categories.
        reference: What the champion learned from.
        current: What is compared with it.
        unseen: New categories, most frequent first; empty for numbers.
        vanished: Categories that the current side no longer has, most frequent first; empty for numbers.
        bars: Both distributions as they are drawn.
    """

    name: str
    kind: ColumnKind
    reference: Side
    current: Side
    unseen: tuple[str, ...] = ()
    vanished: tuple[str, ...] = ()
    bars: Bars
