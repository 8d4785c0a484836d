"""scikit-learn's boosting and forests in rounds, by `warm_start`: bit for bit what one `fit` call gives."""

import warnings
from typing import Any

from numpy.typing import NDArray


class WarmStartTrainer:
    """Trains HistGradientBoosting, GradientBoosting, RandomForest and ExtraTrees estimators.

    Args:
        estimator: Unfitted, with all its parameters.
        rounds: Parameter that counts the rounds.
        total: Rounds in all.
    """

    exact = True

    def __init__(self, estimator: Any, rounds: str, total: int) -> None:
        self._template, self._rounds, self.total = estimator, rounds, total

    def advance(self, estimator: Any, X: NDArray, y: NDArray, start: int, stop: int) -> tuple[Any, bool]:
        """Grow the trees up to `stop`."""
        from sklearn.base import clone

        del start
        estimator = clone(self._template) if estimator is None else estimator
        estimator.set_params(warm_start=True, **{self._rounds: stop})
        if self._declared.get("oob_score"):  # few trees leave rows without a score out of bag
            estimator.set_params(oob_score=self._declared["oob_score"] if stop == self.total else False)
        with warnings.catch_warnings():
            # The hint is about other data; here each part sees the same.
            warnings.filterwarnings("ignore", message="class_weight presets .*balanced", category=UserWarning)
            estimator.fit(X, y)
        return estimator, _stagnates(estimator, stop)

    def finish(self, estimator: Any) -> Any:
        """Return the estimator with its declared parameters."""
        names = ("warm_start", "oob_score", self._rounds)
        return estimator.set_params(**{name: self._declared[name] for name in names if name in self._declared})

    def rounds_of(self, estimator: Any) -> int:
        """Return how many rounds it has: fewer than asked for when it stopped early."""
        return int(getattr(estimator, "n_iter_", self.total))

    @property
    def _declared(self) -> dict[str, Any]:
        return self._template.get_params(deep=False)


def _stagnates(estimator: Any, asked: int) -> bool:
    """Return whether histogram boosting stopped early, or would before the next round.

    scikit-learn asks after each round but not before the first of a call, so what it would say is asked here: none
    of the last `n_iter_no_change` scores is better by `tol` than the one before them.
    """
    if not getattr(estimator, "do_early_stopping_", False):
        return False
    if estimator.n_iter_ < asked:
        return True
    scores = list(estimator.validation_score_) or list(estimator.train_score_)
    recent, before = scores[-estimator.n_iter_no_change :], scores[: -estimator.n_iter_no_change]
    return bool(before) and not any(score > before[-1] + estimator.tol for score in recent)
