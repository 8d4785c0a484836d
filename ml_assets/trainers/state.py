"""The state of a half-trained estimator as bytes, without pickle."""

import zipfile
from collections.abc import Collection
from typing import Any

from ml_assets.trainers.libraries import STORED_TYPES

STATE_TYPES = frozenset(
    {
        "sklearn.tree._tree.Tree",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        *(name for names in STORED_TYPES.values() for name in names),
    }
)
"""Types that a state may hold beside skops' own list. Loading them runs no code."""

_UNREADABLE = (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, ImportError, OSError)


class StateError(Exception):
    """An estimator's state cannot be written without pickle, or not be read here."""


def dump(estimator: Any, trusted: Collection[str]) -> bytes:
    """Return an estimator's state.

    Args:
        estimator: Fitted, or half-way.
        trusted: Types that it may hold beside `STATE_TYPES`.

    Raises:
        StateError: If it holds something else, so that it could not be read again.
    """
    import skops.io

    try:
        data = skops.io.dumps(estimator)
        refused = set(skops.io.get_untrusted_types(data=data)) - STATE_TYPES - set(trusted)
    except (*_UNREADABLE, RecursionError) as error:
        raise StateError(f"skops cannot write {type(estimator).__name__}: {type(error).__name__}: {error}") from error
    if refused:
        raise StateError(f"it holds types that are not in trusted_types: {', '.join(sorted(refused))}")
    return data


def load(data: bytes, trusted: Collection[str]) -> Any:
    """Return the estimator of a state; raises StateError when it cannot be read or holds an unexpected type."""
    import skops.io

    try:
        allowed = set(skops.io.get_untrusted_types(data=data)) & (STATE_TYPES | set(trusted))
        return skops.io.loads(data, trusted=sorted(allowed))
    except _UNREADABLE as error:
        raise StateError(f"the state cannot be read here: {type(error).__name__}: {error}") from error
