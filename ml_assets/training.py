"""Fits one variant: preprocessing and estimator as one scikit-learn pipeline, seeded, and scores rows with it."""

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.checkpoints import NoCheckpoint
from ml_assets.errors import TrainingError, TrainingPruned
from ml_assets.interfaces import Checkpoint
from ml_assets.preprocessing import TRUSTED_TYPES, encoder, prepare
from ml_assets.spec import TaskType, VariantSpec
from ml_assets.trainers import functions
from ml_assets.trainers.boosters import BoosterTrainer, grow_lightgbm, grow_xgboost
from ml_assets.trainers.epochs import EpochTrainer
from ml_assets.trainers.kinds import Kind, find_kind
from ml_assets.trainers.libraries import (
    STORED_TYPES,
    device_used,
    explained,
    library,
    library_params,
    settle_device,
)
from ml_assets.trainers.rounds import Trainer, names_of, train_in_rounds
from ml_assets.trainers.warm_start import WarmStartTrainer

if TYPE_CHECKING:
    import pandas as pd

Report = Callable[[int, Any], bool]
"""Told (rounds done, the fitted pipeline so far) after each part of a training; returns True to stop it."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fitted model, and how it came to be.

    Attributes:
        model: The `sklearn.pipeline.Pipeline`.
        facts: device; trained in rounds also rounds, and resumed, such as "resumed from round 60".
        notes: What a reader of the result should know, a sentence each.
    """

    model: Any
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def make_estimator(variant: VariantSpec, *, seed: int, device: str = "cpu") -> Any:
    """Return an unfitted estimator with its declared parameters and, when it has one, the seed as random_state.

    LightGBM and XGBoost also get the device, and what makes them give the same model with any number of threads.

    Raises:
        TrainingError: If the class cannot be imported or refuses its parameters.
    """
    module, _, name = variant.estimator.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
        params = library_params(variant.estimator, variant.params, seed=seed, device=device)
        if "random_state" in inspect.signature(cls).parameters:
            params.setdefault("random_state", seed)
        return cls(**params)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise TrainingError(f"{variant.estimator} cannot be made: {type(error).__name__}: {error}") from error


def build_pipeline(variant: VariantSpec, X: "pd.DataFrame", *, seed: int, device: str = "cpu") -> Any:
    """Return an unfitted `sklearn.pipeline.Pipeline` for the columns of X."""
    from sklearn.pipeline import Pipeline

    estimator = make_estimator(variant, seed=seed, device=device)
    return Pipeline([("columns", encoder(variant.preprocessing, X, seed=seed)), ("estimator", estimator)])


def fit(
    variant: VariantSpec,
    X: "pd.DataFrame",
    y: NDArray,
    *,
    seed: int,
    checkpoint: Checkpoint | None = None,
    device: str = "cpu",
    report: Report | None = None,
) -> Any:
    """Fit a variant and return the fitted `sklearn.pipeline.Pipeline`; see `train`."""
    return train(variant, X, y, seed=seed, checkpoint=checkpoint, device=device, report=report).model


def train(
    variant: VariantSpec,
    X: "pd.DataFrame",
    y: NDArray,
    *,
    seed: int,
    checkpoint: Checkpoint | None = None,
    device: str = "cpu",
    report: Report | None = None,
) -> Fitted:
    """Fit a variant, and say how.

    An estimator is trained in rounds when `compute.checkpoint` says so, and when there is a `report` and its model is
    then the same bit for bit; else by one `fit` call, and `report` is not called. What is learned never depends on
    whether somebody watches, or on where a training was interrupted.

    Args:
        variant: What to fit.
        X: Feature columns, shape (n_rows, n_features); text columns are categorical.
        y: Labels without missing values, shape (n_rows,).
        seed: Seed for everything random in it.
        checkpoint: Where a training in rounds is saved, and what it is resumed from. The caller clears it once the
            model is stored.
        device: "cpu" or "cuda"; scikit-learn's own estimators always use the processor.
        report: Told after each part of a training in rounds, about ten times, and again of a part whose state was
            not saved before the process ended.

    Raises:
        TrainingError: If the estimator cannot be made, has no rounds though `compute.checkpoint` is set, or a library
            refuses.
        TrainingPruned: If `report` stops it.
        StoreError: If the checkpoint's store cannot be reached.
    """
    if variant.train is not None:
        kept = NoCheckpoint() if checkpoint is None else checkpoint
        return _train_by_function(variant, X, y, seed=seed, checkpoint=kept, device=device, report=report)
    pipeline = build_pipeline(variant, X, seed=seed, device=device)
    estimator = pipeline.named_steps["estimator"]
    facts: dict[str, Any] = {"device": device_used(variant.estimator, device)}
    trainer = _trainer(variant, estimator, watched=report is not None)
    with explained(variant.estimator, device):
        if trainer is None:
            pipeline.fit(prepare(X), y)
            settle_device(variant.estimator, estimator, device)
            return Fitted(model=pipeline, facts=facts)
        columns = pipeline.named_steps["columns"]
        course = train_in_rounds(
            trainer,
            columns.fit_transform(prepare(X), y),
            y,
            checkpoint=checkpoint,
            watch=_watching(report, columns),
            trusted=variant.trusted_types,
        )
        settle_device(variant.estimator, course.estimator, device)
    facts["rounds"] = trainer.rounds_of(course.estimator)
    if course.resumed_from is not None:
        facts["resumed"] = f"resumed from round {course.resumed_from}"
    return Fitted(model=_joined(columns, course.estimator), facts=facts, notes=tuple(course.notes))


def _trainer(variant: VariantSpec, estimator: Any, *, watched: bool) -> Trainer | None:
    """Return how to train in rounds, or None when one `fit` call is to do it."""
    kind, params = find_kind(names_of(estimator)), estimator.get_params(deep=False)
    obstacle = "it has no rounds that are known here" if kind is None else kind.obstacle(params)
    if variant.compute.checkpoint and obstacle:
        raise TrainingError(f"compute.checkpoint: {variant.estimator} cannot be trained in rounds: {obstacle}")
    if kind is None or obstacle or not (variant.compute.checkpoint or (watched and kind.exact(params))):
        return None
    return _trainer_of(kind, estimator, params)


def _trainer_of(kind: Kind, estimator: Any, params: Mapping[str, Any]) -> Trainer:
    total, is_random = kind.total(params), not kind.exact(params)
    if kind.family == "lightgbm":
        return BoosterTrainer(estimator, total, grow_lightgbm, is_random=is_random)
    if kind.family == "xgboost":
        return BoosterTrainer(estimator, total, grow_xgboost, is_random=is_random)
    if kind.family == "epochs":
        return EpochTrainer(estimator, total)
    return WarmStartTrainer(estimator, kind.rounds, total)


def _train_by_function(
    variant: VariantSpec,
    X: "pd.DataFrame",
    y: NDArray,
    *,
    seed: int,
    checkpoint: Checkpoint,
    device: str,
    report: Report | None,
) -> Fitted:
    """Fit by the team's function on frames with the names of the preprocessed columns."""
    # With frames here and in scoring the estimator sees the same names in both.
    columns = encoder(variant.preprocessing, X, seed=seed).set_output(transform="pandas")
    watch = _watching(report, columns)

    def tell(step: int, estimator: Any) -> None:
        if watch is not None and watch(step, estimator):
            raise TrainingPruned(step)

    noting = functions.NotingCheckpoint(checkpoint)
    estimator = functions.call(
        variant.train or "",
        variant.estimator,
        columns.fit_transform(prepare(X), y),
        y,
        params=variant.params,
        seed=seed,
        checkpoint=noting,
        device=device,
        report=tell,
    )
    facts: dict[str, Any] = {"device": device, "train": variant.train}
    if noting.resumed_from is not None:
        facts["resumed"] = f"resumed from round {noting.resumed_from}"
    return Fitted(model=_joined(columns, estimator), facts=facts, notes=tuple(checkpoint.problems))


def _watching(report: Report | None, columns: Any) -> Report | None:
    return None if report is None else lambda step, estimator: report(step, _joined(columns, estimator))


def _joined(columns: Any, estimator: Any) -> Any:
    from sklearn.pipeline import Pipeline

    return Pipeline([("columns", columns), ("estimator", estimator)])


def predict(model: Any, X: "pd.DataFrame", *, task: TaskType) -> NDArray[np.float64]:
    """Score rows, each independently of the others.

    Returns:
        binary: probability of class 1, shape (n_rows,); multiclass: probabilities in the order of
        `model.classes_`, shape (n_rows, n_classes); regression: predictions, shape (n_rows,).

    Raises:
        TrainingError: If X lacks a column the model was fitted on.
    """
    columns = list(model.feature_names_in_)
    missing = [c for c in columns if c not in X]
    if missing:
        raise TrainingError(f"The rows lack the feature columns {missing}; the model was fitted on {columns}.")
    rows = prepare(X[columns])
    if task == "regression":
        return np.asarray(model.predict(rows), dtype=np.float64)
    scores = np.asarray(model.predict_proba(rows), dtype=np.float64)
    return np.ascontiguousarray(scores[:, 1]) if task == "binary" else scores


def trusted_types(variants: Iterable[VariantSpec]) -> list[str]:
    """Return every type that a stored model of these variants may hold."""
    known = list(variants)
    of_libraries = (t for v in known for t in STORED_TYPES.get(library(v.estimator), ()))
    return sorted({*TRUSTED_TYPES, *of_libraries, *(t for v in known for t in v.trusted_types)})
