"""scikit-learn's linear models and networks by gradient descent, an epoch at a time, by `partial_fit`.

One `fit` call draws the order of rows for all epochs from one stream, which `partial_fit` cannot go on with. Here each
epoch has a seed of its own, made of the training's seed and the epoch's number: another model than one call gives, and
the same one wherever the training was interrupted.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class EpochTrainer:
    """Trains SGD, Perceptron and MLP estimators.

    Args:
        estimator: Unfitted, with all its parameters.
        total: Epochs in all.
    """

    exact = False

    def __init__(self, estimator: Any, total: int) -> None:
        self._template, self.total = estimator, total

    def advance(self, estimator: Any, X: NDArray, y: NDArray, start: int, stop: int) -> tuple[Any, bool]:
        """Go through the rows once for each epoch."""
        from sklearn.base import clone, is_classifier

        estimator = clone(self._template) if estimator is None else estimator
        classes = {"classes": np.unique(y)} if is_classifier(estimator) else {}
        for epoch in range(start, stop):
            estimator.set_params(random_state=chunk_seed(self._template.random_state, epoch))
            estimator.partial_fit(X, y, **classes)
            if _converged(estimator):
                return estimator, True
        return estimator, False

    def finish(self, estimator: Any) -> Any:
        """Return the estimator with its declared seed."""
        return estimator.set_params(random_state=self._template.random_state)

    def rounds_of(self, estimator: Any) -> int:
        """Return how many epochs it has: fewer than asked for when its loss stopped falling."""
        return int(estimator.n_iter_) if hasattr(estimator, "loss_curve_") else self.total


def chunk_seed(seed: int | None, start: int) -> int:
    """Return a seed that depends on the training's seed and the round or epoch, in [0, 2³¹)."""
    return int(np.random.SeedSequence([seed or 0, start]).generate_state(1)[0] >> 1)


def _converged(estimator: Any) -> bool:
    """Return whether a network's loss has not improved for `n_iter_no_change` epochs, as its `fit` asks."""
    count = getattr(estimator, "_no_improvement_count", 0)
    return count > getattr(estimator, "n_iter_no_change", np.inf)
