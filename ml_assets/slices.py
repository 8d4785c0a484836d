"""How a model does on parts of the rows: slices by the values of columns, and calibration by its score."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_assets.bootstrap import DEFAULT_MIN_BLOCKS, Interval, block_bootstrap, block_codes
from ml_assets.errors import EvaluationError
from ml_assets.metrics import Floats, Task, metric_for, validated

if TYPE_CHECKING:
    import pandas as pd

MISSING, OTHER = "(missing)", "(other)"
"""Labels in brackets, so that no value of a column is mistaken for them."""

MIN_ROWS, MAX_VALUES, N_BINS = 100, 12, 4
"""How columns are cut unless told: see `slice_groups`."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One metric on the rows that share a column's value.

    Attributes:
        column: Column the rows were cut by.
        value: Its value or range in words; "(missing)" and "(other)" are what they say.
        n_rows: Rows in it.
        mean_true: Mean target; the rate of class 1 for binary; for multiclass the share of rows whose most
            likely class is right.
        mean_predicted: Mean score; for multiclass the mean probability of the most likely class.
        metric: Name of the metric.
        interval: The metric with its interval, or None where it has no value.
        reason: Why there is no value; empty when there is one.
    """

    column: str
    value: str
    n_rows: int
    mean_true: float
    mean_predicted: float
    metric: str
    interval: Interval | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class SliceTable:
    """All slices of one evaluation.

    Attributes:
        metric: Name of the metric.
        confidence: Level of each interval after Bonferroni's adjustment.
        family_confidence: Level at which all intervals hold together.
        slices: By column, then by value in order of size (ranges in order of value).
    """

    metric: str
    confidence: float
    family_confidence: float
    slices: tuple[Slice, ...]


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Rows of similar score: what was predicted, and what happened.

    Attributes:
        lower: Smallest score in the bin.
        upper: Largest score in the bin.
        n_rows: Rows in it.
        mean_predicted: Mean score.
        observed_rate: Share of rows of class 1 (for multiclass: whose most likely class is right).
        standard_error: Of the observed rate, over blocks; None when the bin's rows lie in one block.
    """

    lower: float
    upper: float
    n_rows: int
    mean_predicted: float
    observed_rate: float
    standard_error: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A model's calibration table; for multiclass that of its most likely class."""

    model: str
    bins: tuple[CalibrationBin, ...]


def top_class(task: Task, y: NDArray, score: Floats) -> tuple[Floats, Floats]:
    """Return a target and a prediction a row; for multiclass if the top class is right, and how surely."""
    if task != "multiclass":
        return y.astype(np.float64), score
    return (score.argmax(axis=1) == y).astype(np.float64), score.max(axis=1)


def _words(value: float) -> str:
    whole = float(value).is_integer() and abs(value) < 1e9
    return str(int(value)) if whole else f"{value:.4g}"


def _numeric_groups(values: "pd.Series", n_bins: int) -> "pd.Series":
    """Return for each value the words of its quantile range; values equal to an inner edge go below it."""
    import pandas as pd

    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, n_bins + 1)))
    code = np.searchsorted(edges[1:-1], values.to_numpy(), side="left")
    words = {}
    for number in np.unique(code):
        inside = values[code == number]
        low, high = inside.min(), inside.max()
        words[number] = _words(low) if low == high else f"{_words(low)} – {_words(high)}"
    return pd.Series([words[number] for number in code], index=values.index, dtype=object)


def _column_groups(
    column: "pd.Series", *, min_rows: int, max_values: int, n_bins: int
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the label and the mask of each slice of one column."""
    import pandas as pd

    missing = column.isna().to_numpy()
    present = column[~missing]
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    cut = numeric and present.nunique() > n_bins
    labels = np.full(len(column), MISSING, dtype=object)
    if cut:
        labels[~missing] = _numeric_groups(present.astype(np.float64), n_bins)
        order = dict.fromkeys(labels[~missing][np.argsort(present.to_numpy(dtype=np.float64), kind="stable")])
        kept = list(order)
    else:
        words = present.map(lambda value: _words(value) if isinstance(value, float) else str(value))
        labels[~missing] = words.to_numpy(dtype=object)
        counts = sorted(words.value_counts().items(), key=lambda item: (-item[1], str(item[0])))
        kept = [str(word) for word, count in counts[:max_values] if count >= min_rows]
        labels[~missing & ~np.isin(labels, np.array(kept, dtype=object))] = OTHER
    for label in [*kept, OTHER, MISSING]:
        mask = labels == label
        if mask.any():
            yield label, mask


def slice_groups(
    columns: "pd.DataFrame",
    *,
    min_rows: int = MIN_ROWS,
    max_values: int = MAX_VALUES,
    n_bins: int = N_BINS,
) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Return (column, value in words, mask of its rows) of every slice; each row is in one slice of each column.

    Args:
        columns: Numbers with more than `n_bins` values are cut at quantiles, the rest are categories.
        min_rows: Values with fewer rows are pooled as "(other)".
        max_values: So many values of a category at most; the rarer are pooled as well.
        n_bins: Quantile ranges of a numeric column.
    """
    return [
        (str(name), label, mask)
        for name, column in columns.items()
        for label, mask in _column_groups(column, min_rows=min_rows, max_values=max_values, n_bins=n_bins)
    ]


def slice_table(
    *,
    task: Task,
    y_true: ArrayLike,
    y_score: ArrayLike,
    blocks: ArrayLike,
    columns: "pd.DataFrame",
    metric: str,
    classes: Sequence[object] | None = None,
    confidence: float = 0.95,
    replicates: int = 500,
    seed: int = 0,
    min_rows: int = MIN_ROWS,
    max_values: int = MAX_VALUES,
    n_bins: int = N_BINS,
    min_blocks: int = DEFAULT_MIN_BLOCKS,
) -> SliceTable:
    """Return one metric on every slice of every column, with intervals that hold together.

    The level is adjusted by Bonferroni: each of k intervals has confidence 1 − (1 − confidence) / k. That is
    beyond what the quantiles of some hundred replicates can tell, so a slice's interval is estimate ± t·SE.

    Args:
        task: What kind of target it is.
        y_true: Shape (n,): as for `block_bootstrap`.
        y_score: Shape (n,) or (n, n_classes).
        blocks: Shape (n,): block (day) of each row.
        columns: n rows; this and the ways to cut are as for `slice_groups`.
        metric: Name in `METRICS`.
        classes: For multiclass the label of each score column.
        confidence: Level for all slices together.
        replicates: Bootstrap resamplings.
        seed: Of the bootstrap.
        min_rows: Fewest rows of a value of its own.
        max_values: Most values of a category.
        n_bins: Quantile ranges of a numeric column.
        min_blocks: Fewest blocks an interval is given for.

    Raises:
        EvaluationError: If the arrays are wrong. A slice without a value is no error: it carries the reason.
    """
    metric_for(metric, task)
    y, score = validated(task, y_true, y_score, classes)
    block, _ = block_codes(blocks, y.size)
    if len(columns) != y.size:
        raise EvaluationError(f"the slice columns have {len(columns)} rows, but y_true has {y.size}.")
    groups = slice_groups(columns, min_rows=min_rows, max_values=max_values, n_bins=n_bins)
    level = 1.0 - (1.0 - confidence) / max(1, len(groups))
    target, prediction = top_class(task, y, score)

    def measured(column: str, label: str, mask: NDArray[np.bool_]) -> Slice:
        interval, reason = None, ""
        try:
            interval = block_bootstrap(
                task=task,
                y_true=y[mask],
                scores={"candidate": score[mask]},
                blocks=block[mask],
                metrics=[metric],
                classes=None if classes is None else range(len(classes)),
                replicates=replicates,
                seed=seed,
                min_blocks=min_blocks,
            ).interval("candidate", metric, confidence=level, method="student")
        except EvaluationError as error:
            reason = str(error)
        return Slice(
            column=column,
            value=label,
            n_rows=int(mask.sum()),
            mean_true=float(target[mask].mean()),
            mean_predicted=float(prediction[mask].mean()),
            metric=metric,
            interval=interval,
            reason=reason,
        )

    slices = tuple(measured(*group) for group in groups)
    return SliceTable(metric=metric, confidence=level, family_confidence=confidence, slices=slices)


def rate_with_error(target: Floats, block: NDArray[np.int64]) -> tuple[float, float | None]:
    """Return the mean of `target` and its standard error over blocks, None for one block.

    The mean over rows is a ratio of block totals; its error is the linearised one of Cochran (1977),
    "Sampling Techniques", chapter 6.
    """
    counts = np.bincount(block)
    totals = np.bincount(block, target)[counts > 0]
    counts = counts[counts > 0]
    mean = float(totals.sum() / counts.sum())
    if counts.size < 2:
        return mean, None
    spread = ((totals - mean * counts) ** 2).sum() * counts.size / (counts.size - 1)
    return mean, float(np.sqrt(spread) / counts.sum())


def calibration_table(
    target: Floats, score: Floats, block: NDArray[np.int64], *, n_bins: int = 10
) -> tuple[CalibrationBin, ...]:
    """Return the rows cut at quantiles of their score, from low to high; equal scores stay together.

    Args:
        target: Shape (n,): 0 or 1.
        score: Shape (n,): probability that it is 1.
        block: Shape (n,): number of the row's block.
        n_bins: Bins asked for; fewer when scores repeat.
    """
    edges = np.unique(np.quantile(score, np.linspace(0.0, 1.0, n_bins + 1)))
    code = np.searchsorted(edges[1:-1], score, side="left")
    bins = []
    for number in np.unique(code):
        inside = code == number
        rate, error = rate_with_error(target[inside], block[inside])
        bins.append(
            CalibrationBin(
                lower=float(score[inside].min()),
                upper=float(score[inside].max()),
                n_rows=int(inside.sum()),
                mean_predicted=float(score[inside].mean()),
                observed_rate=rate,
                standard_error=error,
            )
        )
    return tuple(bins)
