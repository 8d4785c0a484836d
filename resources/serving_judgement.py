"""What was measured of a served model, and the judgement of it by the limits: every problem at once, with numbers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ml_assets.interfaces import ServingLimits, ServingReport
from ml_assets.training import prepare

if TYPE_CHECKING:
    import pandas as pd

LATENCY_ROWS, LATENCY_CALLS = 1_000, 7
SHOWN_COLUMNS = 5

Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a process measured of one model before it ended; what it did not come to is None.

    Attributes:
        problems: What it could not do, a sentence each.
        model_digest: SHA-256 of the model's file.
        n_bytes: Size of the model's file.
        load_seconds: Wall time from the address to the estimator, with the first import of its libraries.
        signature: Input columns by the stored description, with MLflow's types.
        example_scores: Of the input example, shape (n_example,) or (n_example, n_classes).
        scores: Of the rows, shape (n_rows,) or (n_rows, n_classes).
        reversed_scores: Of the rows scored in reversed order, put back in their order.
        half_scores: Of the first half of the rows, scored alone.
        latency_ms: Median milliseconds of scoring `LATENCY_ROWS` rows, the given ones repeated or cut.
    """

    problems: tuple[str, ...] = ()
    model_digest: str | None = None
    n_bytes: int | None = None
    load_seconds: float | None = None
    signature: Mapping[str, str] | None = None
    example_scores: Scores | None = None
    scores: Scores | None = None
    reversed_scores: Scores | None = None
    half_scores: Scores | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a served model should answer, and what that may take.

    Attributes:
        rows: Feature columns, shape (n_rows, n_features).
        scores: Evaluated scores of `rows`, shape (n_rows,) or (n_rows, n_classes).
        task: "binary", "multiclass" or "regression".
        limits: What it may take.
    """

    rows: "pd.DataFrame" = field(repr=False)
    scores: Scores = field(repr=False)
    task: str
    limits: ServingLimits


def judge(measured: Measurement, expected: Expected) -> ServingReport:
    """Return the report on a measurement; what was not measured is not judged, only told by its own problem."""
    problems = [
        *measured.problems,
        *_signature_problems(measured, expected.rows),
        *_limit_problems(measured, expected.limits),
        *_plausibility_problems("input example", measured.example_scores, expected.task),
        *_plausibility_problems("rows", measured.scores, expected.task),
        *_agreement_problems(measured, expected),
        *_independence_problems(measured, expected.limits.score_tolerance),
    ]
    difference = 0.0
    if measured.scores is not None and measured.scores.shape == expected.scores.shape:
        difference = largest_difference(measured.scores, expected.scores)
    example = () if measured.example_scores is None else measured.example_scores.ravel().tolist()
    return ServingReport(
        problems=tuple(problems),
        n_rows=0 if measured.scores is None else len(measured.scores),
        load_seconds=measured.load_seconds or 0.0,
        latency_ms=measured.latency_ms or 0.0,
        n_bytes=measured.n_bytes or 0,
        model_digest=measured.model_digest or "",
        largest_difference=difference,
        example_scores=tuple(example),
    )


def largest_difference(scores: Scores, others: Scores) -> float:
    """Return the largest difference where both are finite; 0.0 when there is no such place.

    >>> largest_difference(np.array([0.5, np.nan]), np.array([0.25, 0.0]))
    0.25
    """
    return float(np.max(_differences(scores, others), initial=0.0))


def _differences(scores: Scores, others: Scores) -> Scores:
    both = np.isfinite(scores) & np.isfinite(others)
    return np.abs(scores[both] - others[both])


def _signature_problems(measured: Measurement, rows: "pd.DataFrame") -> Iterator[str]:
    if measured.signature is None:
        return
    found, declared = column_types(rows), measured.signature
    if missing := [name for name in declared if name not in found]:
        yield f"The rows lack {_named(missing)} of the model's signature."
    if extra := [name for name in found if name not in declared]:
        yield f"The rows have {_named(extra)}, which the model's signature does not have."
    for name, kind in declared.items():
        # "any" is the type of a column that had no value in the input example, "empty" of one without in the rows.
        if name in found and kind != "any" and found[name] not in (kind, "empty"):
            yield f"Column {name!r} is {found[name]} in the rows and {kind} in the model's signature."


def column_types(rows: "pd.DataFrame") -> dict[str, str]:
    """Return MLflow's type of each column as a model is given it; "empty" for text without any value."""
    import pandas as pd

    prepared = prepare(rows)
    return {
        str(name): "double" if values.dtype == "float64" else pd.api.types.infer_dtype(values, skipna=True)
        for name, values in prepared.items()
    }


def _named(columns: list[str]) -> str:
    shown = ", ".join(map(repr, columns[:SHOWN_COLUMNS]))
    more = f" and {len(columns) - SHOWN_COLUMNS} more" if columns[SHOWN_COLUMNS:] else ""
    return f"the column{'s' if len(columns) > 1 else ''} {shown}{more}"


def _limit_problems(measured: Measurement, limits: ServingLimits) -> Iterator[str]:
    if measured.n_bytes is not None and measured.n_bytes > limits.model_mb * 1e6:
        yield f"The model's file has {measured.n_bytes:,} bytes; the limit is {limits.model_mb:g} MB."
    if measured.latency_ms is not None and measured.latency_ms > limits.latency_ms:
        yield (
            f"Scoring {LATENCY_ROWS:,} rows took {measured.latency_ms:.4g} ms (median of {LATENCY_CALLS} calls); "
            f"the limit is {limits.latency_ms:g} ms."
        )


def _plausibility_problems(what: str, scores: Scores | None, task: str) -> Iterator[str]:
    if scores is None:
        return
    if broken := int(np.sum(~np.isfinite(scores))):
        yield f"{broken:,} of {scores.size:,} served scores of the {what} are not finite numbers."
    finite = scores[np.isfinite(scores)]
    outside = finite[(finite < 0) | (finite > 1)]
    if task != "regression" and outside.size:
        yield (
            f"{outside.size:,} of {scores.size:,} served scores of the {what} are no probabilities: they range from "
            f"{finite.min():.6g} to {finite.max():.6g}, expected 0 to 1."
        )


def _agreement_problems(measured: Measurement, expected: Expected) -> Iterator[str]:
    served, evaluated, tolerance = measured.scores, expected.scores, expected.limits.score_tolerance
    if served is None:
        return
    if served.shape != evaluated.shape:
        yield f"The served scores have the shape {served.shape}, the evaluated ones {evaluated.shape}."
        return
    if broken := int(np.sum(~np.isfinite(evaluated))):
        yield f"{broken:,} of {evaluated.size:,} evaluated scores are not finite numbers."
    differences = _differences(served, evaluated)
    if differing := int(np.sum(differences > tolerance)):
        yield (
            f"{differing:,} of {served.size:,} served scores differ from the evaluated ones, by up to "
            f"{np.max(differences):.6g}; the limit is {tolerance:g}."
        )


def _independence_problems(measured: Measurement, tolerance: float) -> Iterator[str]:
    """Yield where a row's score depends on the rows scored with it: such a model serves other scores than evaluated."""
    scores = measured.scores
    if scores is None or measured.reversed_scores is None or measured.half_scores is None:
        return
    for cause, place, others in (
        ("on the order of the rows", "in reversed order", measured.reversed_scores),
        ("on which rows are scored together", "for the first half alone", measured.half_scores),
    ):
        same = scores[: len(others)]
        if same.shape != others.shape:
            yield f"Scores depend {cause}: {place} they have the shape {others.shape}, expected {same.shape}."
        elif (difference := largest_difference(same, others)) > tolerance:
            yield f"Scores depend {cause}: {place} they differ by up to {difference:.6g}; the limit is {tolerance:g}."
