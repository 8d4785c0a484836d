"""The weighted values of metrics.

Every metric is written in one of two forms, so that a bootstrap can weigh rows cheaply. Most are a function
of a few sums over rows (`sum_terms`, `value_of_sums`); `roc_auc` and `average_precision` are functions of the
order of the scores (`Ranking`, which sorts once). Where scikit-learn warns and returns a number for a metric
that has no value, this module raises instead.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_assets.errors import EvaluationError
from ml_assets.metrics import LABEL_THRESHOLD, METRICS, Floats, Task, as_floats, metric_for, validated

RANK_METRICS = frozenset({"roc_auc", "average_precision", "roc_auc_ovr"})

# --- metrics that are functions of sums over rows ------------------------------------------------


def _log_losses(y: NDArray, score: Floats) -> Floats:
    given = np.where(y == 1, score, 1.0 - score) if score.ndim == 1 else score[np.arange(y.size), y]
    eps = np.finfo(np.float64).eps
    return -np.log(np.clip(given, eps, 1.0 - eps))


def _predicted_class(score: Floats) -> NDArray[np.int64]:
    if score.ndim == 1:
        return (score >= LABEL_THRESHOLD).astype(np.int64)
    return score.argmax(axis=1)


def _one_hot(codes: NDArray, score: Floats) -> Floats:
    """Return shape (n, n_classes); two classes for binary."""
    n_classes = 2 if score.ndim == 1 else score.shape[1]
    return np.eye(n_classes)[codes.astype(np.int64)]


def _recall_terms(y: NDArray, score: Floats) -> list[Floats]:
    true = _one_hot(y, score)
    return [true * (_predicted_class(score) == y)[:, None], true]


def _f1_macro_terms(y: NDArray, score: Floats) -> list[Floats]:
    return [*_recall_terms(y, score), _one_hot(_predicted_class(score), score)]


def _poisson_deviances(y: NDArray, prediction: Floats) -> Floats:
    if y.min() < 0 or prediction.min() <= 0:
        raise EvaluationError(
            f"mean_poisson_deviance needs targets ≥ 0 and predictions > 0; found a smallest target of "
            f"{y.min():.4g} and prediction of {prediction.min():.4g}. Clip the predictions or choose mae."
        )
    ratio = np.where(y > 0, y / prediction, 1.0)
    return 2.0 * (y * np.log(ratio) - y + prediction)


_TERMS: Mapping[str, Callable[[NDArray, Floats], Sequence[NDArray]]] = {
    "log_loss": lambda y, s: [_log_losses(y, s), np.ones(y.size)],
    "brier_score": lambda y, s: [(s - y) ** 2, np.ones(y.size)],
    "accuracy": lambda y, s: [(_predicted_class(s) == y).astype(np.float64), np.ones(y.size)],
    "balanced_accuracy": _recall_terms,
    "f1": lambda y, s: [_predicted_class(s) * y, _predicted_class(s).astype(np.float64), y],
    "f1_macro": _f1_macro_terms,
    "wape": lambda y, s: [np.abs(s - y), np.abs(y)],
    "mae": lambda y, s: [np.abs(s - y), np.ones(y.size)],
    "rmse": lambda y, s: [(s - y) ** 2, np.ones(y.size)],
    # Centred on the median, since a sum of squares minus a squared sum loses digits far from zero.
    "r2": lambda y, s: [(s - y) ** 2, y - np.median(y), (y - np.median(y)) ** 2, np.ones(y.size)],
    "mean_poisson_deviance": lambda y, s: [_poisson_deviances(y, s), np.ones(y.size)],
    "bias": lambda y, s: [s - y, np.ones(y.size)],
}


def sum_terms(name: str, y: NDArray, score: Floats) -> Floats:
    """Return shape (n, k): the numbers of each row whose weighted sums determine the metric.

    Args:
        name: A metric that is not in `RANK_METRICS`.
        y: Labels from `validated`.
        score: Scores from `validated`.
    """
    return np.column_stack(_TERMS[name](y, score))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def _mean_where(values: Floats, present: NDArray[np.bool_]) -> Floats:
    return _ratio(np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1).astype(np.float64))


def _macro_recall(sums: Floats) -> Floats:
    hits, true = np.split(sums, 2, axis=-1)
    present = true > 0
    return np.where(present.sum(axis=-1) >= 2, _mean_where(_ratio(hits, true), present), np.nan)


def _macro_f1(sums: Floats) -> Floats:
    hits, true, predicted = np.split(sums, 3, axis=-1)
    occurs = true + predicted > 0
    value = _mean_where(_ratio(2.0 * hits, true + predicted), occurs)
    return np.where((true > 0).sum(axis=-1) >= 2, value, np.nan)


def _f1(sums: Floats) -> Floats:
    hits, predicted, true = sums[..., 0], sums[..., 1], sums[..., 2]
    return np.where(true > 0, _ratio(2.0 * hits, predicted + true), np.nan)


def _r2(sums: Floats) -> Floats:
    residual, first, second, weight = (sums[..., k] for k in range(4))
    total = second - _ratio(first**2, weight)
    # What is left of a constant target after subtraction is rounding, not variance.
    varies = total > 1e-12 * second
    return np.where(varies, 1.0 - _ratio(residual, np.where(varies, total, 1.0)), np.nan)


_VALUES: Mapping[str, Callable[[Floats], Floats]] = {
    "balanced_accuracy": _macro_recall,
    "f1": _f1,
    "f1_macro": _macro_f1,
    "rmse": lambda sums: np.sqrt(_ratio(sums[..., 0], sums[..., 1])),
    "r2": _r2,
}


def value_of_sums(name: str, sums: Floats) -> Floats:
    """Return the metric for weighted sums of shape (…, k); NaN where it is not defined."""
    if name in _VALUES:
        return _VALUES[name](sums)
    return _ratio(sums[..., 0], sums[..., 1])


# --- metrics that are functions of the order of the scores ---------------------------------------


class Ranking:
    """Rows of a binary task sorted by score once, to be weighed many times.

    Args:
        y: Shape (n,): 0 or 1 (or False and True).
        score: Shape (n,): greater means more likely of class 1.
    """

    def __init__(self, y: NDArray, score: Floats) -> None:
        self._order = np.argsort(score, kind="stable")
        ranked = score[self._order]
        self._positive = y[self._order].astype(bool)
        # Rows of one score form one group: a threshold cannot pass between them.
        self._ends = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)

    def group_sums(self, weight: Floats | None) -> tuple[Floats, Floats]:
        """Return the weight of positives and of negatives in each group of equal scores, ascending."""
        ranked = np.ones(self._order.size) if weight is None else weight[self._order]
        positives = np.cumsum(np.where(self._positive, ranked, 0.0))[self._ends]
        everything = np.cumsum(ranked)[self._ends]
        return np.diff(positives, prepend=0.0), np.diff(everything - positives, prepend=0.0)

    def roc_auc(self, weight: Floats | None = None) -> float:
        """Return the weighted area under the ROC curve; NaN when one class has no weight."""
        positives, negatives = self.group_sums(weight)
        pairs = positives.sum() * negatives.sum()
        wins = positives @ (np.cumsum(negatives) - 0.5 * negatives)
        return float(wins / pairs) if pairs > 0 else float("nan")

    def average_precision(self, weight: Floats | None = None) -> float:
        """Return the weighted average precision; NaN when one class has no weight."""
        positives, negatives = (group[::-1] for group in self.group_sums(weight))
        total = positives.sum()
        if total <= 0 or negatives.sum() <= 0:
            return float("nan")
        # A group without weight at the top has no precision, and no positives to average it over.
        precision = _ratio(np.cumsum(positives), np.cumsum(positives + negatives))
        return float(positives @ np.nan_to_num(precision) / total)


def _rank_value(name: str, y: NDArray, score: Floats, weight: Floats | None) -> float:
    if name == "roc_auc_ovr":
        return float(np.mean([Ranking(y == k, s).roc_auc(weight) for k, s in enumerate(score.T)]))
    ranking = Ranking(y, score)
    return ranking.roc_auc(weight) if name == "roc_auc" else ranking.average_precision(weight)


def undefined(name: str, y: NDArray) -> EvaluationError:
    """Return the error that says why the metric has no value on these labels, and what to do."""
    regression = {"wape": "the absolute targets sum to zero", "r2": "the target does not vary"}
    why = regression.get(name, f"the labels hold too few classes ({np.unique(y).size} present)")
    instead = "mae or rmse" if name in regression else "log_loss or accuracy"
    return EvaluationError(
        f"{name} is not defined on these {y.size} rows: {why}. Evaluate on more periods, or choose {instead}."
    )


def _task_of(name: str, y_score: ArrayLike, classes: Sequence[object] | None) -> Task:
    if name in METRICS and METRICS[name].tasks == ("regression",):
        return "regression"
    return "multiclass" if classes is not None or np.ndim(y_score) == 2 else "binary"


def compute(
    name: str,
    y_true: ArrayLike,
    y_score: ArrayLike,
    sample_weight: ArrayLike | None = None,
    classes: Sequence[object] | None = None,
) -> float:
    """Return one metric, weighted.

    >>> compute("roc_auc", [0, 1, 0, 1], [0.1, 0.4, 0.4, 0.9])
    0.875

    Args:
        name: A key of `METRICS`.
        y_true: Shape (n,); this, `y_score` and `classes` are as in `validated`.
        y_score: Shape (n,), or (n, n_classes) for multiclass.
        sample_weight: Shape (n,), ≥ 0; None weighs all rows alike.
        classes: Labels of the columns, for multiclass only.

    Raises:
        EvaluationError: If the name is unknown, the arrays are wrong, or the metric has no value on them.
    """
    task = _task_of(name, y_score, classes)
    metric_for(name, task)
    y, score = validated(task, y_true, y_score, classes)
    weight = np.ones(y.size) if sample_weight is None else as_floats("sample_weight", sample_weight)
    if weight.shape != y.shape or weight.min() < 0:
        raise EvaluationError(f"sample_weight has shape {weight.shape}; expected {y.shape}, none negative.")
    if name in RANK_METRICS:
        value = _rank_value(name, y, score, weight)
    else:
        value = float(value_of_sums(name, weight @ sum_terms(name, y, score)))
    if np.isnan(value):
        raise undefined(name, y[weight > 0])
    return value
