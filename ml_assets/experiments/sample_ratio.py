"""Whether the arms got the rows that were planned for them: a test that may be looked at after every row.

The test is that of Lindon & Malek (2022), "Anytime-valid inference for multinomial count data", NeurIPS 35, for
two arms. Under the plan each row goes to the challenger with probability `share`; the alternative is that it
goes there with an unknown one, drawn from a Beta distribution around the plan. The ratio of the two
likelihoods is a martingale with mean 1 under the plan, so that by Ville's inequality it ever reaches 1/alpha
with probability alpha at most, however often one looks and whenever one stops.

Assumed is that rows are assigned one by one, each independently of the others. A hash of the row id does so
when every row has its own id. Ids that come back (customers, say) have to be counted once.

The test is about the assignment, not about losses: when it rejects, rows of one arm were lost, doubled or
routed elsewhere, and the comparison of the arms means nothing.
"""

import math
from dataclasses import dataclass

from ml_assets.errors import EvaluationError

PRIOR_ROWS = 1_000.0
"""How many rows the alternative's Beta distribution is worth.

Larger finds small deviations in many rows sooner, smaller finds gross ones in few. With 900 rows a day and a
share of 0.1, a true share of 0.15 is found on the first day, one of 0.09 in 9 days and one of 0.095 in 31.
"""


@dataclass(frozen=True, kw_only=True)
class SampleRatio:
    """Whether the observed split is compatible with the planned one.

    Attributes:
        n_challenger: Rows of the challenger.
        n_champion: Rows of the champion.
        planned_share: Share of rows planned for the challenger.
        observed_share: Share of rows it got; None without rows.
        log_e_value: Natural logarithm of the evidence against the plan (Bayes factor).
        p_value: min(1, 1 / e-value); valid at whatever time it is looked at.
        alpha: Chance of ever rejecting a plan that is kept.
        matches: Whether the plan is not rejected.
        reason: One sentence with the numbers.
    """

    n_challenger: int
    n_champion: int
    planned_share: float
    observed_share: float | None
    log_e_value: float
    p_value: float
    alpha: float
    matches: bool
    reason: str


def log_e_value(n_challenger: int, n_champion: int, share: float) -> float:
    """Return the logarithm of the Bayes factor of the Beta alternative against the planned share."""
    a, b = PRIOR_ROWS * share, PRIOR_ROWS * (1.0 - share)
    mixture = _log_beta(a + n_challenger, b + n_champion) - _log_beta(a, b)
    return mixture - n_challenger * math.log(share) - n_champion * math.log1p(-share)


def check(n_challenger: int, n_champion: int, share: float, alpha: float) -> SampleRatio:
    """Test the planned share on the rows counted so far.

    Args:
        n_challenger: Rows of the challenger, ≥ 0.
        n_champion: Rows of the champion, ≥ 0.
        share: Planned share of the challenger, between 0 and 1.
        alpha: Chance, over all looks together, of rejecting a plan that is kept; between 0 and 1.

    Raises:
        EvaluationError: If a number is out of its range.
    """
    if n_challenger < 0 or n_champion < 0:
        raise EvaluationError(f"the arms have {n_challenger} and {n_champion} rows; expected counts ≥ 0.")
    require_share("the planned share", share)
    require_share("alpha", alpha)
    n_rows = n_challenger + n_champion
    log_e = log_e_value(n_challenger, n_champion, share)
    p_value = min(1.0, math.exp(-log_e)) if log_e > 0 else 1.0
    matches = p_value > alpha
    observed = n_challenger / n_rows if n_rows else None
    return SampleRatio(
        n_challenger=n_challenger,
        n_champion=n_champion,
        planned_share=share,
        observed_share=observed,
        log_e_value=log_e,
        p_value=p_value,
        alpha=alpha,
        matches=matches,
        reason=_reason(n_challenger, n_rows, share, p_value, alpha),
    )


def require_share(what: str, value: float) -> None:
    """Raise EvaluationError unless the value lies between 0 and 1, both excluded."""
    if not 0.0 < value < 1.0:
        raise EvaluationError(f"{what} is {value}; expected a number between 0 and 1, both excluded.")


def _reason(n_challenger: int, n_rows: int, share: float, p_value: float, alpha: float) -> str:
    if n_rows == 0:
        return "no rows were assigned yet"
    split = f"{n_challenger:,} of {n_rows:,} rows ({100 * n_challenger / n_rows:.4g} %) went to the challenger"
    plan = f"planned were {100 * share:.4g} %"
    if p_value > alpha:
        return f"{split}; {plan}, and the difference may be chance (p = {p_value:.3g}, alpha = {alpha:g})"
    return (
        f"{split}; {plan}, and the difference is no chance (p = {p_value:.2g}, alpha = {alpha:g}): look for rows of "
        f"one arm that were lost, doubled or scored by another model"
    )


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
