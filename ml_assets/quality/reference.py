"""What a champion was when it was chosen: its training partitions, importances, scores, errors and performance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.errors import EvaluationError
from ml_assets.metrics import Floats, Task
from ml_assets.profiles.document import from_document as profile_of
from ml_assets.profiles.document import to_document as profile_document
from ml_assets.profiles.profile import Profile
from ml_assets.quality.gain import Gain, gains
from ml_assets.quality.score_bins import ScoreBins, score_bins

ALL_ROWS = ""
"""Name of the part that holds all rows."""

BLOCK_DAYS = 3
"""Days that hang together at least in the errors of the reference: it is frozen, whatever a policy says."""

DOCUMENT_FORMAT = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferencePart:
    """The champion on its evaluation's rows, or on those of one group.

    Attributes:
        n_rows: Rows.
        n_days: Local days.
        gains: Metric → value and gain over the best constant.
        unmeasured: Metric → why it has no interval.
        bins: What happened by score: one for binary and regression, one for each class of multiclass.
    """

    n_rows: int
    n_days: int
    gains: Mapping[str, Gain]
    unmeasured: Mapping[str, str]
    bins: tuple[ScoreBins, ...]

    def to_document(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "n_rows": self.n_rows,
            "n_days": self.n_days,
            "gains": {name: gain.to_document() for name, gain in self.gains.items()},
            "unmeasured": dict(self.unmeasured),
            "bins": [bins.to_document() for bins in self.bins],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "ReferencePart":
        """Return the part that gave the document."""
        return cls(
            n_rows=document["n_rows"],
            n_days=document["n_days"],
            gains={name: Gain.from_document(gain) for name, gain in document["gains"].items()},
            unmeasured=dict(document["unmeasured"]),
            bins=tuple(ScoreBins.from_document(bins) for bins in document["bins"]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """What a champion's later partitions are compared with; frozen with its version.

    Attributes:
        version: Registered version of the champion.
        partition: Time partition that it was evaluated and promoted in.
        model_digest: SHA-256 of the stored model.
        evaluation: Data version of its evaluation.
        partitions: Sorted (partition, data version) of the feature partitions it was trained on.
        importance: Feature column → share of the permutation importance, ≥ 0, of sum 1.
        importance_metric: Metric whose loss the importance is; empty when all columns were given the same share,
            since none of them mattered.
        scores: Profile of its scores on its evaluation's rows, by column `score` or `score_<class>`.
        classes: For multiclass its classes in words, in the order of its scores; else empty.
        parts: Group's value → the champion on its rows; `ALL_ROWS` → on all rows.
    """

    version: str
    partition: str
    model_digest: str
    evaluation: str
    partitions: tuple[tuple[str, str], ...]
    importance: Mapping[str, float]
    importance_metric: str
    scores: Profile
    classes: tuple[str, ...]
    parts: Mapping[str, ReferencePart]

    def part(self, group: str | None) -> ReferencePart:
        """Return the part of a group; that of all rows when there is none, or the evaluation had no row of it."""
        return self.parts.get(group or ALL_ROWS, self.parts[ALL_ROWS])

    def document(self) -> dict[str, Any]:
        """Return the reference as JSON-ready values; equal references give equal documents."""
        return {
            "format": DOCUMENT_FORMAT,
            "version": self.version,
            "partition": self.partition,
            "model_digest": self.model_digest,
            "evaluation": self.evaluation,
            "partitions": [list(pair) for pair in self.partitions],
            "importance": dict(self.importance),
            "importance_metric": self.importance_metric,
            "scores": profile_document(self.scores),
            "classes": list(self.classes),
            "parts": {name: part.to_document() for name, part in self.parts.items()},
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Reference":
        """Return the reference that gave the document; raises EvaluationError for another format."""
        if document.get("format") != DOCUMENT_FORMAT:
            raise EvaluationError(
                f"the champion's reference has format {document.get('format')!r}; expected {DOCUMENT_FORMAT}. Another "
                "release wrote it: delete it, and it is built again."
            )
        return cls(
            version=document["version"],
            partition=document["partition"],
            model_digest=document["model_digest"],
            evaluation=document["evaluation"],
            partitions=tuple((partition, version) for partition, version in document["partitions"]),
            importance=dict(document["importance"]),
            importance_metric=document["importance_metric"],
            scores=profile_of(document["scores"]),
            classes=tuple(document["classes"]),
            parts={name: ReferencePart.from_document(part) for name, part in document["parts"].items()},
        )


def reference_part(
    *,
    task: Task,
    y: NDArray[Any],
    score: Floats,
    days: NDArray[np.datetime64],
    metrics: Sequence[str],
    classes: Sequence[str] = (),
) -> ReferencePart:
    """Measure a champion on rows of its evaluation.

    Args:
        task: What kind of target it is.
        y: Labels as `metrics.validated` returns them, shape (n,).
        score: Shape (n,), or (n, n_classes).
        days: Local day of each row, datetime64[D], shape (n,).
        metrics: Names in `METRICS`.
        classes: For multiclass the names of the score columns.
    """
    measured, unmeasured = gains(task=task, y=y, score=score, days=days, metrics=metrics, block_days=BLOCK_DAYS)
    return ReferencePart(
        n_rows=y.size,
        n_days=int(np.unique(days).size),
        gains=measured,
        unmeasured=unmeasured,
        bins=bins_of(task, y, score, days, classes),
    )


def bins_of(
    task: Task, y: NDArray[Any], score: Floats, days: NDArray[np.datetime64], classes: Sequence[str] = ()
) -> tuple[ScoreBins, ...]:
    """Return what happened by score: the label of a classifier, the errors of a regression."""
    if task == "multiclass":
        return tuple(
            score_bins(np.ascontiguousarray(score[:, k]), days, {"y": (y == k).astype(np.float64)}, label=name)
            for k, name in enumerate(classes)
        )
    if task == "binary":
        return (score_bins(score, days, {"y": y.astype(np.float64)}),)
    error = score - y
    values = {"error": error, "absolute_error": np.abs(error), "squared_error": error**2, "absolute_target": np.abs(y)}
    return (score_bins(score, days, values),)
