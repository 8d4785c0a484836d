"""LightGBM and XGBoost in rounds: each part goes on from the trees of the parts before.

Without random sampling that is bit for bit what one `fit` call gives. With it each part has a seed of its own, made of
the training's seed and its first round: another draw than in one call, and the same one wherever the training was
interrupted. Between parts the trees always go through their stored form, also when nothing is interrupted.
"""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from ml_assets.trainers.epochs import chunk_seed

Grow = Callable[[Any, NDArray, NDArray, Any], Any]
"""Fits (an estimator, X, y) on top of the trees of another one, or of None, and returns it."""


class BoosterTrainer:
    """Trains LightGBM and XGBoost estimators.

    Args:
        estimator: Unfitted, with all its parameters.
        total: Rounds in all.
        grow: The library's way to go on.
        is_random: Whether rows or columns are sampled.
    """

    def __init__(self, estimator: Any, total: int, grow: Grow, *, is_random: bool) -> None:
        self._template, self.total, self._grow, self.exact = estimator, total, grow, not is_random

    def advance(self, estimator: Any, X: NDArray, y: NDArray, start: int, stop: int) -> tuple[Any, bool]:
        """Add the trees of the rounds from `start` to `stop`."""
        from sklearn.base import clone

        seed = self._template.get_params()["random_state"]
        part: Any = clone(self._template)
        part.set_params(n_estimators=stop - start, random_state=chunk_seed(seed, start) if not self.exact else seed)
        return self._grow(part, X, y, estimator), False

    def finish(self, estimator: Any) -> Any:
        """Return the estimator with its declared parameters."""
        declared = self._template.get_params()
        return estimator.set_params(n_estimators=declared["n_estimators"], random_state=declared["random_state"])

    def rounds_of(self, estimator: Any) -> int:
        """Return the rounds; LightGBM may have fewer when no split is left that improves."""
        return int(getattr(estimator, "n_estimators_", self.total))


def grow_lightgbm(part: Any, X: NDArray, y: NDArray, before: Any) -> Any:
    """Go on from the trees of an `LGBMClassifier` or `LGBMRegressor`."""
    import lightgbm

    part.fit(X, y, init_model=None if before is None else before.booster_)
    # A booster that goes on from another keeps that one and the data; only the trees are wanted.
    part._Booster = lightgbm.Booster(model_str=part.booster_.model_to_string())  # noqa: SLF001
    return part


def grow_xgboost(part: Any, X: NDArray, y: NDArray, before: Any) -> Any:
    """Go on from the trees of an `XGBClassifier` or `XGBRegressor`."""
    import xgboost

    trees = None if before is None else xgboost.Booster(model_file=before.get_booster().save_raw("ubj"))
    return part.fit(X, y, xgb_model=trees)
