"""Performance of labelled rows, beside the champion's own evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.metrics import Floats, Task
from ml_assets.quality.gain import Gain, gains
from ml_assets.quality.loss import Loss, losses
from ml_assets.quality.reference import ReferencePart
from ml_assets.quality.settings import QualitySettings


@dataclass(frozen=True, kw_only=True)
class Performance:
    """Metrics of one set of rows, realised or estimated, and what was lost since the champion's evaluation.

    Attributes:
        n_rows: Rows.
        n_days: Their local days.
        gains: Metric → value and gain over the best constant.
        losses: Every metric that could be compared.
        untested: Metric → why it was not compared, or not even measured.
        extrapolated: Share of rows whose score lies beyond all scores of the reference.
    """

    n_rows: int
    n_days: int
    gains: Mapping[str, Gain]
    losses: tuple[Loss, ...]
    untested: Mapping[str, str]
    extrapolated: float = 0.0

    @property
    def lost(self) -> tuple[Loss, ...]:
        """Return the losses beyond their margin that are sure."""
        return tuple(loss for loss in self.losses if loss.sure)


def realise(
    *,
    task: Task,
    y: NDArray[Any],
    score: Floats,
    days: NDArray[np.datetime64],
    reference: ReferencePart,
    metrics: Sequence[str],
    settings: QualitySettings,
) -> Performance:
    """Measure a champion on labelled rows.

    Args:
        task: What kind of target it is.
        y: Labels as `metrics.validated` returns them, shape (n,), n ≥ 1.
        score: Shape (n,), or (n, n_classes).
        days: Local day of each row, datetime64[D], shape (n,).
        reference: The champion's own evaluation.
        metrics: Names in `METRICS`.
        settings: What the policy asks.
    """
    found, unmeasured = gains(task=task, y=y, score=score, days=days, metrics=metrics, block_days=settings.block_days)
    tested, untested = losses(reference.gains, found, settings)
    return Performance(
        n_rows=y.size,
        n_days=int(np.unique(days).size),
        gains=found,
        losses=tested,
        untested={**unmeasured, **untested},
    )
