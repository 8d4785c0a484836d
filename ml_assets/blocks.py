"""Blocks of rows that are taken as independent of each other, such as days."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_assets.errors import EvaluationError


def block_codes(blocks: ArrayLike, n_rows: int) -> tuple[NDArray[np.int64], int]:
    """Return for each row the number of its block in sorted order, and how many blocks there are.

    Raises:
        EvaluationError: If a label is missing or there is not one for each row.
    """
    import pandas as pd

    labels = np.asarray(blocks)
    if labels.shape != (n_rows,):
        raise EvaluationError(f"blocks has shape {labels.shape}; expected one label for each of {n_rows} rows.")
    codes, found = pd.factorize(labels, sort=True)
    if (codes < 0).any():
        raise EvaluationError(
            f"{int((codes < 0).sum())} of {n_rows} rows have no block label; expected the day of each row. "
            f"Drop or fill the rows whose event time is missing."
        )
    return codes.astype(np.int64), len(found)


def blocks_of_days(days: ArrayLike, block_days: int) -> NDArray[np.int64]:
    """Return for each row the number of its block of `block_days` consecutive calendar days from the first day on.

    Days without rows count as days. A last block shorter than half a block joins the one before it: alone it would
    count as a whole independent unit. Other unequal blocks are no problem, since a metric is a function of sums over
    the drawn blocks, in which a smaller one weighs less, as days of fewer rows do.

    >>> blocks_of_days(np.arange("2013-01-01", "2013-01-30", dtype="datetime64[D]"), 7)[[0, 6, 7, -2, -1]].tolist()
    [0, 0, 1, 3, 3]

    Args:
        days: datetime64[D], shape (n,), n ≥ 1, none missing.
        block_days: Days of a block, ≥ 1.
    """
    day = np.asarray(days, dtype="datetime64[D]")
    number = (day - day.min()).astype(np.int64)
    whole, rest = divmod(int(number.max()) + 1, block_days)
    joins = whole > 0 and 0 < 2 * rest < block_days
    return np.minimum(number // block_days, whole - 1) if joins else number // block_days
