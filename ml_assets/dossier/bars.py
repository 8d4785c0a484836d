"""Where intervals lie on a drawn scale, in percent of its width; what draws them is the template."""

from collections.abc import Iterable
from dataclasses import dataclass

from ml_assets.dossier.words import Measured, ends_of

ROOM = 0.06
"""Share of the width that stays free at either end."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """An interval on a scale: positions in [0, 100]."""

    lower: float
    estimate: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear scale from `low` (at 0 % plus some room) to `high`."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float]) -> "Scale":
        """Return the scale that shows all values; of a single one the value in its middle."""
        found = list(values)
        low, high = min(found, default=0.0), max(found, default=1.0)
        if high > low:
            return cls(low=low, high=high)
        return cls(low=low - (abs(low) or 1.0), high=high + (abs(high) or 1.0))

    def at(self, value: float) -> float:
        """Return the position of a value, in percent, kept within [0, 100].

        >>> Scale(low=0.0, high=1.0).at(0.5)
        50.0
        """
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, ROOM + (1 - 2 * ROOM) * share)), 2)

    def bar(self, measured: Measured) -> Bar | None:
        """Return where an interval lies; None when it was not measured."""
        ends = ends_of(measured)
        if ends is None:
            return None
        estimate, lower, upper = (self.at(value) for value in ends)
        return Bar(lower=lower, estimate=estimate, upper=upper)


def common_scale(measured: Iterable[Measured], *others: float) -> Scale:
    """Return the scale that shows all intervals that were measured, and the other values."""
    found = [value for ends in map(ends_of, measured) if ends is not None for value in ends]
    return Scale.over([*found, *others])


def symmetric_scale(measured: Iterable[Measured]) -> Scale:
    """Return the scale with zero in its middle that shows all intervals that were measured."""
    found = [abs(value) for ends in map(ends_of, measured) if ends is not None for value in ends]
    reach = max(found, default=0.0) or 1.0
    return Scale(low=-reach, high=reach)
