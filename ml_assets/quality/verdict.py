"""What a champion's performance on one partition amounts to: fine, suspected, decayed or unknown, and why.

What is estimated from scores alone can at most be suspected. Labels decide: a loss beyond its margin that is sure, or
predictions that do not mean what they say any more, is decay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ml_assets.metrics import METRICS, Floats, Task
from ml_assets.quality.calibration import Calibration, Gap, calibrate
from ml_assets.quality.day_error import DayEstimate
from ml_assets.quality.estimate import estimate
from ml_assets.quality.gain import Gain
from ml_assets.quality.loss import Loss
from ml_assets.quality.realised import Performance, realise
from ml_assets.quality.reference import ReferencePart
from ml_assets.quality.settings import QualitySettings

VerdictName = Literal["fine", "suspected", "decayed", "unknown"]
Basis = Literal["estimated", "realised"]
SIGNIFICANT_DIGITS = 9
"""Of the numbers in a document: processors may differ in the last bits."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """A champion on one partition.

    Attributes:
        verdict: "decayed" when labels show a sure loss or miscalibration, "suspected" when only the estimate does,
            "unknown" when nothing could be tested, else "fine".
        basis: Whether labels or the estimate decided.
        reasons: Sentences for a reader, those that decided first.
        estimated: From the scores of all rows.
        realised: On labelled rows; None when there are too few days of them.
        calibration: On labelled rows; None as above.
        reference: The champion's own evaluation.
        n_labelled: Rows whose label is known.
        settings: What the policy asked.
    """

    verdict: VerdictName
    basis: Basis
    reasons: tuple[str, ...]
    estimated: Performance
    realised: Performance | None
    calibration: Calibration | None
    reference: ReferencePart
    n_labelled: int
    settings: QualitySettings

    @property
    def lost(self) -> tuple[Loss, ...]:
        """Return the sure losses that decided: realised ones, else estimated ones."""
        if self.basis == "realised" and self.realised is not None:
            return self.realised.lost
        return self.estimated.lost

    @property
    def miscalibrated(self) -> bool:
        """Whether a gap is beyond the policy's and significant."""
        return self.calibration is not None and any(gap.miscalibrated for gap in self.calibration.gaps)

    def to_document(self) -> dict[str, Any]:
        """Return the verdict with all numbers as JSON-ready values; equal rows give equal documents."""
        confidence = self.settings.confidence
        return _rounded(
            {
                "verdict": self.verdict,
                "basis": self.basis,
                "reasons": list(self.reasons),
                "calibration": None if self.calibration is None else _calibration(self.calibration, confidence),
                "estimated": _performance(self.estimated, confidence),
                "realised": None if self.realised is None else _performance(self.realised, confidence),
                "reference": {
                    "n_rows": self.reference.n_rows,
                    "n_days": self.reference.n_days,
                    "metrics": _metrics(self.reference.gains, confidence),
                },
                "n_rows": self.estimated.n_rows,
                "n_labelled": self.n_labelled,
                "confidence": confidence,
            }
        )


def assess(
    *,
    task: Task,
    score: Floats,
    days: NDArray[np.datetime64],
    y: NDArray[Any],
    known: NDArray[np.bool_],
    reference: ReferencePart,
    metrics: Sequence[str],
    settings: QualitySettings,
    classes: Sequence[str] = (),
) -> Quality:
    """Judge a champion by the rows it scored.

    Args:
        task: What kind of target it is.
        score: Finite, shape (n,), or (n, n_classes) with rows of sum 1; n ≥ 1.
        days: Local day of each row, datetime64[D], shape (n,).
        y: Labels of the known rows as `metrics.validated` returns them, shape (n_known,).
        known: Whether a row's label is known, shape (n,).
        reference: The champion's own evaluation.
        metrics: Names in `METRICS`.
        settings: What the policy asks.
        classes: For multiclass the names of the score columns.
    """
    estimated = estimate(task=task, score=score, days=days, reference=reference, metrics=metrics, settings=settings)
    realised, calibration = None, None
    labelled_days = int(np.unique(days[known]).size)
    if labelled_days >= settings.min_days:
        rows: dict[str, Any] = {"task": task, "y": y, "score": score[known], "days": days[known]}
        realised = realise(**rows, reference=reference, metrics=metrics, settings=settings)
        calibration = calibrate(**rows, settings=settings, classes=classes)
    judged = realised is not None and bool(realised.losses or calibration is not None)
    partly = labelled_days < estimated.n_days
    gaps = () if calibration is None else calibration.gaps
    if realised is not None and (realised.lost or any(gap.miscalibrated for gap in gaps)):
        verdict, basis = "decayed", "realised"
    elif estimated.lost and (partly or not judged):
        verdict, basis = "suspected", "estimated"
    elif judged:
        verdict, basis = "fine", "realised"
    else:
        verdict, basis = ("fine" if estimated.losses else "unknown"), "estimated"
    reasons = _reasons(basis, reference, estimated, realised, calibration, settings, labelled_days)
    return Quality(
        verdict=verdict,
        basis=basis,
        reasons=reasons,
        estimated=estimated,
        realised=realised,
        calibration=calibration,
        reference=reference,
        n_labelled=int(known.sum()),
        settings=settings,
    )


# --- in words -------------------------------------------------------------------------------------


def _reasons(
    basis: Basis,
    reference: ReferencePart,
    estimated: Performance,
    realised: Performance | None,
    calibration: Calibration | None,
    settings: QualitySettings,
    labelled_days: int,
) -> tuple[str, ...]:
    """Return what decided first, then what was looked at and held, then what could not be told."""
    bad: list[str] = []
    held: list[str] = []
    kinds = {"realised": realised, "estimated": estimated}
    for kind, found in ((name, found) for name, found in kinds.items() if found is not None):
        for loss in found.losses:
            sentence = _loss_words(kind, loss, reference.gains[loss.metric], found.gains[loss.metric], settings)
            (bad if loss.sure and kind == basis else held).append(sentence)
    for gap in () if calibration is None else calibration.gaps:
        (bad if gap.miscalibrated else held).append(_gap_words(gap, settings))
    open_questions = []
    if realised is None:
        open_questions.append(
            f"Labels are known of {labelled_days} day{'s' * (labelled_days != 1)}; the policy's performance.min_days "
            f"asks for {settings.min_days} to judge by them."
        )
    elif calibration is None:
        open_questions.append(
            f"The calibration cannot be judged on {labelled_days} days: two blocks of {settings.block_days} are needed."
        )
    untested = (realised or estimated).untested
    open_questions += [f"{metric} was not compared: {why.rstrip('.')}." for metric, why in untested.items()]
    if estimated.extrapolated > 0.01:
        open_questions.append(
            f"{estimated.extrapolated:.1%} of the scores lie beyond those of the champion's evaluation; the estimate "
            "for them is that of its last ones."
        )
    return (*bad, *held, *open_questions)


def _loss_words(kind: str, loss: Loss, before: Gain, now: Gain, settings: QualitySettings) -> str:
    lower, upper = loss.loss.interval(settings.confidence)
    what = "its gain over the best constant" if before.gain is not None and now.gain is not None else "it"
    fell = "worse" if loss.loss.estimate >= 0 else "better"
    return (
        f"{loss.metric} ({kind}) is {now.value.estimate:.4g}, and was {before.value.estimate:.4g} when the champion "
        f"was evaluated: {what} is {abs(loss.loss.estimate):.3g} {fell} (loss [{lower:+.3g}, {upper:+.3g}] at "
        f"{100 * settings.confidence:.4g} %); {loss.margin:.3g} does not matter, "
        f"{'more is sure to be lost' if loss.sure else 'no more is sure to be lost'} (p = {loss.adjusted:.2g})."
    )


def _gap_words(gap: Gap, settings: QualitySettings) -> str:
    lower, upper = gap.gap.interval(settings.confidence)
    whose = f"of class {gap.label} " if gap.label else ""
    means = "within it"
    if abs(gap.gap.estimate) > settings.calibration_gap:
        means = "beyond it and significant" if gap.miscalibrated else "beyond it, but not significant"
    return (
        f"Labels {whose}lie {gap.gap.estimate:+.3f} from the predictions on average [{lower:+.3f}, {upper:+.3f}]; the "
        f"policy's gap is {settings.calibration_gap:g}: {means} (p = {gap.adjusted:.2g})."
    )


# --- as a document --------------------------------------------------------------------------------


def _performance(found: Performance, confidence: float) -> dict[str, Any]:
    return {
        "n_rows": found.n_rows,
        "n_days": found.n_days,
        "metrics": _metrics(found.gains, confidence),
        "losses": [loss.to_document(confidence) for loss in found.losses],
        "untested": dict(found.untested),
        "extrapolated": found.extrapolated,
    }


def _metrics(gains: Mapping[str, Gain], confidence: float) -> dict[str, Any]:
    return {
        metric: {
            **bounded(metric, gain.value, confidence),
            "gain": None if gain.gain is None else gain.gain.estimate,
        }
        for metric, gain in gains.items()
    }


def bounded(metric: str, value: DayEstimate, confidence: float) -> dict[str, float]:
    """Return a metric with its interval, held within what the metric can be."""
    low, high = METRICS[metric].bounds
    lower, upper = value.interval(confidence)
    return {"value": value.estimate, "lower": max(low, lower), "upper": min(high, upper)}


def _calibration(calibration: Calibration, confidence: float) -> dict[str, Any]:
    worst = calibration.worst.to_document(confidence)
    return {
        "gap": worst["gap"],
        "lower": worst["lower"],
        "upper": worst["upper"],
        "p_value": worst["adjusted"],
        "miscalibrated": worst["miscalibrated"],
        "class": worst["label"],
        "gaps": [gap.to_document(confidence) for gap in calibration.gaps],
        "bins": [vars(one) for one in calibration.bins],
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value
