"""How much of its performance a champion has lost, and whether that is sure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_assets.metrics import METRICS
from ml_assets.quality.day_error import DayEstimate, holm
from ml_assets.quality.gain import Gain
from ml_assets.quality.settings import QualitySettings


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One metric of a later partition against the champion's own evaluation.

    Attributes:
        metric: Name in `METRICS`.
        loss: How much worse it is now, positive is worse: of the gain over the best constant, or of the value where
            no gain is known; the two sides are independent rows.
        margin: Loss that does not matter, in the metric's unit.
        p_value: Of the hypothesis that no more than the margin is lost, one-sided.
        adjusted: The same over all metrics (Holm).
        sure: Whether the adjusted one is below alpha.
    """

    metric: str
    loss: DayEstimate
    margin: float
    p_value: float
    adjusted: float
    sure: bool

    def to_document(self, confidence: float) -> dict[str, Any]:
        """Return JSON-ready values."""
        lower, upper = self.loss.interval(confidence)
        return {
            "metric": self.metric,
            "loss": self.loss.estimate,
            "lower": lower,
            "upper": upper,
            "margin": self.margin,
            "p_value": self.p_value,
            "adjusted": self.adjusted,
            "sure": self.sure,
        }


def losses(
    reference: Mapping[str, Gain], current: Mapping[str, Gain], settings: QualitySettings
) -> tuple[tuple[Loss, ...], dict[str, str]]:
    """Compare every metric that both sides have.

    Metrics whose best value is zero are left out: they speak of calibration. So is a metric by which the champion
    gained nothing over the best constant, unless the policy gives it a margin: there is nothing to lose a share of.

    Returns:
        What was tested, in the order of the current metrics, and metric → sentence for what was not.
    """
    tested: list[tuple[str, DayEstimate, float]] = []
    untested: dict[str, str] = {}
    for metric, now in current.items():
        if METRICS[metric].zero_is_best:
            continue
        if metric not in reference:
            untested[metric] = "it was not measured when the champion was evaluated"
            continue
        margin = margin_of(metric, reference[metric], settings)
        if margin is None:
            untested[metric] = "the champion gained nothing by it over the best constant when it was evaluated"
            continue
        tested.append((metric, _lost(metric, reference[metric], now), margin))
    p_values = [loss.p_value(margin) for _, loss, margin in tested]
    found = tuple(
        Loss(metric=metric, loss=loss, margin=margin, p_value=p, adjusted=adjusted, sure=adjusted < settings.alpha)
        for (metric, loss, margin), p, adjusted in zip(tested, p_values, holm(p_values), strict=True)
    )
    return found, untested


def margin_of(metric: str, reference: Gain, settings: QualitySettings) -> float | None:
    """Return the loss that does not matter: the policy's `<metric>.margin`, else a share of the reference's gain.

    None when there is no margin in the policy, and no gain.
    """
    if metric in settings.margins:
        return settings.margins[metric]
    if reference.gain is None or reference.gain.estimate <= 0.0:
        return None
    return settings.relative_loss * reference.gain.estimate


def _lost(metric: str, reference: Gain, now: Gain) -> DayEstimate:
    if reference.gain is not None and now.gain is not None:
        return reference.gain.minus(now.gain)
    if METRICS[metric].greater_is_better:
        return reference.value.minus(now.value)
    return now.value.minus(reference.value)
