"""What to expect of a row from its score: chances of classes, or sizes of errors, learnt from the reference."""

from collections.abc import Sequence

import numpy as np

from ml_assets.metrics import Floats
from ml_assets.quality.score_bins import ScoreBins


def class_chances(bins: Sequence[ScoreBins], score: Floats, day_weight: Floats) -> Floats:
    """Return the chance of each class of each row, shape (n, n_classes); two classes for binary.

    An isotonic curve over the bins' mean scores, in straight lines between them; of several classes each has its
    curve, and their chances are scaled to a sum of 1. Beyond the scores of the reference the last chance goes on.

    Args:
        bins: One for binary, else one for each class, with the sums `y`.
        score: Shape (n,), or (n, n_classes).
        day_weight: Weight of each day of the reference, shape (n_days,).
    """
    if score.ndim == 1:
        chance = _curve(bins[0], day_weight, score)
        return np.column_stack([1.0 - chance, chance])
    chances = np.column_stack([_curve(one, day_weight, score[:, k]) for k, one in enumerate(bins)])
    total = chances.sum(axis=1, keepdims=True)
    return np.where(total > 0.0, chances / np.where(total > 0.0, total, 1.0), score)


def _curve(bins: ScoreBins, day_weight: Floats, score: Floats) -> Floats:
    from sklearn.isotonic import isotonic_regression

    rows = day_weight @ bins.counts
    seen = rows > 0.0
    rate = np.asarray(isotonic_regression(bins.means("y", day_weight)[seen], sample_weight=rows[seen]))
    return np.interp(score, bins.centres[seen], rate)


def expected_error(bins: ScoreBins, name: str, score: Floats, day_weight: Floats) -> Floats:
    """Return what to expect of one of the sums of a regression's bins, such as `absolute_error`, shape (n,)."""
    mean = bins.means(name, day_weight)
    seen = ~np.isnan(mean)
    return np.interp(score, bins.centres[seen], mean[seen])


def extrapolated(bins: Sequence[ScoreBins], score: Floats) -> float:
    """Return the share of rows with a score below or above all that the reference has seen."""
    columns = [score] if score.ndim == 1 else list(score.T)
    outside = [(column < one.low) | (column > one.high) for one, column in zip(bins, columns, strict=True)]
    return float(np.mean(np.any(outside, axis=0)))
