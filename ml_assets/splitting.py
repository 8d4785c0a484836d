"""Splits a window of labelled rows by time: training, validation, and rows between them that only a refit uses."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from ml_assets.errors import SplitError
from ml_assets.spec import TrainingSpec

EXCLUDED, TRAINING, VALIDATION, REFIT_ONLY = 0, 1, 2, 3
SPLIT_NAMES = ("excluded", "training", "validation", "refit_only")


@dataclass(frozen=True, kw_only=True)
class WindowRows:
    """What splitting needs to know of each row of a window, in any order.

    Attributes:
        period: Index of the row's period in the window, 0 the oldest, int, shape (n_rows,).
        day: Local day of the row's event, datetime64[D], shape (n_rows,).
        event_time: datetime64[us] in UTC, shape (n_rows,).
        label_time: When the label is known, datetime64[us] in UTC, NaT for never, shape (n_rows,).
        labelled: Whether the row has a label, bool, shape (n_rows,).
    """

    period: NDArray[np.integer]
    day: NDArray[np.datetime64]
    event_time: NDArray[np.datetime64]
    label_time: NDArray[np.datetime64]
    labelled: NDArray[np.bool_]


def split_rows(rows: WindowRows, *, n_periods: int, cutoff: datetime, training: TrainingSpec) -> NDArray[np.int8]:
    """Assign each row of a window to a split.

    A row counts only when its label was known before `cutoff`, the beginning of the partition that the model
    is for. Validation rows are those of the last periods (of the last days, when the window has too few
    periods). A training row's label must be known before the first validation row's event; later ones are
    `refit_only`, so that the validation score is what the model would have had (purging: López de Prado,
    Advances in Financial Machine Learning, 2018, ch. 7).

    Args:
        rows: The window's rows.
        n_periods: Periods in the window.
        cutoff: Beginning of the partition, time zone aware.
        training: The declared split and its least rows.

    Returns:
        Codes EXCLUDED, TRAINING, VALIDATION, REFIT_ONLY; int8, shape (n_rows,).

    Raises:
        SplitError: If training or validation has fewer than `training.min_rows` rows.
    """
    limit = np.datetime64(cutoff.replace(tzinfo=None), "us")
    usable = rows.labelled & (rows.label_time < limit)  # NaT compares false: never known
    validation = usable & _validation_mask(rows, usable, n_periods, training)
    split = np.zeros(len(rows.period), dtype=np.int8)
    split[usable] = REFIT_ONLY
    if validation.any():
        begins = rows.event_time[validation].min()
        before = usable & ~validation & (rows.label_time <= begins) & (rows.event_time < begins)
        split[before] = TRAINING
        split[validation] = VALIDATION
    _require_rows(split, training)
    return split


def _validation_mask(
    rows: WindowRows, usable: NDArray[np.bool_], n_periods: int, training: TrainingSpec
) -> NDArray[np.bool_]:
    if n_periods > training.validation_periods:
        return rows.period >= n_periods - training.validation_periods
    days = np.unique(rows.day[usable])
    if days.size < 2:
        return np.zeros(len(rows.period), dtype=bool)
    share = max(1, round(days.size * training.single_period_validation))
    return rows.day >= days[-min(share, days.size - 1)]


def _require_rows(split: NDArray[np.int8], training: TrainingSpec) -> None:
    for code in (TRAINING, VALIDATION):
        count = int(np.count_nonzero(split == code))
        if count < training.min_rows:
            raise SplitError(
                f"The {SPLIT_NAMES[code]} split has {count} labelled rows; training.min_rows asks for "
                f"{training.min_rows}. Materialize earlier periods, widen training.window, or set aside "
                "more training.validation_periods when labels become known late."
            )
