"""Inner folds of a training split: its last periods validate, each by rows whose labels were known before it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml_assets.errors import SplitError


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One inner fold.

    Attributes:
        train: Positions of the rows to fit on, int64, shape (n_train,).
        validation: Positions of the rows to score, int64, shape (n_validation,).
        span: First and last local day of the validation rows, such as "2013-01-11 to 2013-01-20".
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    span: str


def inner_folds(
    *,
    period: NDArray[np.integer],
    day: NDArray[np.datetime64],
    event_time: NDArray[np.datetime64],
    label_time: NDArray[np.datetime64],
    folds: int,
    min_rows: int,
) -> list[Fold]:
    """Return the inner folds of a training split, the oldest first, each on all rows before it.

    The last `folds` periods validate; when there are no more periods than folds, the last blocks of days of
    1 / (folds + 1) of all days each. A row is learnt from when its event and its label lie before the first
    validation row's event (purging, as between training and validation split; López de Prado, 2018, ch. 7).

    Args:
        period: Index of each row's period, shape (n_rows,).
        day: Local day of each row's event, datetime64[D], shape (n_rows,).
        event_time: datetime64[us] in UTC, shape (n_rows,).
        label_time: When each label was known, datetime64[us] in UTC, shape (n_rows,).
        folds: How many, at least 1.
        min_rows: Rows that each side of each fold must have at least.

    Raises:
        SplitError: If a side of a fold has fewer rows.
    """
    found = []
    for block in _blocks(period, day, folds):
        begins = event_time[block].min()
        train = (event_time < begins) & (label_time <= begins)
        days = day[block]
        fold = Fold(train=np.flatnonzero(train), validation=np.flatnonzero(block), span=f"{days.min()} to {days.max()}")
        for side, rows in (("training", fold.train), ("validation", fold.validation)):
            if len(rows) < min_rows:
                raise SplitError(
                    f"The inner fold that validates on {fold.span} has {len(rows)} {side} rows; training.min_rows "
                    f"asks for {min_rows}. Lower search.folds ({folds}), widen training.window, or search from a "
                    "later period on."
                )
        found.append(fold)
    return found


def _blocks(period: NDArray[np.integer], day: NDArray[np.datetime64], folds: int) -> list[NDArray[np.bool_]]:
    """Return which rows each fold validates on."""
    periods, days = np.unique(period), np.unique(day)
    if periods.size > folds:
        return [period == value for value in periods[-folds:]]
    size = days.size // (folds + 1)
    if size == 0:
        raise SplitError(
            f"The training split has {days.size} days, too few for {folds} inner folds. Lower search.folds, or "
            "search from a later period on."
        )
    ends = [days.size - size * (folds - 1 - index) for index in range(folds)]
    return [(day >= days[end - size]) & (day <= days[end - 1]) for end in ends]
