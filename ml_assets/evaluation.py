"""The evaluation of a candidate beside champion and baseline on the same untouched rows."""

import itertools
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_assets.bootstrap import Interval, block_bootstrap, block_codes
from ml_assets.comparison import Difference, paired_differences
from ml_assets.errors import EvaluationError
from ml_assets.metrics import Floats, Ranking, Task, validated
from ml_assets.slices import Calibration, SliceTable, calibration_table, slice_table, top_class

if TYPE_CHECKING:
    import pandas as pd

MODELS = ("candidate", "champion", "baseline")
MAX_CURVE_POINTS, HISTOGRAM_BINS, HEATMAP_BINS = 200, 20, 30
DOCUMENT_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One metric of one model."""

    model: str
    metric: str
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A ROC curve (x: false-positive rate, y: true-positive rate) or precision (y) against recall (x).

    `label` is the class that is set against the rest, empty for binary.
    """

    kind: Literal["roc", "precision_recall"]
    model: str
    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ConfusionTable:
    """Rows by true class (outer) and predicted class (inner) of the candidate.

    `threshold` is the probability from which class 1 is predicted; None where the most likely class is.
    """

    threshold: float | None
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """The candidate's scores in 20 equal bins of [0, 1], for the rows of one true class."""

    label: str
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """Rows by target (outer) and the candidate's prediction (inner), on the same edges.

    The outermost bins also hold what lies beyond them, half a percent of the rows on either side.
    """

    edges: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class BlockResidual:
    """Prediction minus target of one model in one block: mean, and 10 % and 90 % quantiles."""

    model: str
    block: str
    n_rows: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """What was measured; equal reports have equal documents.

    Attributes:
        task: What kind of target it is.
        n_rows: Rows.
        n_blocks: Blocks (days).
        confidence: Level of each interval that is not a slice's.
        replicates: Bootstrap resamplings.
        seed: Of the bootstrap.
        first_event: Earliest event time in ISO 8601, None when no event time was given.
        last_event: Latest event time.
        metrics: Metrics in the order asked for; the first is the one slices show.
        models: Among candidate, champion and baseline those there are.
        estimates: Every model by every metric.
        differences: The candidate against champion and baseline by every metric.
        slices: The candidate on parts of the rows, None when no columns were given.
        calibration: For classification, each model.
        confusion: For binary at 0.5 and at the rows' own rate; for multiclass one table.
        curves: For binary each model; for multiclass the candidate, each class against the rest.
        histograms: For classification.
        heatmap: For regression.
        residuals: For regression, each model by block in order of time.
    """

    task: Task
    n_rows: int
    n_blocks: int
    confidence: float
    replicates: int
    seed: int
    first_event: str | None
    last_event: str | None
    metrics: tuple[str, ...]
    models: tuple[str, ...]
    estimates: tuple[Estimate, ...]
    differences: tuple[Difference, ...]
    slices: SliceTable | None
    calibration: tuple[Calibration, ...] = ()
    confusion: tuple[ConfusionTable, ...] = ()
    curves: tuple[Curve, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    heatmap: Heatmap | None = None
    residuals: tuple[BlockResidual, ...] = ()

    def interval(self, model: str, metric: str) -> Interval:
        """Return one model's metric; raises EvaluationError when it was not measured."""
        for estimate in self.estimates:
            if (estimate.model, estimate.metric) == (model, metric):
                return estimate.interval
        raise EvaluationError(
            f"the evaluation has no {metric} of {model}; it has {', '.join(self.metrics)} of "
            f"{', '.join(self.models)}. Add the metric to the pipeline's evaluation and run it again."
        )

    def difference(self, metric: str, reference: str) -> Difference:
        """Return the candidate against a reference; raises EvaluationError when it was not measured."""
        for difference in self.differences:
            if (difference.metric, difference.reference) == (metric, reference):
                return difference
        self.interval(reference, metric)
        raise EvaluationError("the candidate is not compared with itself; name champion or baseline.")

    def to_document(self) -> dict[str, Any]:
        """Return the report as JSON-ready values: no NaN, and the same for the same report."""
        return {"format": DOCUMENT_FORMAT, **_plain(asdict(self))}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "EvaluationReport":
        """Return the report that gave the document; raises EvaluationError for another format."""
        if document.get("format") != DOCUMENT_FORMAT:
            raise EvaluationError(
                f"the evaluation document has format {document.get('format')!r}; expected {DOCUMENT_FORMAT}. "
                f"It was written by another release: materialize the evaluation again."
            )
        return _typed(cls, document)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _typed(kind: Any, value: Any) -> Any:
    """Return the value as what the annotation says: a dataclass, a tuple of one type, or as it is."""
    if typing.get_origin(kind) is types.UnionType:
        present = next(option for option in typing.get_args(kind) if option is not types.NoneType)
        return None if value is None else _typed(present, value)
    if typing.get_origin(kind) is tuple:
        return tuple(_typed(typing.get_args(kind)[0], item) for item in value)
    if is_dataclass(kind) and isinstance(kind, type):
        return kind(**{field.name: _typed(field.type, value[field.name]) for field in fields(kind)})
    return value


def _thinned(x: Floats, y: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return at most MAX_CURVE_POINTS of the points, evenly along the curve, the ends among them."""
    walked = np.cumsum(np.abs(np.diff(x, prepend=x[0])) + np.abs(np.diff(y, prepend=y[0])))
    kept = np.unique(np.searchsorted(walked, np.linspace(0.0, walked[-1], MAX_CURVE_POINTS - 1)))
    kept = np.unique(np.append(np.minimum(kept, x.size - 1), x.size - 1))
    return tuple(np.round(x[kept], 6).tolist()), tuple(np.round(y[kept], 6).tolist())


def _curves(model: str, label: str, y: NDArray, score: Floats) -> list[Curve]:
    """Return both curves, or none when only one class is there."""
    if not 0 < y.sum() < y.size:
        return []
    positives, negatives = (np.cumsum(group[::-1]) for group in Ranking(y, score).group_sums(None))
    recall, fallout = positives / positives[-1], negatives / negatives[-1]
    x, above = _thinned(np.append(0.0, fallout), np.append(0.0, recall))
    reached, precision = _thinned(recall, positives / (positives + negatives))
    return [
        Curve(kind="roc", model=model, label=label, x=x, y=above),
        Curve(kind="precision_recall", model=model, label=label, x=reached, y=precision),
    ]


def _confusion(true: NDArray, predicted: NDArray, labels: tuple[str, ...], threshold: float | None) -> ConfusionTable:
    pairs = true.astype(np.int64) * len(labels) + predicted.astype(np.int64)
    counts = np.bincount(pairs, minlength=len(labels) ** 2).reshape(len(labels), len(labels))
    return ConfusionTable(threshold=threshold, labels=labels, counts=tuple(map(tuple, counts.tolist())))


def _classification(
    task: Task, y: NDArray, scores: Mapping[str, Floats], block: NDArray[np.int64], labels: tuple[str, ...]
) -> dict[str, Any]:
    """Return the report's fields for binary and multiclass."""
    candidate = scores["candidate"]
    tops = {model: top_class(task, y, score) for model, score in scores.items()}
    if task == "binary":
        curves = [curve for model, score in scores.items() for curve in _curves(model, "", y, score)]
        thresholds = (0.5, float(y.mean()))
        confusion = [_confusion(y, candidate >= limit, labels, limit) for limit in thresholds]
    else:
        per_class = enumerate(labels)
        curves = [c for k, label in per_class for c in _curves("candidate", label, y == k, candidate[:, k])]
        confusion = [_confusion(y, candidate.argmax(axis=1), labels, None)]
    right, sure = tops["candidate"]
    names = labels if task == "binary" else ("wrong", "right")
    histograms = [np.histogram(sure[right == k], bins=HISTOGRAM_BINS, range=(0.0, 1.0))[0].tolist() for k in (0, 1)]
    return {
        "calibration": tuple(
            Calibration(model=model, bins=calibration_table(*top, block)) for model, top in tops.items()
        ),
        "confusion": tuple(confusion),
        "curves": tuple(curves),
        "histograms": tuple(Histogram(label=n, counts=tuple(h)) for n, h in zip(names, histograms, strict=True)),
    }


def _heatmap(y: Floats, prediction: Floats) -> Heatmap:
    both = np.stack([y, prediction])
    low, high = np.quantile(both, 0.005, axis=1).min(), np.quantile(both, 0.995, axis=1).max()
    # A constant target and prediction still need a bin of some width.
    edges = np.linspace(low, high if high > low else low + 1.0, HEATMAP_BINS + 1)
    counts = np.histogram2d(*np.clip(both, edges[0], edges[-1]), bins=[edges, edges])[0]
    return Heatmap(edges=tuple(edges.tolist()), counts=tuple(map(tuple, counts.astype(int).tolist())))


def _block_names(blocks: ArrayLike) -> list[str]:
    """Return the label of each block in words, in the order of `block_codes`; days without their midnight."""
    import pandas as pd

    names = pd.factorize(np.asarray(blocks), sort=True)[1]
    return [str(name).removesuffix(" 00:00:00") for name in pd.Index(names)]


def _regression(
    y: Floats,
    scores: Mapping[str, Floats],
    block: NDArray[np.int64],
    names: list[str],
    order: NDArray[np.int64],
) -> dict[str, Any]:
    """Return the report's fields for regression."""
    residuals = []
    for model, prediction in scores.items():
        for code in order.tolist():
            error = (prediction - y)[block == code]
            low, high = np.quantile(error, (0.1, 0.9)).tolist()
            mean = float(error.mean())
            residuals.append(
                BlockResidual(model=model, block=names[code], n_rows=error.size, mean=mean, low=low, high=high)
            )
    return {"heatmap": _heatmap(y, scores["candidate"]), "residuals": tuple(residuals)}


def _period(
    event_time: Any, block: NDArray[np.int64], n_blocks: int
) -> tuple[str | None, str | None, NDArray[np.int64]]:
    """Return the first and the last event, and the blocks in order of their first event."""
    import pandas as pd

    if event_time is None:
        return None, None, np.arange(n_blocks)
    times = pd.Series(event_time).reset_index(drop=True)
    if len(times) != block.size or times.isna().any():
        raise EvaluationError(
            f"event_time has {times.count()} values for {block.size} rows; expected one for each row."
        )
    starts = times.groupby(block).min().sort_values(kind="stable")
    first, last = (pd.Timestamp(time).isoformat() for time in (times.min(), times.max()))
    return first, last, starts.index.to_numpy()


def evaluate(
    *,
    task: Task,
    y_true: ArrayLike,
    scores: Mapping[str, ArrayLike],
    blocks: ArrayLike,
    metrics: Sequence[str],
    slice_columns: "pd.DataFrame | None" = None,
    classes: Sequence[object] | None = None,
    confidence: float = 0.95,
    replicates: int = 500,
    seed: int = 0,
    event_time: "pd.Series | ArrayLike | None" = None,
) -> EvaluationReport:
    """Measure the candidate, and champion and baseline beside it, on the same rows.

    Args:
        task: What kind of target it is.
        y_true: Shape (n,): 0 and 1 for binary, labels for multiclass, numbers for regression.
        scores: "candidate", "baseline" and, when there is one, "champion" → shape (n,): probability of class
            1 or prediction; (n, n_classes) for multiclass.
        blocks: Shape (n,): day of each row, or another label whose groups are independent.
        metrics: Names in `METRICS`; the first is the one slices show.
        slice_columns: n rows of the columns to slice by.
        classes: For multiclass the label of each score column.
        confidence: Of intervals; for slices of all of them together.
        replicates: Bootstrap resamplings.
        seed: Of the bootstrap.
        event_time: Shape (n,): when each row happened; orders the blocks and gives the period.

    Raises:
        EvaluationError: If a metric has no value on the rows, blocks are fewer than 5, or an array is wrong.
    """
    if not {"candidate", "baseline"} <= scores.keys() <= set(MODELS):
        raise EvaluationError(
            f"scores are of {', '.join(sorted(scores)) or 'no model'}; expected candidate and baseline, and "
            f"champion when there is one."
        )
    checked = {m: validated(task, y_true, scores[m], classes) for m in MODELS if m in scores}
    y, arrays = checked["candidate"][0], {model: score for model, (_, score) in checked.items()}
    codes = None if classes is None else range(len(classes))
    block, n_blocks = block_codes(blocks, y.size)
    labels = ("0", "1") if classes is None else tuple(str(label) for label in classes)
    first, last, order = _period(event_time, block, n_blocks)
    drawn = block_bootstrap(
        task=task,
        y_true=y,
        scores=arrays,
        blocks=block,
        metrics=metrics,
        classes=codes,
        replicates=replicates,
        seed=seed,
    )
    slices = None
    if slice_columns is not None and slice_columns.shape[1]:
        slices = slice_table(
            task=task,
            y_true=y,
            y_score=arrays["candidate"],
            blocks=block,
            columns=slice_columns,
            metric=metrics[0],
            classes=codes,
            confidence=confidence,
            replicates=replicates,
            seed=seed,
        )
    if task == "regression":
        details = _regression(y, arrays, block, _block_names(blocks), order)
    else:
        details = _classification(task, y, arrays, block, labels)
    return EvaluationReport(
        task=task,
        n_rows=y.size,
        n_blocks=n_blocks,
        confidence=confidence,
        replicates=replicates,
        seed=seed,
        first_event=first,
        last_event=last,
        metrics=tuple(metrics),
        models=tuple(arrays),
        estimates=tuple(
            Estimate(model=m, metric=k, interval=drawn.interval(m, k, confidence=confidence))
            for m, k in itertools.product(arrays, metrics)
        ),
        differences=paired_differences(drawn, arrays, metrics, confidence=confidence),
        slices=slices,
        **details,
    )
