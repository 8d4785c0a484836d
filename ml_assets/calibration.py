"""Whether a model's probabilities are as often right as they say: rows of similar score, and what happened."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml_assets.metrics import Floats, Task


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Rows of similar score: what was predicted, and what happened.

    Attributes:
        lower: Smallest score in the bin.
        upper: Largest score in the bin.
        n_rows: Rows in it.
        mean_predicted: Mean score.
        observed_rate: Share of rows of class 1 (for multiclass: whose most likely class is right).
        standard_error: Of the observed rate, over blocks; None when the bin's rows lie in one block.
    """

    lower: float
    upper: float
    n_rows: int
    mean_predicted: float
    observed_rate: float
    standard_error: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A model's calibration table; for multiclass that of its most likely class."""

    model: str
    bins: tuple[CalibrationBin, ...]


def top_class(task: Task, y: NDArray, score: Floats) -> tuple[Floats, Floats]:
    """Return a target and a prediction a row; for multiclass if the top class is right, and how surely."""
    if task != "multiclass":
        return y.astype(np.float64), score
    return (score.argmax(axis=1) == y).astype(np.float64), score.max(axis=1)


def rate_with_error(target: Floats, block: NDArray[np.int64]) -> tuple[float, float | None]:
    """Return the mean of `target` and its standard error over blocks, None for one block.

    The mean over rows is a ratio of block totals; its error is the linearised one of Cochran (1977),
    "Sampling Techniques", chapter 6.
    """
    counts = np.bincount(block)
    totals = np.bincount(block, target)[counts > 0]
    counts = counts[counts > 0]
    mean = float(totals.sum() / counts.sum())
    if counts.size < 2:
        return mean, None
    spread = ((totals - mean * counts) ** 2).sum() * counts.size / (counts.size - 1)
    return mean, float(np.sqrt(spread) / counts.sum())


def calibration_table(
    target: Floats, score: Floats, block: NDArray[np.int64], *, n_bins: int = 10
) -> tuple[CalibrationBin, ...]:
    """Return the rows cut at quantiles of their score, from low to high; equal scores stay together.

    Args:
        target: Shape (n,): 0 or 1.
        score: Shape (n,): probability that it is 1.
        block: Shape (n,): number of the row's block.
        n_bins: Bins asked for; fewer when scores repeat.
    """
    edges = np.unique(np.quantile(score, np.linspace(0.0, 1.0, n_bins + 1)))
    code = np.searchsorted(edges[1:-1], score, side="left")
    bins = []
    for number in np.unique(code):
        inside = code == number
        rate, error = rate_with_error(target[inside], block[inside])
        bins.append(
            CalibrationBin(
                lower=float(score[inside].min()),
                upper=float(score[inside].max()),
                n_rows=int(inside.sum()),
                mean_predicted=float(score[inside].mean()),
                observed_rate=rate,
                standard_error=error,
            )
        )
    return tuple(bins)
