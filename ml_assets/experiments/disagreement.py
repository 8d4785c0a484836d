"""How far a shadow's scores are from the champion's on the same rows, without waiting for a label."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.arrow import compute_functions
from ml_assets.blocks import block_codes
from ml_assets.calibration import rate_with_error
from ml_assets.errors import EvaluationError
from ml_assets.metrics import LABEL_THRESHOLD, Floats, Task
from ml_assets.slices import MAX_VALUES, MIN_ROWS, N_BINS, slice_groups

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

DOCUMENT_FORMAT = 1
TOLERANCE = 0.05
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The share of rows on which the models disagree, on all rows or on one slice.

    Attributes:
        column: Column the rows were cut by; empty for all rows.
        value: Its value or range in words; "(missing)" and "(other)" are what they say.
        n_rows: Rows in it.
        n_days: Days they lie on.
        n_disagreeing: Rows on which the models disagree.
        rate: Their share.
        standard_error: Of the rate, over days; None when all rows lie on one day.
    """

    column: str
    value: str
    n_rows: int
    n_days: int
    n_disagreeing: int
    rate: float
    standard_error: float | None


@dataclass(frozen=True, kw_only=True)
class Shift:
    """How one score moved: the shadow's minus the champion's, row by row.

    Attributes:
        score: Name of the champion's column.
        mean: Mean shift.
        mean_absolute: Mean size of the shift.
        standard_error: Of the mean shift, over days; None for one day.
        quantiles: The shift's quantiles at `QUANTILES`.
        rank_correlation: Spearman's, of the two scores; None when one of them is the same on all rows.
    """

    score: str
    mean: float
    mean_absolute: float
    standard_error: float | None
    quantiles: tuple[float, ...]
    rank_correlation: float | None


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A shadow against the champion on the same rows.

    Attributes:
        task: What kind of target it is.
        rule: When two scores disagree, in words.
        overall: The rate on all rows.
        slices: The rate by column, then by value.
        shifts: One for each score column.
        examples: Rows with the largest shifts, to show: row id, event time, slice columns, both models' scores.
    """

    task: Task
    rule: str
    overall: Rate
    slices: tuple[Rate, ...]
    shifts: tuple[Shift, ...]
    examples: "pd.DataFrame"

    def to_document(self) -> dict[str, Any]:
        """Return the report as JSON-ready values, without the examples: rows may be confidential."""
        return {
            "format": DOCUMENT_FORMAT,
            "task": self.task,
            "rule": self.rule,
            "overall": asdict(self.overall),
            "slices": [asdict(part) for part in self.slices],
            "shifts": [asdict(shift) | {"quantiles": list(shift.quantiles)} for shift in self.shifts],
            "quantiles": list(QUANTILES),
        }

    def frames(self) -> "Mapping[str, pd.DataFrame]":
        """Return small tables to show, by title: the rates, the shifts, and the rows with the largest shifts."""
        import pandas as pd

        rates = [
            {
                "column": part.column or "(all rows)",
                "value": part.value,
                "rows": part.n_rows,
                "disagreeing": part.n_disagreeing,
                "rate": part.rate,
                "standard error": part.standard_error,
            }
            for part in (self.overall, *self.slices)
        ]
        shifts = [
            {"score": shift.score, "mean": shift.mean, "mean size": shift.mean_absolute}
            | {f"{100 * level:g} %": value for level, value in zip(QUANTILES, shift.quantiles, strict=True)}
            | {"rank correlation": shift.rank_correlation}
            for shift in self.shifts
        ]
        return {
            "disagreement": pd.DataFrame(rates),
            "score shift": pd.DataFrame(shifts),
            "largest shifts": self.examples,
        }


def compare(
    table: "pa.Table",
    *,
    task: Task,
    classes: Sequence[str] = (),
    slices: Sequence[str] = (),
    timezone: str = "UTC",
    tolerance: float = TOLERANCE,
    n_examples: int = 20,
    min_rows: int = MIN_ROWS,
    max_values: int = MAX_VALUES,
    n_bins: int = N_BINS,
) -> Disagreement:
    """Compare the scores of champion and shadow on the same rows.

    Two scores disagree when they name another class (binary: on different sides of 0.5; multiclass: another most
    likely class), or, for regression, when they are more than `tolerance` of the larger one apart. Standard errors
    are over days, as rows of one day are not independent; those of slices are not adjusted for their number.

    Args:
        table: Columns `row_id`, `event_time` and the slices, with `score` and `shadow_score`; for multiclass
            `score_<class>` and `shadow_score_<class>` of each class.
        task: What kind of target it is.
        classes: For multiclass the classes, as they are written in the columns' names.
        slices: Columns to cut the rows by.
        timezone: In which `event_time` is cut into days.
        tolerance: Relative difference of two predictions that does not matter, ≥ 0; for regression only.
        n_examples: Rows with the largest shifts to keep.
        min_rows: Values of a slice column with fewer rows are pooled as "(other)".
        max_values: So many values of a slice column at most.
        n_bins: Quantile ranges of a numeric slice column.

    Raises:
        EvaluationError: If a column is missing, a score is missing or infinite, or there are no rows.
    """
    if tolerance < 0 or not np.isfinite(tolerance):
        raise EvaluationError(f"tolerance is {tolerance}; expected a relative difference ≥ 0, such as 0.05.")
    names = _score_columns(task, classes)
    _require_columns(table, [*names, *(f"shadow_{n}" for n in names), "row_id", "event_time", *slices])
    champion = _scores(table, names)
    shadow = _scores(table, [f"shadow_{name}" for name in names])
    differs = _differs(task, champion, shadow, tolerance)
    block = _day_codes(table, timezone)
    columns = table.select(list(dict.fromkeys(slices))).to_pandas()
    groups = slice_groups(columns, min_rows=min_rows, max_values=max_values, n_bins=n_bins)
    parts = tuple(_rate(column, label, differs[mask], block[mask]) for column, label, mask in groups)
    size = np.abs(shadow - champion).sum(axis=1)
    largest = np.argsort(-size, kind="stable")[:n_examples]
    shown = list(dict.fromkeys(["row_id", "event_time", *slices, *names, *(f"shadow_{n}" for n in names)]))
    return Disagreement(
        task=task,
        rule=_rule(task, tolerance),
        overall=_rate("", "all rows", differs, block),
        slices=parts,
        shifts=tuple(_shift(name, champion[:, i], shadow[:, i], block) for i, name in enumerate(names)),
        examples=table.select(shown).take(largest).to_pandas(),
    )


def _score_columns(task: Task, classes: Sequence[str]) -> list[str]:
    if task != "multiclass":
        return ["score"]
    if len(classes) < 2:
        raise EvaluationError(
            f"classes is {list(classes)}; a multiclass comparison needs the classes that score columns are named by."
        )
    return [f"score_{label}" for label in classes]


def _require_columns(table: "pa.Table", names: Sequence[str]) -> None:
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise EvaluationError(
            f"the predictions lack {', '.join(missing)}; they have {', '.join(table.column_names)}. Score the rows "
            f"with the shadow beside the champion, and name slices that are among the kept columns."
        )
    if table.num_rows == 0:
        raise EvaluationError("there are no rows to compare; check the partition.")


def _scores(table: "pa.Table", names: Sequence[str]) -> Floats:
    """Return the columns side by side, shape (n, len(names))."""
    scores = np.column_stack([table[name].to_numpy().astype(np.float64) for name in names])
    for name, column in zip(names, scores.T, strict=True):
        n_bad = column.size - int(np.isfinite(column).sum())
        if n_bad:
            raise EvaluationError(
                f"{name} holds {n_bad} missing or infinite values in {column.size}; expected a score for each row. "
                f"Look for missing values in that model's output."
            )
    return scores


def _differs(task: Task, champion: Floats, shadow: Floats, tolerance: float) -> NDArray[np.bool_]:
    if task == "multiclass":
        return champion.argmax(axis=1) != shadow.argmax(axis=1)
    first, second = champion[:, 0], shadow[:, 0]
    if task == "binary":
        return (first >= LABEL_THRESHOLD) != (second >= LABEL_THRESHOLD)
    return np.abs(first - second) > tolerance * np.maximum(np.abs(first), np.abs(second))


def _rule(task: Task, tolerance: float) -> str:
    return {
        "binary": f"on different sides of {LABEL_THRESHOLD:g}",
        "multiclass": "another most likely class",
        "regression": f"more than {100 * tolerance:g} % of the larger prediction apart",
    }[task]


def _day_codes(table: "pa.Table", timezone: str) -> NDArray[np.int64]:
    import pyarrow as pa

    pc = compute_functions()
    local = pc.local_timestamp(table["event_time"].cast(pa.timestamp("us", tz=timezone)))
    return block_codes(local.to_numpy().astype("datetime64[D]"), table.num_rows)[0]


def _rate(column: str, value: str, differs: NDArray[np.bool_], block: NDArray[np.int64]) -> Rate:
    rate, error = rate_with_error(differs.astype(np.float64), block)
    return Rate(
        column=column,
        value=value,
        n_rows=differs.size,
        n_days=np.unique(block).size,
        n_disagreeing=int(differs.sum()),
        rate=rate,
        standard_error=error,
    )


def _shift(name: str, champion: Floats, shadow: Floats, block: NDArray[np.int64]) -> Shift:
    moved = shadow - champion
    mean, error = rate_with_error(moved, block)
    return Shift(
        score=name,
        mean=mean,
        mean_absolute=float(np.abs(moved).mean()),
        standard_error=error,
        quantiles=tuple(np.quantile(moved, QUANTILES).tolist()),
        rank_correlation=_rank_correlation(champion, shadow),
    )


def _rank_correlation(first: Floats, second: Floats) -> float | None:
    """Return Spearman's correlation with ties at their mean rank."""
    import pandas as pd

    # Ranks of n rows have the mean (n + 1) / 2, ties or not.
    one, two = (pd.Series(v).rank().to_numpy(dtype=np.float64) - (v.size + 1) / 2 for v in (first, second))
    spread = float((one @ one) * (two @ two))
    return float(np.clip((one @ two) / np.sqrt(spread), -1.0, 1.0)) if spread > 0 else None
