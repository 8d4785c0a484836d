"""What counts as drift: effect, significance, importance and persistence, as the policy sets them."""

from dataclasses import dataclass

from ml_assets.interfaces import EffectivePolicy


@dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """Limits of one comparison.

    Attributes:
        alpha: False discovery rate over a partition's columns; without drift the chance that any column is named.
        psi: Population stability index from which a column's distribution has moved far enough to matter.
        ks: The same for the Kolmogorov-Smirnov distance of numbers and the largest change of a category's share.
        new_category_share: Share of rows, 0 to 1, with values the reference never had, or share that vanished, that
            matters.
        null_rate_change: Change of the share of missing values that matters, 0 to 1.
        min_days: Days each side must have to be tested.
        block_days: Fewest days in a row that count as one independent look.
        importance_share: Share of the model's importance, 0 to 1, that must have moved for a partition to count.
        k: Partitions, of the last `n`, that must have moved for drift.
        n: Partitions that persistence looks back over, with the current one.
    """

    alpha: float = 0.05
    psi: float = 0.2
    ks: float = 0.1
    new_category_share: float = 0.02
    null_rate_change: float = 0.05
    min_days: int = 10
    block_days: int = 5
    importance_share: float = 0.1
    k: int = 2
    n: int = 3


def settings_of(policy: EffectivePolicy, groups: int) -> DriftSettings:
    """Return the policy's limits; each of `groups` partitions of a period is tested at its share of alpha."""
    return DriftSettings(
        alpha=policy.number("drift.alpha") / max(1, groups),
        psi=policy.number("drift.psi"),
        ks=policy.number("drift.ks"),
        new_category_share=policy.number("drift.new_category_share"),
        null_rate_change=policy.number("drift.null_rate_change"),
        min_days=int(policy.number("drift.min_days")),
        block_days=int(policy.number("drift.block_days")),
        importance_share=policy.number("drift.importance_share"),
        k=int(policy.number("drift.persistence_k")),
        n=int(policy.number("drift.persistence_n")),
    )
