"""What the policy asks of a champion's performance."""

from collections.abc import Mapping
from dataclasses import dataclass

from ml_assets.interfaces import EffectivePolicy


@dataclass(frozen=True, kw_only=True)
class QualitySettings:
    """What counts as decayed.

    Attributes:
        alpha: Share of unchanged partitions that each check may call decayed, shared among the groups of a period.
        calibration_gap: Mean of label minus prediction from which it matters; of regression as a share of the targets.
        relative_loss: Share of a metric's gain over the best constant whose loss does not matter.
        margins: Metric → loss in its own unit that does not matter; takes the place of `relative_loss`.
        block_days: Consecutive days that hang together at least.
        min_days: Labelled days that are needed to judge.
    """

    alpha: float
    calibration_gap: float
    relative_loss: float
    margins: Mapping[str, float]
    block_days: int
    min_days: int

    @property
    def confidence(self) -> float:
        """Return the level of intervals that agree with the tests."""
        return 1.0 - self.alpha


def settings_of(policy: EffectivePolicy, *, groups: int) -> QualitySettings:
    """Return the policy's settings for one of so many groups (1 where there are none); each has its share of alpha."""
    margins = {name.removesuffix(".margin") for name in policy.settings if name.endswith(".margin")}
    return QualitySettings(
        alpha=policy.number("performance.alpha") / groups,
        calibration_gap=policy.number("performance.calibration_gap"),
        relative_loss=policy.number("performance.relative_loss"),
        margins={metric: policy.number(f"{metric}.margin") for metric in sorted(margins)},
        block_days=int(policy.number("performance.block_days")),
        min_days=int(policy.number("performance.min_days")),
    )
