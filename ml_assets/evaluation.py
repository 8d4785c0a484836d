"""The evaluation of a candidate beside champion and baseline on the same untouched rows."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_assets.blocks import block_codes
from ml_assets.bootstrap import Replicates, block_bootstrap
from ml_assets.calibration import Calibration, calibration_table, top_class
from ml_assets.comparison import MODELS, paired_differences, require_models
from ml_assets.errors import EvaluationError
from ml_assets.evaluation_report import (
    BlockResidual,
    ConfusionTable,
    Curve,
    Estimate,
    EvaluationReport,
    Heatmap,
    Histogram,
)
from ml_assets.metric_values import Ranking
from ml_assets.metrics import Floats, Task, validated
from ml_assets.slices import SliceTable, slice_table

if TYPE_CHECKING:
    import pandas as pd

MAX_CURVE_POINTS, HISTOGRAM_BINS, HEATMAP_BINS = 200, 20, 30


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Checked rows of one evaluation: labels, scores by model, and the number of each row's block."""

    task: Task
    y: NDArray
    scores: Mapping[str, Floats]
    block: NDArray[np.int64]
    n_blocks: int
    n_classes: int | None

    @property
    def codes(self) -> Sequence[int] | None:
        """Return the classes as `validated` encoded them."""
        return None if self.n_classes is None else range(self.n_classes)

    def bootstrap(self, metrics: Sequence[str], replicates: int, seed: int) -> Replicates:
        """Return every metric of every model on the same resamplings."""
        return block_bootstrap(
            task=self.task,
            y_true=self.y,
            scores=self.scores,
            blocks=self.block,
            metrics=metrics,
            classes=self.codes,
            replicates=replicates,
            seed=seed,
        )

    def slices(self, columns: "pd.DataFrame", metric: str, confidence: float, replicates: int, seed: int) -> SliceTable:
        """Return one metric of the candidate on parts of the rows."""
        return slice_table(
            task=self.task,
            y_true=self.y,
            y_score=self.scores["candidate"],
            blocks=self.block,
            columns=columns,
            metric=metric,
            classes=self.codes,
            confidence=confidence,
            replicates=replicates,
            seed=seed,
        )


def _checked(
    task: Task,
    y_true: ArrayLike,
    scores: Mapping[str, ArrayLike],
    blocks: ArrayLike,
    classes: Sequence[object] | None,
) -> _Rows:
    require_models(scores)
    checked = {m: validated(task, y_true, scores[m], classes) for m in MODELS if m in scores}
    y = checked["candidate"][0]
    block, n_blocks = block_codes(blocks, y.size)
    return _Rows(
        task=task,
        y=y,
        scores={model: score for model, (_, score) in checked.items()},
        block=block,
        n_blocks=n_blocks,
        n_classes=None if classes is None else len(classes),
    )


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


def _details(
    rows: _Rows, blocks: ArrayLike, order: NDArray[np.int64], classes: Sequence[object] | None
) -> dict[str, Any]:
    """Return the report's fields that only some tasks have."""
    if rows.task == "regression":
        return _regression(rows.y, rows.scores, rows.block, _block_names(blocks), order)
    labels = ("0", "1") if classes is None else tuple(str(label) for label in classes)
    return _classification(rows.task, rows.y, rows.scores, rows.block, labels)


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
    rows = _checked(task, y_true, scores, blocks, classes)
    first, last, order = _period(event_time, rows.block, rows.n_blocks)
    drawn = rows.bootstrap(metrics, replicates, seed)
    slices = None
    if slice_columns is not None and slice_columns.shape[1]:
        slices = rows.slices(slice_columns, metrics[0], confidence, replicates, seed)
    return EvaluationReport(
        task=task,
        n_rows=rows.y.size,
        n_blocks=rows.n_blocks,
        confidence=confidence,
        replicates=replicates,
        seed=seed,
        first_event=first,
        last_event=last,
        metrics=tuple(metrics),
        models=tuple(rows.scores),
        estimates=tuple(
            Estimate(model=m, metric=k, interval=drawn.interval(m, k, confidence=confidence))
            for m, k in itertools.product(rows.scores, metrics)
        ),
        differences=paired_differences(drawn, rows.scores, metrics, confidence=confidence),
        slices=slices,
        **_details(rows, blocks, order, classes),
    )
