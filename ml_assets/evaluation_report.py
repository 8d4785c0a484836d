"""What an evaluation measured: a report of plain values, and the document that it is stored as."""

import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal

from ml_assets.bootstrap import Interval
from ml_assets.calibration import Calibration
from ml_assets.comparison import Difference
from ml_assets.errors import EvaluationError
from ml_assets.metrics import Task
from ml_assets.slices import SliceTable

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
