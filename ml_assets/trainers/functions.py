"""Teams' own train functions: what is known of one, what it is given, and what it must give back."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from numpy.typing import NDArray

from ml_assets.errors import TrainingError
from ml_assets.interfaces import Checkpoint
from ml_assets.trainers.libraries import check_torch

if TYPE_CHECKING:
    import pandas as pd

PARAMETERS = ("params", "seed", "checkpoint", "device", "report")
SIGNATURE = "def NAME(X, y, *, params, seed, checkpoint, device, report)"

Report = Callable[[int, Any], None]
"""What a train function tells (rounds or epochs done, its estimator as it is) after each; it may not return then."""

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class TrainFunction:
    """A train function as its source tells, before anything is imported.

    Attributes:
        path: Dotted path, such as deployments.flights.defs.arrival_delay.training.fit_network.
        file: Its module's file.
        line: Line of its `def`.
        digest: SHA-256 of the Python files in the module's folder, as `features.module.code_digest` makes it.
        gpu_required: Whether it is marked with `gpu_required`.
        imported: Top modules that its module imports, beside Python's own and the team's, sorted.
    """

    path: str
    file: Path
    line: int
    digest: str
    gpu_required: bool
    imported: tuple[str, ...] = ()


class _Trains(Protocol):
    """The signature of a train function."""

    def __call__(
        self,
        X: "pd.DataFrame",
        y: NDArray,
        *,
        params: Mapping[str, Any],
        seed: int,
        checkpoint: Checkpoint,
        device: str,
        report: Report,
    ) -> Any: ...


class NotingCheckpoint:
    """A `Checkpoint` that notes what a train function resumed from.

    Attributes:
        resumed_from: Step of the state that it was given; None when there was none.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.resumed_from: int | None = None

    def save(self, step: int, files: Mapping[str, bytes]) -> None:
        """Keep the state."""
        self._checkpoint.save(step, files)

    def load(self) -> tuple[int, dict[str, bytes]] | None:
        """Return the newest whole state, or None."""
        found = self._checkpoint.load()
        self.resumed_from = None if found is None else found[0]
        return found

    def clear(self) -> None:
        """Remove everything."""
        self._checkpoint.clear()

    @property
    def problems(self) -> Sequence[str]:
        """Return what was found damaged."""
        return self._checkpoint.problems


def gpu_required(function: _F) -> _F:
    """Mark a train function that cannot work without a GPU; its variant must say `compute.cpu_fallback: false`."""
    return function


def call(
    path: str,
    estimator: str,
    X: "pd.DataFrame",
    y: NDArray,
    *,
    params: Mapping[str, Any],
    seed: int,
    checkpoint: Checkpoint,
    device: str,
    report: Report,
) -> Any:
    """Call a train function and return the fitted estimator that it gave back.

    Args:
        path: Dotted path of the function.
        estimator: Import path of the class that it must return.
        X: Preprocessed features, shape (n_rows, n_columns), numbers without text.
        y: Labels without missing values, shape (n_rows,).
        params: The variant's parameters.
        seed: For everything random in it.
        checkpoint: Where it may save its state, and resume from.
        device: "cpu" or "cuda".
        report: What it may tell its progress to.

    Raises:
        TrainingError: If it cannot be imported, uses PyTorch that finds no GPU on a step with one, or returns
            something else than a fitted estimator of that class.
    """
    where, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(where)
        function: _Trains = getattr(module, name)
    except (ImportError, AttributeError) as error:
        raise TrainingError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    check_torch(path, module, device)
    fitted = function(X, y, params=dict(params), seed=seed, checkpoint=checkpoint, device=device, report=report)
    _check_fitted(path, estimator, fitted)
    return fitted


def _check_fitted(path: str, estimator: str, fitted: Any) -> None:
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    module, _, name = estimator.rpartition(".")
    wanted = getattr(importlib.import_module(module), name)
    found = type(fitted)
    if found is not wanted:
        raise TrainingError(
            f"{path} returned a {found.__module__}.{found.__qualname__}; expected a {estimator}, as the variant's "
            "`estimator` says"
        )
    if not isinstance(fitted, BaseEstimator):
        raise TrainingError(f"{path} returned a {found.__name__}, which is no scikit-learn estimator (BaseEstimator)")
    try:
        check_is_fitted(fitted)
    except NotFittedError as error:
        raise TrainingError(
            f"{path} returned a {found.__name__} that is not fitted; expected attributes that end in an underscore, "
            "such as classes_, set by what it learned"
        ) from error
