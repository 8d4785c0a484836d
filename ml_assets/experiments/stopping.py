"""Which arm has the smaller loss on realised labels: a confidence sequence, valid however often one looks.

The unit is the day: rows of one day share weather, staff and prices, so each day gives one number, the mean loss
of the challenger's rows minus that of the champion's. What both arms share on a day cancels in it. Where days
hang together (one model is better for weeks on end), use weeks as days: any label that sorts will do.

The interval is the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024),
"Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52(6): a normal
mixture with the running variance. With few days the running variance is often far too small: looked at
daily from the second day on, that interval excludes the true mean in 3 of 10 experiments at alpha = 0.05.
It is therefore widened as Student's interval is, by mixing over the unknown variance too: Wang & Ramdas (2023),
"Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance", arXiv:2310.03722. That
holds for normal differences after any number of days, and in the limit it is the same interval.

Not covered: differences that depend on each other from day to day, and rare days on which one model is very
much worse, before the first of them was seen. `tests/benchmarks/sequential_test.py` measures both.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml_assets.blocks import block_codes
from ml_assets.errors import EvaluationError
from ml_assets.experiments.sample_ratio import require_share
from ml_assets.metric_values import sum_terms
from ml_assets.metrics import Floats, Task, validated

StopOutcome = Literal["challenger_better", "champion_better", "go_on"]

MIN_DAYS = 28
"""Days before which nothing is decided: four times each day of the week.

Until then a mean over few rows of a skewed loss is not normal enough: with 20 rows a day in the smaller arm and
a class of 2 %, a false stop within a year at alpha = 0.05 has a chance of 10 % from the second day on, 8 % from
day 14 on and 5 % from day 28 on.
"""

TUNED_FOR_DAYS = 30
"""Days at which the interval is narrowest for its kind; elsewhere it is valid all the same."""

_HORIZON_DAYS = 3_650
"""How far ahead `more_days` looks."""


@dataclass(frozen=True, kw_only=True)
class ArmDay:
    """What both arms lost on one day.

    Attributes:
        day: Label of the day, such as 2013-01-31.
        n_challenger: Rows of the challenger with a known label.
        n_champion: Rows of the champion with a known label.
        challenger_loss: Sum of the challenger's losses.
        champion_loss: Sum of the champion's losses.
    """

    day: str
    n_challenger: int
    n_champion: int
    challenger_loss: float
    champion_loss: float


@dataclass(frozen=True, kw_only=True)
class StopVerdict:
    """What the days so far allow one to say.

    Attributes:
        outcome: "challenger_better" when the whole interval is below 0, "champion_better" when it is above,
            "go_on" when it holds 0 or there are too few days.
        estimate: Mean over days of the challenger's mean loss minus the champion's; None without a day.
        lower: Lower end of its interval after the last day; None while it is unbounded.
        upper: Upper end.
        alpha: Chance that the interval misses the true mean on any day of a test of any length.
        n_days: Days used.
        skipped_days: Days on which an arm had no rows.
        min_days: Days before which nothing is decided.
        first_decided: First day on which the interval excluded 0, `min_days` being reached; None when never.
        more_days: How many further days would decide if estimate and spread stay; None when decided or not known.
        lag1_correlation: Of the difference with that of the day before; far from 0 says that days hang together.
            None with fewer than three days or without spread.
        reason: One sentence with the numbers.
    """

    outcome: StopOutcome
    estimate: float | None
    lower: float | None
    upper: float | None
    alpha: float
    n_days: int
    skipped_days: tuple[str, ...]
    min_days: int
    first_decided: str | None
    more_days: int | None
    lag1_correlation: float | None
    reason: str


def row_losses(task: Task, y_true: ArrayLike, y_score: ArrayLike, classes: Sequence[object] | None = None) -> Floats:
    """Return the loss of each row, shape (n,): log loss in nats, or absolute error for regression.

    The arguments are those of `metrics.validated`, which raises EvaluationError when they are wrong.
    """
    y, score = validated(task, y_true, y_score, classes)
    return sum_terms("mae" if task == "regression" else "log_loss", y, score)[:, 0]


def losses_by_day(day: ArrayLike, is_challenger: NDArray[np.bool_], loss: Floats) -> tuple[ArmDay, ...]:
    """Sum the losses of each arm by day, in order of days.

    Args:
        day: Shape (n,): the day of each row; any sortable labels.
        is_challenger: Shape (n,): True where the challenger scored the row.
        loss: Shape (n,): finite.

    Raises:
        EvaluationError: If a label of a day is missing or the shapes differ.
    """
    labels = np.asarray(day)
    if is_challenger.shape != loss.shape or loss.shape != labels.shape:
        raise EvaluationError(
            f"day, is_challenger and loss have shapes {labels.shape}, {is_challenger.shape} and {loss.shape}; "
            f"expected one of each for each row."
        )
    if not loss.size:
        return ()
    code, n_days = block_codes(labels, loss.size)
    _, first = np.unique(code, return_index=True)
    arm = 2 * code + is_challenger
    counts = np.bincount(arm, minlength=2 * n_days).reshape(n_days, 2).tolist()
    sums = np.bincount(arm, loss, minlength=2 * n_days).reshape(n_days, 2).tolist()
    return tuple(
        ArmDay(day=str(name), n_challenger=n[1], n_champion=n[0], challenger_loss=s[1], champion_loss=s[0])
        for name, n, s in zip(labels[first], counts, sums, strict=True)
    )


def confidence_sequence(
    differences: Floats, *, alpha: float, tuned_for_days: float = TUNED_FOR_DAYS
) -> tuple[Floats, Floats]:
    """Return the interval for the mean after each day, all of which hold together with 1 − alpha.

    Args:
        differences: Shape (..., n_days), n_days ≥ 1: one number a day, in order.
        alpha: Chance that any of the intervals misses the mean.
        tuned_for_days: Days at which the interval shall be narrowest.

    Returns:
        Lower and upper ends, shape (..., n_days); infinite where the days are too few.
    """
    n = np.arange(1, differences.shape[-1] + 1, dtype=np.float64)
    # Sums of squares lose digits far from zero; the centre changes no result.
    centre = differences.mean(axis=-1, keepdims=True)
    mean = np.cumsum(differences - centre, axis=-1) / n
    squares = np.maximum(np.cumsum((differences - centre) ** 2, axis=-1) - n * mean**2, 0.0)
    widths = _widths(n, alpha, tuned_for_days)
    bounded = np.isfinite(widths)
    half = np.full_like(squares, np.inf)
    half[..., bounded] = widths[bounded] * np.sqrt(squares / n)[..., bounded]
    return mean + centre - half, mean + centre + half


def _widths(n: Floats, alpha: float, tuned_for_days: float) -> Floats:
    """Return the half width after n days in running standard deviations (divisor n); infinite for few days.

    For a mean of zero and the standardised effect drawn from N(0, rho²), with the scale under its right Haar
    prior, the Bayes factor is A^(−1/2) · ((1 + q) / (1 + q/A))^(n/2), where A = 1 + n·rho² and q is the squared mean in
    running variances. The interval holds the means whose factor stays below 1/alpha.
    """
    growth = 1.0 + n * mixture_variance(alpha, tuned_for_days)
    bound = (growth / alpha**2) ** (1.0 / n)
    widths = np.full(n.shape, np.inf)
    fits = bound < growth
    widths[fits] = np.sqrt((bound[fits] - 1.0) / (1.0 - bound[fits] / growth[fits]))
    return widths


def mixture_variance(alpha: float, tuned_for_days: float) -> float:
    """Return rho² by which the normal mixture's interval is narrowest, to first order, at that many days."""
    evidence = -2.0 * math.log(alpha)
    return (evidence + math.log(evidence + 1.0)) / tuned_for_days


def stop_rule(
    daily: Sequence[ArmDay], *, alpha: float, tuned_for_days: float = TUNED_FOR_DAYS, min_days: int = MIN_DAYS
) -> StopVerdict:
    """Judge the arms by the days so far; it may be asked every day, and the test stopped on any.

    Every day counts the same, whatever its rows. Hand over only days whose labels are all known by now: a day that
    is filled up later is another day than the one that was looked at.

    Args:
        daily: In order of days, each once.
        alpha: Chance of ever calling one arm better when both have the same mean loss.
        tuned_for_days: Days at which the interval shall be narrowest; choose it before the test begins.
        min_days: Days before which nothing is decided, ≥ 2; choose it before the test begins.

    Raises:
        EvaluationError: If a day comes twice, a sum is not finite, or a number is out of range.
    """
    _require_settings(alpha, tuned_for_days, min_days)
    _require_days(daily)
    used = [d for d in daily if d.n_challenger and d.n_champion]
    skipped = tuple(d.day for d in daily if not (d.n_challenger and d.n_champion))
    differences = np.array([d.challenger_loss / d.n_challenger - d.champion_loss / d.n_champion for d in used])
    lower, upper = (np.empty(0), np.empty(0))
    if used:
        lower, upper = confidence_sequence(differences, alpha=alpha, tuned_for_days=tuned_for_days)
    decided = ((lower > 0) | (upper < 0)) & (np.arange(1, len(used) + 1) >= min_days)
    outcome: StopOutcome = "go_on"
    if used and decided[-1]:
        outcome = "challenger_better" if upper[-1] < 0 else "champion_better"
    bounded = bool(used) and math.isfinite(lower[-1])
    estimate = float(differences.mean()) if used else None
    ends = (float(lower[-1]), float(upper[-1])) if bounded else (None, None)
    missing = _more_days(differences, alpha, tuned_for_days, min_days) if outcome == "go_on" else None
    return StopVerdict(
        outcome=outcome,
        estimate=estimate,
        lower=ends[0],
        upper=ends[1],
        alpha=alpha,
        n_days=len(used),
        skipped_days=skipped,
        min_days=min_days,
        first_decided=used[int(decided.argmax())].day if decided.any() else None,
        more_days=missing,
        lag1_correlation=_lag1_correlation(differences),
        reason=_reason(outcome, estimate, ends, alpha, len(used), min_days, missing),
    )


def _require_settings(alpha: float, tuned_for_days: float, min_days: int) -> None:
    require_share("alpha", alpha)
    if not (math.isfinite(tuned_for_days) and tuned_for_days >= 1):
        raise EvaluationError(f"tuned_for_days is {tuned_for_days}; expected a number of days ≥ 1, such as 30.")
    if min_days < 2:
        raise EvaluationError(f"min_days is {min_days}; expected at least 2, and {MIN_DAYS} unless days are weeks.")


def _require_days(daily: Sequence[ArmDay]) -> None:
    counts = Counter(d.day for d in daily)
    repeated = [day for day, count in counts.items() if count > 1]
    if repeated:
        raise EvaluationError(
            f"{len(repeated)} days come more than once, such as {repeated[0]}; expected each day once, in order. "
            f"Sum the rows by day first, with `losses_by_day`."
        )
    for d in daily:
        if not (math.isfinite(d.challenger_loss) and math.isfinite(d.champion_loss)):
            raise EvaluationError(
                f"the losses of day {d.day} sum to {d.challenger_loss} and {d.champion_loss}; expected finite "
                f"numbers. Leave out rows without a label."
            )


def _more_days(differences: Floats, alpha: float, tuned_for_days: float, min_days: int) -> int | None:
    n_days = differences.size
    if n_days < 2 or differences.std() == 0.0 or differences.mean() == 0.0:
        return None
    later = np.arange(max(n_days + 1, min_days), _HORIZON_DAYS + 1, dtype=np.float64)
    enough = _widths(later, alpha, tuned_for_days) * differences.std() < abs(differences.mean())
    return int(later[enough.argmax()]) - n_days if enough.any() else None


def _lag1_correlation(differences: Floats) -> float | None:
    if differences.size < 3 or differences.std() == 0.0:
        return None
    centred = differences - differences.mean()
    return float((centred[1:] * centred[:-1]).sum() / (centred**2).sum())


def _reason(
    outcome: StopOutcome,
    estimate: float | None,
    ends: tuple[float | None, float | None],
    alpha: float,
    n_days: int,
    min_days: int,
    more_days: int | None,
) -> str:
    if estimate is None:
        return "no day has rows with labels in both arms yet"
    interval = "unbounded yet" if ends[0] is None else f"[{ends[0]:+.4g}, {ends[1]:+.4g}]"
    measured = (
        f"the challenger's loss minus the champion's is {estimate:+.4g} {interval} over {n_days} "
        f"day{'s' * (n_days != 1)}, at {100 * (1 - alpha):.4g} % for all looks together"
    )
    if outcome == "challenger_better":
        return f"{measured}: the challenger is better"
    if outcome == "champion_better":
        return f"{measured}: the champion is better"
    why = f"nothing is decided before day {min_days}" if n_days < min_days else "the interval holds 0"
    hope = f"; about {more_days:,} more days would decide it if the difference stays" if more_days else ""
    return f"{measured}: {why}{hope}"
