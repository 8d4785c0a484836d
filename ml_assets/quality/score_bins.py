"""Labels or errors by bin of the score and by day: all that a calibrator needs, and its own uncertainty."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.blocks import blocks_of_days
from ml_assets.errors import EvaluationError
from ml_assets.metrics import Floats

N_BINS = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreBins:
    """Sums over rows of equal day and similar score.

    Attributes:
        label: Class whose score it is, empty when there is one score.
        centres: Mean score of each bin, ascending, shape (n_bins,).
        low: Smallest score seen.
        high: Largest score seen.
        days: Sorted local days, datetime64[D], shape (n_days,).
        counts: Rows, shape (n_days, n_bins).
        sums: Name → sum of a value over the rows, shape (n_days, n_bins).
    """

    label: str
    centres: Floats
    low: float
    high: float
    days: NDArray[np.datetime64]
    counts: Floats
    sums: Mapping[str, Floats]

    def blocks(self, block_days: int) -> NDArray[np.int64]:
        """Return the number of each day's block of consecutive days, shape (n_days,)."""
        return blocks_of_days(self.days, block_days)

    def means(self, name: str, day_weight: Floats) -> Floats:
        """Return the mean of a value by bin, under a weight for each day, shape (n_bins,); NaN where no row weighs."""
        rows = day_weight @ self.counts
        return np.divide(day_weight @ self.sums[name], rows, out=np.full_like(rows, np.nan), where=rows > 0)

    def to_document(self) -> dict[str, Any]:
        """Return the sums as JSON-ready values."""
        return {
            "label": self.label,
            "centres": self.centres.tolist(),
            "low": self.low,
            "high": self.high,
            "days": [str(day) for day in self.days],
            "counts": self.counts.astype(np.int64).tolist(),
            "sums": {name: _plain(values) for name, values in sorted(self.sums.items())},
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "ScoreBins":
        """Return the bins that gave the document; raises EvaluationError when its parts do not fit together."""
        days = np.array(document["days"], dtype="datetime64[D]")
        centres = np.asarray(document["centres"], dtype=np.float64)
        counts = np.asarray(document["counts"], dtype=np.float64)
        sums = {name: np.asarray(values, dtype=np.float64) for name, values in document["sums"].items()}
        shape = (days.size, centres.size)
        if counts.shape != shape or any(values.shape != shape for values in sums.values()):
            raise EvaluationError(
                f"the score bins of a reference have counts of shape {counts.shape}; expected {shape}, a row for each "
                "day and a column for each bin. The document is damaged: delete it, and it is built again."
            )
        return cls(
            label=str(document["label"]),
            centres=centres,
            low=float(document["low"]),
            high=float(document["high"]),
            days=days,
            counts=counts,
            sums=sums,
        )


def score_bins(
    score: Floats,
    days: NDArray[np.datetime64],
    values: Mapping[str, Floats],
    *,
    label: str = "",
    n_bins: int = N_BINS,
) -> ScoreBins:
    """Return the sums of values over rows, by day and by quantile bin of the score; equal scores share a bin.

    Args:
        score: Finite, shape (n,), n ≥ 1.
        days: Local day of each row, datetime64[D], shape (n,).
        values: Name → finite numbers, shape (n,).
        label: Class whose score it is.
        n_bins: Bins asked for; fewer when scores repeat.
    """
    edges = np.unique(np.quantile(score, np.linspace(0.0, 1.0, n_bins + 1)))
    code = np.searchsorted(edges[1:-1], score, side="left")
    _, code = np.unique(code, return_inverse=True)  # an edge between repeated scores may have no row of its own
    found, day = np.unique(days.astype("datetime64[D]"), return_inverse=True)
    width = int(code.max()) + 1
    cell = day * width + code

    def total(weights: Floats | None) -> Floats:
        return np.bincount(cell, weights, minlength=found.size * width).reshape(found.size, width).astype(np.float64)

    counts = total(None)
    return ScoreBins(
        label=label,
        centres=total(score).sum(axis=0) / counts.sum(axis=0),
        low=float(score.min()),
        high=float(score.max()),
        days=found,
        counts=counts,
        sums={name: total(numbers) for name, numbers in values.items()},
    )


def _plain(values: Floats) -> list[list[float]]:
    whole = bool((values == np.round(values)).all())
    return values.astype(np.int64).tolist() if whole else values.tolist()
