"""The metrics a pipeline may name: their table, and the checks of the arrays they are computed from.

Names and definitions are scikit-learn's.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_assets.errors import EvaluationError

Task = Literal["binary", "multiclass", "regression"]
Floats = NDArray[np.float64]

LABEL_THRESHOLD = 0.5
"""Probability from which a binary score counts as class 1."""

PROBABILITY_SUM_TOLERANCE = 1e-3
"""How far the class probabilities of one row may be from a sum of 1 (single-precision models round)."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What is known of a metric before any number is computed.

    Attributes:
        name: scikit-learn's word for it.
        tasks: Tasks it is defined for.
        greater_is_better: Direction; for `zero_is_best` it is False and speaks of the distance from zero.
        description: One sentence.
        needs: "score" when it reads probabilities or predictions as they are, "label" when it reads classes.
        unit: "" for a pure number, "target" for the target's own unit.
        bounds: Smallest and largest possible value.
        zero_is_best: Whether either sign is equally bad.
    """

    name: str
    tasks: tuple[Task, ...]
    greater_is_better: bool
    description: str
    needs: Literal["score", "label"] = "score"
    unit: str = ""
    bounds: tuple[float, float] = (0.0, 1.0)
    zero_is_best: bool = False

    def improvement(self, candidate: Floats, reference: Floats) -> Floats:
        """Return how much better the candidate's values are than the reference's; positive is better."""
        if self.zero_is_best:
            return np.abs(reference) - np.abs(candidate)
        return candidate - reference if self.greater_is_better else reference - candidate


_BOTH: tuple[Task, ...] = ("binary", "multiclass")
_UP: dict[str, Any] = {"greater_is_better": True}
_LABEL: dict[str, Any] = {"greater_is_better": True, "needs": "label"}
_DOWN: dict[str, Any] = {"greater_is_better": False}
_ERROR: dict[str, Any] = {"greater_is_better": False, "bounds": (0.0, np.inf)}

# fmt: off
_TABLE: tuple[tuple[str, tuple[Task, ...], dict[str, Any], str], ...] = (
    ("roc_auc", ("binary",), _UP, "Chance that class 1 scores above class 0; ties count half."),
    ("average_precision", ("binary",), _UP, "Precision averaged over recall, without interpolation."),
    ("log_loss", _BOTH, _ERROR | {"unit": "nats"}, "Mean of −ln(probability given to the true class)."),
    ("brier_score", ("binary",), _DOWN, "Mean squared distance of the probability from 0 or 1."),
    ("accuracy", _BOTH, _LABEL, "Share of rows whose class is right."),
    ("balanced_accuracy", _BOTH, _LABEL, "Recall averaged over the classes that occur."),
    ("f1", ("binary",), _LABEL, "Harmonic mean of precision and recall of class 1."),
    ("f1_macro", ("multiclass",), _LABEL, "F1 averaged over the classes that occur or are predicted."),
    ("roc_auc_ovr", ("multiclass",), _UP, "ROC AUC of each class against the rest, averaged over classes."),
    ("wape", ("regression",), _ERROR, "Sum of absolute errors over sum of absolute targets."),
    ("mae", ("regression",), _ERROR | {"unit": "target"}, "Mean absolute error."),
    ("rmse", ("regression",), _ERROR | {"unit": "target"}, "Root of the mean squared error."),
    ("r2", ("regression",), _UP | {"bounds": (-np.inf, 1.0)}, "Share of the variance explained."),
    ("mean_poisson_deviance", ("regression",), _ERROR, "Mean Poisson deviance of counts."),
    ("bias", ("regression",), _ERROR | {"unit": "target", "bounds": (-np.inf, np.inf), "zero_is_best": True},
     "Mean of prediction minus target; zero is best."),
)
# fmt: on
METRICS: Mapping[str, Metric] = MappingProxyType(
    {name: Metric(name=name, tasks=tasks, description=text, **facts) for name, tasks, facts, text in _TABLE}
)


def metric_for(name: str, task: Task) -> Metric:
    """Return the metric of that name; raises EvaluationError when there is none or it is of another task."""
    offered = sorted(metric.name for metric in METRICS.values() if task in metric.tasks)
    if name in offered:
        return METRICS[name]
    close = difflib.get_close_matches(name, offered, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise EvaluationError(f"there is no metric '{name}' for {task}; expected one of {', '.join(offered)}.{hint}")


def _encode_classes(y_true: ArrayLike, classes: Sequence[object]) -> NDArray[np.int64]:
    """Return for each label its position in `classes`."""
    position = {label: index for index, label in enumerate(classes)}
    labels = np.asarray(y_true, dtype=object).tolist()
    unknown = sorted({str(label) for label in set(labels) - position.keys()})
    if unknown:
        raise EvaluationError(
            f"y_true holds the classes {', '.join(unknown[:5])} that are not among the model's "
            f"{len(classes)} classes ({', '.join(str(label) for label in classes[:10])}); "
            f"train on a window that has them, or drop their rows."
        )
    return np.array([position[label] for label in labels], dtype=np.int64)


def as_floats(what: str, values: ArrayLike) -> Floats:
    """Return finite numbers; raises EvaluationError, which names them by `what`, when some are none."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"{what} cannot be read as numbers: {error}") from error
    n_bad = array.size - int(np.isfinite(array).sum())
    if n_bad:
        raise EvaluationError(
            f"{what} holds {n_bad} missing or infinite values in {array.size}; expected finite numbers. "
            f"Drop rows without a label before evaluating, and look for missing values in the model's output."
        )
    return array


def validated(
    task: Task, y_true: ArrayLike, y_score: ArrayLike, classes: Sequence[object] | None = None
) -> tuple[NDArray, Floats]:
    """Return labels and scores as arrays that the rest of this module may trust.

    Args:
        task: What kind of target it is.
        y_true: Shape (n,): 0 and 1 for binary, labels for multiclass, numbers for regression.
        y_score: Shape (n,): probability of class 1, or prediction; (n, n_classes) for multiclass.
        classes: For multiclass the label of each column of `y_score`.

    Returns:
        Labels (0/1, class positions, or targets) and scores; class probabilities sum to exactly 1.

    Raises:
        EvaluationError: If shapes differ, a value is missing, or a probability is out of range.
    """
    score = np.atleast_1d(as_floats("y_score", y_score))
    labels = [] if classes is None else list(classes)
    if task == "multiclass" and not labels:
        raise EvaluationError("multiclass metrics need `classes`, the label of each column of y_score.")
    shape = (score.shape[0], len(labels)) if task == "multiclass" else score.shape[:1]
    if score.shape != shape:
        raise EvaluationError(f"y_score of a {task} model has shape {score.shape}; expected {shape}.")
    label = _encode_classes(y_true, labels) if task == "multiclass" else as_floats("y_true", y_true)
    if label.shape != (score.shape[0],):
        raise EvaluationError(f"y_true has shape {label.shape}, but y_score has {score.shape[0]} rows.")
    if label.size == 0:
        raise EvaluationError("there are no rows to evaluate; check the partition and the split.")
    if task == "binary" and not np.isin(label, (0.0, 1.0)).all():
        raise EvaluationError("y_true of a binary task holds values other than 0 and 1; map the label first.")
    if task != "regression" and (score.min() < 0.0 or score.max() > 1.0):
        raise EvaluationError(
            f"y_score reaches from {score.min():.4g} to {score.max():.4g}; expected probabilities in [0, 1] "
            f"(predict_proba, not decision_function)."
        )
    if task != "multiclass":
        return label, score
    totals = score.sum(axis=1, keepdims=True)
    if np.abs(totals - 1.0).max() > PROBABILITY_SUM_TOLERANCE:
        raise EvaluationError("the class probabilities of a row do not sum to 1; expected predict_proba's.")
    return label, score / totals
