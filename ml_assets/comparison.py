"""The candidate against champion and baseline: paired differences, and what may be concluded from one."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ml_assets.bootstrap import Interval, Replicates
from ml_assets.errors import EvaluationError

CANDIDATE, CHAMPION, BASELINE = "candidate", "champion", "baseline"
MODELS = (CANDIDATE, CHAMPION, BASELINE)

ComparisonOutcome = Literal["better", "not_worse", "worse", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The candidate against a reference by one metric, on the same resamplings.

    Attributes:
        metric: Name of the metric.
        reference: "champion" or "baseline".
        difference: Candidate's value minus the reference's, in the metric's own direction.
        improvement: How much better the candidate is: positive is better for every metric.
    """

    metric: str
    reference: str
    difference: Interval
    improvement: Interval


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a paired improvement lets one conclude.

    Attributes:
        outcome: "better" when the whole interval is above zero; "not_worse" when it is above −margin;
            "worse" when it is below −margin; "undecided" when it reaches over −margin.
        improvement: The interval that was judged; positive is better.
        margin: Loss that does not matter, in the metric's unit.
        more_blocks: For "undecided" how many further blocks (days) the interval would need to leave −margin
            on one side, if the estimate stays; None otherwise and where that is more than a hundred
            times the blocks there are.
        reason: One sentence with the numbers.
    """

    outcome: ComparisonOutcome
    improvement: Interval
    margin: float
    more_blocks: int | None
    reason: str


def require_models(names: Collection[str]) -> None:
    """Raise EvaluationError unless there are scores of candidate and baseline, and of no others than the champion."""
    if not {CANDIDATE, BASELINE} <= set(names) <= set(MODELS):
        raise EvaluationError(
            f"scores are of {', '.join(sorted(names)) or 'no model'}; expected candidate and baseline, and champion "
            f"when there is one."
        )


def paired_differences(
    drawn: Replicates, models: Iterable[str], metrics: Sequence[str], *, confidence: float
) -> tuple[Difference, ...]:
    """Return the candidate against each other model by each metric."""
    return tuple(
        Difference(
            metric=metric,
            reference=reference,
            difference=drawn.difference(metric, "candidate", reference, confidence=confidence),
            improvement=drawn.improvement(metric, "candidate", reference, confidence=confidence),
        )
        for reference in models
        if reference != "candidate"
        for metric in metrics
    )


def decide(improvement: Interval, *, margin: float) -> Comparison:
    """Judge a paired improvement by where its interval lies.

    Args:
        improvement: Of the candidate over the champion; positive is better.
        margin: Largest loss that does not matter, ≥ 0, in the metric's unit.

    Raises:
        EvaluationError: If the margin is negative or no number.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise EvaluationError(
            f"the margin is {margin}; expected a number ≥ 0, the loss that does not matter. Correct it in the policy."
        )
    more_blocks = None
    measured = (
        f"the improvement is {improvement.estimate:+.4g} [{improvement.lower:+.4g}, {improvement.upper:+.4g}]"
        f" at {100 * improvement.confidence:.4g} % over {improvement.n_blocks} blocks"
    )
    if improvement.lower > 0:
        outcome, end = "better", "the whole interval is above 0"
    elif improvement.lower > -margin:
        outcome, end = "not_worse", f"any loss is below the margin of {margin:g}"
    elif improvement.upper < -margin:
        outcome, end = (
            "worse",
            f"the loss is above the margin of {margin:g}" if margin else "the whole interval is below 0",
        )
    else:
        outcome, more_blocks = "undecided", _blocks_to_decide(improvement, margin)
        hope = (
            f"about {more_blocks:,} more blocks would decide it if the estimate stays"
            if more_blocks
            else "more blocks would not decide it while the estimate stays there"
        )
        end = f"the interval does not leave {0.0 - margin:g} on one side; {hope}"
    return Comparison(
        outcome=outcome,
        improvement=improvement,
        margin=margin,
        more_blocks=more_blocks,
        reason=f"{measured}: {end}.",
    )


def _blocks_to_decide(improvement: Interval, margin: float) -> int | None:
    """Return how many blocks are missing, the interval's width being proportional to 1/√blocks."""
    distance = improvement.estimate + margin
    # The end that must cross −margin: the lower one when the estimate is above it, else the upper one.
    reach = improvement.estimate - improvement.lower if distance > 0 else improvement.upper - improvement.estimate
    # A hundred times the blocks there are is never: the estimate lies about on −margin.
    if abs(distance) <= reach / 10:
        return None
    needed = improvement.n_blocks * (reach / distance) ** 2
    return max(1, math.floor(needed) + 1 - improvement.n_blocks)
