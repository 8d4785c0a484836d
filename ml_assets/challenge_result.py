"""What a challenge is asked and what it concludes, as plain values and as a document."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ml_assets.bootstrap import Interval
from ml_assets.comparison import Comparison
from ml_assets.errors import EvaluationError

ChallengeOutcome = Literal["promote", "keep", "undecided"]
Reference = Literal["champion", "baseline"]
CalibrationMetric = Literal["log_loss", "brier_score"]


@dataclass(frozen=True, kw_only=True)
class ChallengeRules:
    """What the policy asks of a challenger.

    Attributes:
        metric: Name in `METRICS` that is compared.
        margin: Loss against the champion that does not matter, ≥ 0, in the metric's unit.
        confidence: Level of two-sided intervals, such as 0.95: one side errs in 2.5 % of cases.
        replicates: Bootstrap resamplings.
        block_days: Consecutive days that are drawn together, ≥ 1.
        slice_margin: Loss on one slice that does not matter, ≥ 0, in the metric's unit.
        calibration_guard: Whether a classifier's probabilities are held against the prior rate.
        seed: Of the bootstrap.
    """

    metric: str
    margin: float
    confidence: float
    replicates: int
    block_days: int
    slice_margin: float
    calibration_guard: bool
    seed: int

    def __post_init__(self) -> None:
        if self.block_days < 1:
            raise EvaluationError(
                f"block_days is {self.block_days}; expected at least 1. Correct comparison.block_days in the policy."
            )
        if not (math.isfinite(self.slice_margin) and self.slice_margin >= 0):
            raise EvaluationError(
                f"slice_margin is {self.slice_margin}; expected a number ≥ 0, the loss on a slice that does not "
                f"matter. Correct {self.metric}.slice_margin in the policy."
            )


@dataclass(frozen=True, kw_only=True)
class SliceGuard:
    """The candidate against the champion on the rows that share a column's value.

    Attributes:
        column: Column the rows were cut by.
        value: Its value or range in words; "(missing)" and "(other)" are what they say.
        n_rows: Rows in it.
        outcome: "worse" when the whole interval lies below −slice_margin, "not_measured" when there is none.
        improvement: At the level corrected for the number of slices; positive is better.
        reason: One sentence: the numbers, or why there are none.
    """

    column: str
    value: str
    n_rows: int
    outcome: Literal["held", "worse", "not_measured"]
    improvement: Interval | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class CalibrationGuard:
    """The candidate's probabilities against the prior rate; "worse" when the whole interval is below 0."""

    metric: CalibrationMetric
    reference: Literal["baseline"] = "baseline"
    outcome: Literal["held", "worse"]
    improvement: Interval
    reason: str


@dataclass(frozen=True, kw_only=True)
class ChallengeResult:
    """What a challenge concluded.

    Attributes:
        reference: Whom the candidate was compared with: the champion, or the baseline when there is none.
        outcome: "promote", "keep" (what is in use stays) or "undecided".
        reason: Sentences for a reader, with the numbers.
        comparison: The paired improvement that was judged, and the margin it was judged by: 0 against the baseline.
        slices: Every guarded slice; empty without a champion.
        calibration: None for regression and when it is not guarded.
        more_days: For "undecided" about how many further days would decide, if the estimate stays; None otherwise
            and where no number would.
        more_rows: The same in rows, at the rows a day seen.
        rules: What was asked.
    """

    reference: Reference
    outcome: ChallengeOutcome
    reason: str
    comparison: Comparison
    slices: tuple[SliceGuard, ...]
    calibration: CalibrationGuard | None
    more_days: int | None
    more_rows: int | None
    rules: ChallengeRules

    def to_document(self) -> dict[str, Any]:
        """Return the result as JSON-ready values; `margin` is the one that was applied."""
        calibration = None
        if self.calibration is not None:
            calibration = {key: value for key, value in asdict(self.calibration).items() if key != "reference"}
        return {
            "reference": self.reference,
            "outcome": self.outcome,
            "reason": self.reason,
            "metric": self.rules.metric,
            "margin": self.comparison.margin,
            "confidence": self.rules.confidence,
            "block_days": self.rules.block_days,
            "replicates": self.rules.replicates,
            "seed": self.rules.seed,
            "improvement": asdict(self.comparison.improvement),
            "more_days": self.more_days,
            "more_rows": self.more_rows,
            "slices": [asdict(guard) for guard in self.slices],
            "calibration": calibration,
        }
