"""What a set of parameters is worth: the mean metric over inner folds, by models fitted on the rows before each."""

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.checkpoints import NoCheckpoint
from ml_assets.errors import EvaluationError, TrainingPruned
from ml_assets.interfaces import Checkpoint, CheckpointStore, Direction, Studies, StudyPlan, Trial, TrialResult
from ml_assets.metric_values import compute
from ml_assets.metrics import METRICS
from ml_assets.search.folds import Fold
from ml_assets.search.processes import Progress
from ml_assets.search.watching import ToldCheckpoint, Watch, WatchedRounds
from ml_assets.spec import TaskType, VariantSpec
from ml_assets.training import fit, predict

if TYPE_CHECKING:
    import pandas as pd


def direction_of(metric: str) -> Direction:
    """Return whether a search looks for small or large values of a metric; of `bias` for small distances from 0."""
    return "maximize" if METRICS[metric].greater_is_better else "minimize"


def with_params(variant: VariantSpec, params: Mapping[str, Any]) -> VariantSpec:
    """Return a variant with searched parameters in the place of its own, and without its search."""
    parts: dict[str, dict[str, Any]] = {"estimator": dict(variant.params), "preprocessing": {}}
    for name, value in params.items():
        part, _, key = name.partition(".")
        parts[part][key] = value
    preprocessing = variant.preprocessing.model_copy(update=parts["preprocessing"])
    return variant.model_copy(update={"params": parts["estimator"], "preprocessing": preprocessing, "search": None})


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Evaluates trials of a variant, each in the process that calls it.

    A trial's folds are fitted one after the other. With several folds the pruner looks after each of them; with
    one it looks between the rounds of training that the estimator reports.

    Attributes:
        variant: The variant, with its search.
        frame: Feature columns of the training split, shape (n_rows, n_features).
        y: Its labels, shape (n_rows,).
        folds: Inner folds, oldest first.
        metric: Name in `METRICS`.
        task: What kind of target it is.
        seed: Of every fit.
        device: What to compute on.
        plan: The study.
        studies: Prunes.
        checkpoints: Where half-trained models are kept.
        key: Where below: a trial's number and a fold's follow.
    """

    variant: VariantSpec
    frame: "pd.DataFrame"
    y: NDArray[Any]
    folds: Sequence[Fold]
    metric: str
    task: TaskType
    seed: int
    device: str
    plan: StudyPlan
    studies: Studies
    checkpoints: CheckpointStore
    key: str

    def warm_up(self) -> None:
        """Import what every trial needs, in the process that their processes are forked from; nothing is computed."""
        modules = ["sklearn.compose", "sklearn.impute", "sklearn.pipeline", "sklearn.preprocessing"]
        if self.variant.train is None:
            modules.append(self.variant.estimator.rpartition(".")[0])
        for module in modules:
            importlib.import_module(module)

    def __call__(self, trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        """Evaluate a trial, from where an earlier process of it ended.

        Args:
            trial: Its parameters, and the folds that are finished.
            known: Trials that its pruner may know.
            progress: Is told each finished fold, and where a half-trained model goes on.
        """
        variant = with_params(self.variant, trial.params)
        pruning = None if self.plan.pruner == "none" else self.studies.pruning(self.plan, trial, known)
        watch = Watch(pruning)
        values = list(trial.folds)
        if len(self.folds) > 1:
            for index in range(len(values)):
                watch.report(index + 1, _mean(values[: index + 1]))
        while len(values) < len(self.folds) and not watch.stops:
            index = len(values)
            checkpoint: Checkpoint = NoCheckpoint()
            if variant.compute.checkpoint or variant.train is not None:
                kept = self.checkpoints.open(f"{self.key}-{trial.number}-{index}")
                checkpoint = ToldCheckpoint(kept, partial(progress.resumed, index))
            try:
                values.append(self._fit(variant, self.folds[index], checkpoint, watch))
            except TrainingPruned:
                checkpoint.clear()
                break
            progress.fold(index, values[-1])
            checkpoint.clear()
            if len(self.folds) > 1:
                watch.report(index + 1, _mean(values))
        if len(values) < len(self.folds):
            return watch.result("pruned", watch.last)
        return watch.result("completed", _mean(values))

    def _fit(self, variant: VariantSpec, fold: Fold, checkpoint: Checkpoint, watch: "Watch") -> float:
        """Return the metric on a fold of a model fitted before it."""
        report = None
        if len(self.folds) == 1 and watch.pruning is not None:
            rounds = WatchedRounds(checkpoint, watch)
            checkpoint, report = rounds, lambda step, model: rounds.report(step, self._score(model, fold))
        X, y = self.frame.iloc[fold.train], self.y[fold.train]
        model = fit(variant, X, y, seed=self.seed, checkpoint=checkpoint, device=self.device, report=report)
        return self._score(model, fold)

    def _score(self, model: Any, fold: Fold) -> float:
        scores = predict(model, self.frame.iloc[fold.validation], task=self.task)
        classes = list(model.classes_) if self.task == "multiclass" else None
        value = float(compute(self.metric, self.y[fold.validation], scores, classes=classes))
        if not math.isfinite(value):
            raise EvaluationError(f"{self.metric} is {value} on the inner fold of {fold.span}; expected a number")
        return abs(value) if METRICS[self.metric].zero_is_best else value


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
