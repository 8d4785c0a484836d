"""One A/B test as a whole: did the arms get the rows that were planned, and is one of them better?"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ml_assets.errors import EvaluationError
from ml_assets.experiments.sample_ratio import SampleRatio, check
from ml_assets.experiments.stopping import MIN_DAYS, TUNED_FOR_DAYS, StopVerdict, losses_by_day, stop_rule

if TYPE_CHECKING:
    import pandas as pd

AbOutcome = Literal["challenger_better", "champion_better", "go_on", "invalid"]

DOCUMENT_FORMAT = 1
CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True, kw_only=True)
class AbReport:
    """What an A/B test says so far.

    Attributes:
        outcome: The stop rule's, or "invalid" when the arms did not get the rows that were planned.
        scored: Sample ratio of all rows, at half of alpha.
        labelled: Sample ratio of the rows with a loss, at half of alpha: labels that come or stay away with the arm
            bend the comparison just as much.
        verdict: The stop rule's verdict, also when it must not be used.
        sentence: All of it in one sentence.
    """

    outcome: AbOutcome
    scored: SampleRatio
    labelled: SampleRatio
    verdict: StopVerdict
    sentence: str

    def to_document(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        verdict = asdict(self.verdict)
        return {
            "format": DOCUMENT_FORMAT,
            "outcome": self.outcome,
            "scored": asdict(self.scored),
            "labelled": asdict(self.labelled),
            "verdict": verdict | {"skipped_days": list(self.verdict.skipped_days)},
            "sentence": self.sentence,
        }


def ab_report(
    scored: "pd.DataFrame",
    *,
    share: float,
    alpha: float,
    timezone: str = "UTC",
    tuned_for_days: float = TUNED_FOR_DAYS,
    min_days: int = MIN_DAYS,
) -> AbReport:
    """Report on the rows scored so far; it may be asked every day, and the test stopped on any.

    Two errors have a chance of at most alpha each: calling a kept plan broken, and calling one arm better when
    both are equally good.

    Args:
        scored: One row for each row of the test, with columns `row_id`, `arm` ("champion" or "challenger"), `loss` (NaN
            while the label is not known) and `day` (any sortable labels), or else `event_time`.
        share: Planned share of the challenger.
        alpha: Chance of each of the two errors over all looks together.
        timezone: In which `event_time` is cut into days.
        tuned_for_days: See `stop_rule`.
        min_days: See `stop_rule`.

    Raises:
        EvaluationError: If a column is missing, a row id comes twice, an arm is unknown or a loss is infinite.
    """
    is_challenger, loss = _checked(scored)
    known = ~np.isnan(loss)
    day = _days(scored, timezone)
    ratios = [_ratio(is_challenger[rows], share, alpha / 2) for rows in (slice(None), known)]
    verdict = stop_rule(
        losses_by_day(day[known], is_challenger[known], loss[known]),
        alpha=alpha,
        tuned_for_days=tuned_for_days,
        min_days=min_days,
    )
    matches = all(ratio.matches for ratio in ratios)
    return AbReport(
        outcome=verdict.outcome if matches else "invalid",
        scored=ratios[0],
        labelled=ratios[1],
        verdict=verdict,
        sentence=_sentence(ratios[0], ratios[1], verdict),
    )


def _checked(scored: "pd.DataFrame") -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return who scored each row and its loss."""
    missing = [name for name in ("row_id", "arm", "loss") if name not in scored]
    if missing or not {"day", "event_time"} & set(scored.columns):
        raise EvaluationError(
            f"the scored rows have the columns {', '.join(map(str, scored.columns)) or 'none'}; expected row_id, arm, "
            f"loss, and day or event_time."
        )
    repeated = scored["row_id"][scored["row_id"].duplicated()]
    if len(repeated):
        raise EvaluationError(
            f"{len(repeated)} of {len(scored)} rows repeat a row_id, such as {repeated.iloc[0]!r}; expected each row "
            f"once, in one arm. Rows that both models scored belong to a shadow's disagreement report."
        )
    arm = scored["arm"].to_numpy(dtype=object)
    unknown = sorted({str(value) for value in arm} - {CHAMPION, CHALLENGER})
    if unknown:
        raise EvaluationError(f"arm holds {', '.join(unknown[:5])}; expected {CHAMPION} and {CHALLENGER}.")
    loss = scored["loss"].to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(loss).any():
        raise EvaluationError(
            f"{int(np.isinf(loss).sum())} of {loss.size} losses are infinite; expected those of `row_losses`, which "
            f"clips probabilities, and NaN where the label is not known."
        )
    return arm == CHALLENGER, loss


def _days(scored: "pd.DataFrame", timezone: str) -> NDArray:
    """Return the day of each row: labels as they are, times as local days."""
    import pandas as pd

    values = scored["day"] if "day" in scored else scored["event_time"]
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values = values.dt.tz_convert(timezone).dt.tz_localize(None)
    if pd.api.types.is_datetime64_dtype(values.dtype):
        return values.to_numpy().astype("datetime64[D]")
    return values.to_numpy(dtype=object)


def _ratio(is_challenger: NDArray[np.bool_], share: float, alpha: float) -> SampleRatio:
    n_challenger = int(is_challenger.sum())
    return check(n_challenger, is_challenger.size - n_challenger, share, alpha)


def _sentence(scored: SampleRatio, labelled: SampleRatio, verdict: StopVerdict) -> str:
    for what, ratio in (("all rows", scored), ("rows with a label", labelled)):
        if not ratio.matches:
            return f"The test must not be read: of {what}, {ratio.reason}."
    verb = {
        "challenger_better": "The test may stop",
        "champion_better": "The test may stop",
        "go_on": "The test goes on",
    }[verdict.outcome]
    return f"{verb}: {verdict.reason}; {scored.reason}."
