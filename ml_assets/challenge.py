"""Champion against challenger on the same later rows: promote, keep, or undecided, and the sentences that say why.

Three questions are put to one set of resamplings. Is the candidate better than its reference, or worse by less than
the margin? Is it worse on a guarded slice? Are its probabilities worth more than the prior rate? Every interval is
the estimate ± t·SE over blocks of days (see `bootstrap`). A candidate may be promoted only when the first is
answered with yes and the others are not answered against it. What the rows cannot answer stays undecided.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_assets.blocks import block_codes, blocks_of_days
from ml_assets.bootstrap import DEFAULT_MIN_BLOCKS, Interval, block_bootstrap
from ml_assets.challenge_result import (
    CalibrationGuard,
    CalibrationMetric,
    ChallengeOutcome,
    ChallengeResult,
    ChallengeRules,
    Reference,
    SliceGuard,
)
from ml_assets.comparison import BASELINE, CANDIDATE, CHAMPION, Comparison, decide, require_models
from ml_assets.errors import EvaluationError
from ml_assets.metrics import Floats, Task, validated
from ml_assets.slices import require_slice_rows, slice_groups

if TYPE_CHECKING:
    import pandas as pd

NAMED_SLICES = 5  # in a reason; the rest are counted


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Checked rows of one challenge: labels, scores by model, and the number of each row's block."""

    task: Task
    y: NDArray
    scores: Mapping[str, Floats]
    block: NDArray[np.int64]
    n_classes: int | None
    rules: ChallengeRules

    def improvement(
        self, metric: str, reference: Reference, confidence: float, mask: NDArray[np.bool_] | slice = slice(None)
    ) -> Interval:
        """Return how much better the candidate is on the chosen rows; one seed, so the same blocks are drawn alike."""
        drawn = block_bootstrap(
            task=self.task,
            y_true=self.y[mask],
            scores={model: self.scores[model][mask] for model in (CANDIDATE, reference)},
            blocks=self.block[mask],
            metrics=[metric],
            classes=None if self.n_classes is None else range(self.n_classes),
            replicates=self.rules.replicates,
            seed=self.rules.seed,
        )
        return drawn.improvement(metric, CANDIDATE, reference, confidence=confidence, method="student")


def challenge(
    *,
    task: Task,
    y_true: ArrayLike,
    scores: Mapping[str, ArrayLike],
    days: ArrayLike,
    columns: "pd.DataFrame | None",
    rules: ChallengeRules,
    classes: Sequence[object] | None = None,
) -> ChallengeResult:
    """Decide between a candidate and the champion, or the baseline when there is no champion.

    With a champion: "promote" when the improvement's interval is above −margin, no guarded slice is worse and the
    calibration is held; "keep" when it is below −margin, or a slice or the calibration is surely worse; else
    "undecided". Without one the reference is the baseline and the margin 0: what is not surely better than knowing
    nothing is not promoted.

    Args:
        task: What kind of target it is.
        y_true: Shape (n,): 0 and 1 for binary, labels for multiclass, numbers for regression.
        scores: "candidate", "baseline" and, when there is one, "champion" → shape (n,): probability of class 1 or
            prediction; (n, n_classes) for multiclass.
        days: Shape (n,), datetime64[D]: local day of each row.
        columns: n rows of the columns whose slices are guarded; None or without columns guards none.
        rules: What the policy asks.
        classes: For multiclass the label of each score column.

    Raises:
        EvaluationError: If the rows make fewer than 5 blocks, the metric has no value or no interval on them, or an
            array is wrong. A slice that cannot be measured is no error: it carries the reason.
    """
    rows = _checked(task, y_true, scores, days, columns, rules, classes)
    reference: Reference = CHAMPION if CHAMPION in rows.scores else BASELINE
    improvement = rows.improvement(rules.metric, reference, rules.confidence)
    comparison = decide(improvement, margin=rules.margin if reference == CHAMPION else 0.0)
    calibration = _guarded_calibration(rows) if rules.calibration_guard and task != "regression" else None
    slices = () if columns is None or reference == BASELINE else _guarded_slices(rows, columns)
    outcome = _outcome(reference, comparison, slices, calibration)
    more_days, more_rows = _missing(rows, np.asarray(days), comparison) if outcome == "undecided" else (None, None)
    return ChallengeResult(
        reference=reference,
        outcome=outcome,
        reason=_reason(reference, outcome, comparison, slices, calibration, rules, (more_days, more_rows)),
        comparison=comparison,
        slices=slices,
        calibration=calibration,
        more_days=more_days,
        more_rows=more_rows,
        rules=rules,
    )


def _checked(
    task: Task,
    y_true: ArrayLike,
    scores: Mapping[str, ArrayLike],
    days: ArrayLike,
    columns: "pd.DataFrame | None",
    rules: ChallengeRules,
    classes: Sequence[object] | None,
) -> _Rows:
    require_models(scores)
    checked = {model: validated(task, y_true, score, classes) for model, score in scores.items()}
    y = checked[CANDIDATE][0]
    block_codes(days, y.size)  # refuses a wrong shape and missing days
    if columns is not None:
        require_slice_rows(columns, y.size)
    block = blocks_of_days(days, rules.block_days)
    n_blocks, day = np.unique(block).size, np.asarray(days, dtype="datetime64[D]")
    if n_blocks < DEFAULT_MIN_BLOCKS:
        raise EvaluationError(
            f"the {y.size} rows from {day.min()} to {day.max()} make {n_blocks} block{'s' * (n_blocks != 1)} of "
            f"{rules.block_days} day{'s' * (rules.block_days != 1)}; a comparison needs at least {DEFAULT_MIN_BLOCKS}. "
            f"Evaluate on longer partitions, or lower comparison.block_days in the policy if days that far apart are "
            f"independent."
        )
    return _Rows(
        task=task,
        y=y,
        scores={model: score for model, (_, score) in checked.items()},
        block=block,
        n_classes=None if classes is None else len(classes),
        rules=rules,
    )


def _calibration_metric(rows: _Rows) -> CalibrationMetric:
    """Return the log loss, or the Brier score where the log loss is infinite.

    It is infinite when the candidate or the prior gives probability 0 to a class that came true. The metric itself is
    clipped then, and one such row would outweigh all others. More than two classes have no Brier score here: they
    keep the clipped log loss.
    """
    if rows.task != "binary":
        return "log_loss"
    given = [np.where(rows.y == 1, rows.scores[model], 1.0 - rows.scores[model]) for model in (CANDIDATE, BASELINE)]
    return "log_loss" if min(float(g.min()) for g in given) > 0.0 else "brier_score"


def _guarded_calibration(rows: _Rows) -> CalibrationGuard:
    metric = _calibration_metric(rows)
    improvement = rows.improvement(metric, BASELINE, rows.rules.confidence)
    worse = improvement.upper < 0
    unsure = "better than" if improvement.lower > 0 else "not surely worse than"
    claim = "worth less than" if worse else unsure
    return CalibrationGuard(
        metric=metric,
        outcome="worse" if worse else "held",
        improvement=improvement,
        reason=f"the improvement of {metric} is {_numbers(improvement)}: {claim} the prior rate.",
    )


def _guarded_slices(rows: _Rows, columns: "pd.DataFrame") -> tuple[SliceGuard, ...]:
    """Return the candidate against the champion on every slice, at a level that holds for all of them together.

    The correction is Bonferroni's: each of k intervals has confidence 1 − (1 − confidence) / k, whatever becomes of
    the others. Holm's would reject a little more often, but gives tests without intervals to show beside them.
    """
    groups = slice_groups(columns)
    level = 1.0 - (1.0 - rows.rules.confidence) / max(1, len(groups))
    return tuple(_guarded_slice(rows, column, value, mask, level) for column, value, mask in groups)


def _guarded_slice(rows: _Rows, column: str, value: str, mask: NDArray[np.bool_], level: float) -> SliceGuard:
    rules = rows.rules
    place: dict[str, Any] = {"column": column, "value": value, "n_rows": int(mask.sum())}
    try:
        improvement = rows.improvement(rules.metric, CHAMPION, level, mask)
    except EvaluationError as error:
        return SliceGuard(**place, outcome="not_measured", improvement=None, reason=str(error))
    worse = improvement.upper < -rules.slice_margin
    claim = "the loss is above" if worse else "not surely worse by more than"
    return SliceGuard(
        **place,
        outcome="worse" if worse else "held",
        improvement=improvement,
        reason=f"the improvement is {_numbers(improvement)}: {claim} the margin of {rules.slice_margin:g}.",
    )


def _outcome(
    reference: Reference,
    comparison: Comparison,
    slices: Sequence[SliceGuard],
    calibration: CalibrationGuard | None,
) -> ChallengeOutcome:
    lost = calibration is not None and calibration.outcome == "worse"
    if lost or comparison.outcome == "worse" or any(guard.outcome == "worse" for guard in slices):
        return "keep"
    if reference == BASELINE and _is_the_baseline(comparison):
        return "keep"
    if comparison.outcome == "better" or (reference == CHAMPION and comparison.outcome == "not_worse"):
        return "promote"
    return "undecided"


def _is_the_baseline(comparison: Comparison) -> bool:
    """Whether a candidate is worth exactly as much as the baseline on every resampling, as a constant one is."""
    improvement = comparison.improvement
    return improvement.lower == improvement.upper == 0.0


def _missing(rows: _Rows, days: NDArray, comparison: Comparison) -> tuple[int | None, int | None]:
    """Return how many days and rows are missing to decide, at the days and rows a block seen."""
    improvement = comparison.improvement
    if comparison.more_blocks is None:
        return None, None
    day = days.astype("datetime64[D]")
    n_days = int((day.max() - day.min()).astype(np.int64)) + 1
    share = comparison.more_blocks / improvement.n_blocks
    return math.ceil(share * n_days), math.ceil(share * rows.y.size)


def _numbers(improvement: Interval) -> str:
    return (
        f"{improvement.estimate:+.4g} [{improvement.lower:+.4g}, {improvement.upper:+.4g}] "
        f"at {100 * improvement.confidence:.4g} %"
    )


def _reason(
    reference: Reference,
    outcome: ChallengeOutcome,
    comparison: Comparison,
    slices: Sequence[SliceGuard],
    calibration: CalibrationGuard | None,
    rules: ChallengeRules,
    more: tuple[int | None, int | None],
) -> str:
    sentences = [f"{rules.metric} against the {reference}: {comparison.reason}"]
    if reference == BASELINE and _is_the_baseline(comparison):
        sentences.append("The candidate is worth exactly as much as the baseline, so there is nothing to promote.")
    if slices:
        sentences.append(_slices_in_words(slices, rules))
    if calibration is not None:
        sentences.append(f"Calibration {calibration.outcome}: {calibration.reason}")
    if outcome == "undecided" and more[0] is not None:
        sentences.append(f"That is about {more[0]:,} more days or {more[1]:,} more rows like these.")
    return " ".join(sentences)


def _slices_in_words(slices: Sequence[SliceGuard], rules: ChallengeRules) -> str:
    worse = [f"{guard.column}={guard.value}" for guard in slices if guard.outcome == "worse"]
    unmeasured = sum(guard.outcome == "not_measured" for guard in slices)
    rest = f" {unmeasured} could not be measured." if unmeasured else ""
    if not worse:
        return f"None of {len(slices)} guarded slices is surely worse by more than {rules.slice_margin:g}.{rest}"
    named = ", ".join(worse[:NAMED_SLICES]) + (f" and {len(worse) - NAMED_SLICES} more" if worse[NAMED_SLICES:] else "")
    return f"{len(worse)} of {len(slices)} guarded slices worse by more than {rules.slice_margin:g}: {named}.{rest}"
