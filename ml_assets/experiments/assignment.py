"""Which arm of an A/B test a row belongs to: a hash of its id, so that nothing has to be remembered."""

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_assets.errors import EvaluationError

_UNIFORM_BITS = 53
"""As many as a float64 holds without rounding."""


def positions(row_ids: ArrayLike, *, salt: str) -> NDArray[np.float64]:
    """Return where each row lies in [0, 1), uniformly over row ids: shape (n,).

    The position is the first 53 bits of BLAKE2b over SHA-256(salt) and the id in UTF-8. The salt's digest has
    always 32 bytes, so no other pair of salt and id gives the same input.

    Raises:
        EvaluationError: If the salt is empty, or an id is missing or no string.
    """
    if not salt:
        raise EvaluationError(
            "the salt of an assignment is empty; expected the experiment's name, such as "
            "'flights/arrival_delay:12-vs-9', so that two experiments split the rows independently."
        )
    values = np.asarray(row_ids, dtype=object)
    if values.ndim != 1:
        raise EvaluationError(f"row_ids has shape {values.shape}; expected one id for each row, shape (n,).")
    ids = values.tolist()
    wrong = [index for index, value in enumerate(ids) if not isinstance(value, str)]
    if wrong:
        raise EvaluationError(
            f"{len(wrong)} of {len(ids)} row ids are no strings, such as {ids[wrong[0]]!r} in row {wrong[0]}; "
            f"expected the row_id column of the features."
        )
    prefix, blake2b = hashlib.sha256(salt.encode()).digest(), hashlib.blake2b
    digests = b"".join([blake2b(prefix + value.encode(), digest_size=8).digest() for value in ids])
    bits = np.frombuffer(digests, dtype=">u8") >> np.uint64(64 - _UNIFORM_BITS)
    return bits.astype(np.float64) / 2.0**_UNIFORM_BITS


def arms(row_ids: ArrayLike, *, salt: str, challenger_share: float) -> NDArray[np.bool_]:
    """Return for each row whether the challenger scores it.

    A row's arm depends on its id, the salt and the share alone: not on the other rows, their order, the day or
    the process. A larger share moves rows from the champion to the challenger and none back.

    >>> arms(["row-1", "row-2", "row-3"], salt="flights/arrival_delay:12-vs-9", challenger_share=0.5).tolist()
    [False, True, True]

    Args:
        row_ids: Strings, shape (n,).
        salt: Name of the experiment.
        challenger_share: Share of the rows for the challenger, in [0, 1].

    Returns:
        Shape (n,): True for the challenger, False for the champion.

    Raises:
        EvaluationError: If the share is out of range, the salt is empty, or an id is missing or no string.
    """
    if not 0.0 <= challenger_share <= 1.0:
        raise EvaluationError(f"challenger_share is {challenger_share}; expected a share from 0 to 1, such as 0.1.")
    return positions(row_ids, salt=salt) < challenger_share
