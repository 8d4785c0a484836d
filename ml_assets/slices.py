"""How a model does on parts of the rows: slices by the values of columns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_assets.blocks import block_codes
from ml_assets.bootstrap import DEFAULT_MIN_BLOCKS, Interval, block_bootstrap
from ml_assets.calibration import top_class
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


def require_slice_rows(columns: "pd.DataFrame", n_rows: int) -> None:
    """Raise EvaluationError unless the columns to slice by have a row for each label."""
    if len(columns) != n_rows:
        raise EvaluationError(f"the slice columns have {len(columns)} rows, but y_true has {n_rows}.")


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


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Checked rows of one table: labels, scores, the number of each row's block, and how intervals are drawn."""

    task: Task
    y: NDArray
    score: Floats
    block: NDArray[np.int64]
    n_classes: int | None
    metric: str
    confidence: float
    replicates: int
    seed: int
    min_blocks: int

    def measured(self, column: str, value: str, mask: NDArray[np.bool_]) -> Slice:
        """Return the metric on the rows of the mask, or why it has no value there."""
        interval, reason = None, ""
        try:
            interval = self._interval(mask)
        except EvaluationError as error:
            reason = str(error)
        target, prediction = top_class(self.task, self.y[mask], self.score[mask])
        return Slice(
            column=column,
            value=value,
            n_rows=int(mask.sum()),
            mean_true=float(target.mean()),
            mean_predicted=float(prediction.mean()),
            metric=self.metric,
            interval=interval,
            reason=reason,
        )

    def _interval(self, mask: NDArray[np.bool_]) -> Interval:
        drawn = block_bootstrap(
            task=self.task,
            y_true=self.y[mask],
            scores={"candidate": self.score[mask]},
            blocks=self.block[mask],
            metrics=[self.metric],
            classes=None if self.n_classes is None else range(self.n_classes),
            replicates=self.replicates,
            seed=self.seed,
            min_blocks=self.min_blocks,
        )
        return drawn.interval("candidate", self.metric, confidence=self.confidence, method="student")


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
    require_slice_rows(columns, y.size)
    groups = slice_groups(columns, min_rows=min_rows, max_values=max_values, n_bins=n_bins)
    rows = _Rows(
        task=task,
        y=y,
        score=score,
        block=block,
        n_classes=None if classes is None else len(classes),
        metric=metric,
        confidence=1.0 - (1.0 - confidence) / max(1, len(groups)),
        replicates=replicates,
        seed=seed,
        min_blocks=min_blocks,
    )
    slices = tuple(rows.measured(*group) for group in groups)
    return SliceTable(metric=metric, confidence=rows.confidence, family_confidence=confidence, slices=slices)
