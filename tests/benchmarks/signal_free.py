"""200 months without a signal: `python -m tests.benchmarks.signal_free --help`.

Features are noise; labels come at a rate that differs from day to day. Each month the pipeline's own `logistic` and
`boosting` variants are fitted on the two months before: the better one on the later of them is fitted again on
both and is the candidate, as in a governed month. Nothing may ever be promoted.
"""
# ruff: noqa: T201 - a script prints

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ml_assets.bootstrap import block_bootstrap
from ml_assets.challenge import challenge
from ml_assets.challenge_result import ChallengeOutcome, ChallengeRules
from ml_assets.metric_values import compute
from ml_assets.spec import PipelineSpec
from ml_assets.training import fit, predict
from tests.benchmarks.ten_comparisons import flights_spec

VARIANTS = ("logistic", "boosting")
AUC_FLOOR, LOG_LOSS_GAIN = 0.55, 0.0
RULES = ChallengeRules(
    metric="roc_auc",
    margin=0.02,
    confidence=0.95,
    replicates=500,
    block_days=1,
    slice_margin=0.05,
    calibration_guard=True,
    seed=0,
)


@dataclass(frozen=True, kw_only=True)
class Month:
    """Rows of one month: features that say nothing, labels, and days."""

    X: pd.DataFrame
    y: np.ndarray
    days: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What became of one month's candidate.

    Attributes:
        first: Verdict on the candidate without a champion.
        comparison_alone: Whether the improvement of the AUC over the baseline was above 0, with no guard at all.
        against_noise: Verdict against last month's candidate as a champion.
        gates: Whether the AUC's floor and the log loss against the prior rate let it through.
    """

    first: ChallengeOutcome
    comparison_alone: bool
    against_noise: ChallengeOutcome
    gates: bool


def draw_month(rng: np.random.Generator, number: int, rows_per_day: int) -> Month:
    """Return 28 to 31 days whose rates of class 1 lie around 23 %, as those of late flights do."""
    n_days = int(rng.integers(28, 32))
    day = np.repeat(np.arange(n_days), np.maximum(20, rng.poisson(rows_per_day, n_days)))
    rate = 1 / (1 + np.exp(1.2 - rng.normal(0, 0.7, n_days)))
    # Columns that are the same all day long, as weather is, let a model learn days by heart.
    weather = rng.normal(0, 1, (n_days, 2))[day]
    columns = {f"noise_{k}": rng.normal(0, 1, day.size) for k in range(4)}
    columns |= {"weather_0": weather[:, 0], "weather_1": weather[:, 1], "carrier": rng.choice(list("ABCDEF"), day.size)}
    y = (rng.random(day.size) < rate[day]).astype(np.float64)
    return Month(X=pd.DataFrame(columns), y=y, days=np.datetime64("2013-01-01") + 31 * number + day)


def fit_candidate(spec: PipelineSpec, before: Month, last: Month) -> tuple[object, float]:
    """Return the better variant fitted on both months, and their rate of class 1."""

    def score(name: str) -> float:
        model = fit(spec.variants[name], before.X, before.y, seed=0)
        return compute("roc_auc", last.y, predict(model, last.X, task="binary"))

    X, y = pd.concat([before.X, last.X], ignore_index=True), np.concatenate([before.y, last.y])
    return fit(spec.variants[max(VARIANTS, key=score)], X, y, seed=0), float(y.mean())


def passes_gates(month: Month, candidate: np.ndarray, baseline: np.ndarray) -> bool:
    """Return whether the lower ends are what `roc_auc.floor` and `log_loss.beats_baseline` ask."""
    drawn = block_bootstrap(
        task="binary",
        y_true=month.y,
        scores={"candidate": candidate, "baseline": baseline},
        blocks=month.days,
        metrics=["roc_auc", "log_loss"],
    )
    gain = drawn.improvement("log_loss", "candidate", "baseline")
    return drawn.interval("candidate", "roc_auc").lower >= AUC_FLOOR and gain.lower > LOG_LOSS_GAIN


def judge_months(n_months: int, *, rows_per_day: int = 80, seed: int = 0) -> Iterator[Judged]:
    """Yield what becomes of each month's candidate."""
    spec, rng = flights_spec(), np.random.default_rng(seed)
    months = [draw_month(rng, number, rows_per_day) for number in range(3)]
    champion, _ = fit_candidate(spec, months[0], months[1])
    for number in range(3, n_months + 3):
        month = draw_month(rng, number, rows_per_day)
        candidate, prior = fit_candidate(spec, months[-2], months[-1])
        models = {"candidate": candidate, "champion": champion}
        scores = {name: predict(model, month.X, task="binary") for name, model in models.items()}
        scores["baseline"] = np.full(month.y.size, prior)
        alone = {name: scores[name] for name in ("candidate", "baseline")}
        first, against = (
            challenge(task="binary", y_true=month.y, scores=s, days=month.days, columns=None, rules=RULES)
            for s in (alone, scores)
        )
        yield Judged(
            first=first.outcome,
            comparison_alone=first.comparison.outcome == "better",
            against_noise=against.outcome,
            gates=passes_gates(month, scores["candidate"], scores["baseline"]),
        )
        months, champion = [*months[1:], month], candidate


def as_markdown(judged: list[Judged]) -> str:
    """Return shares of the months as a table."""

    def share(hits: list[bool]) -> str:
        return f"{sum(hits)} of {len(hits)} ({100 * np.mean(hits):.1f} %)"

    lines = {
        "no champion: AUC surely above the baseline's (the comparison alone)": [j.comparison_alone for j in judged],
        "no champion: promoted by the challenge (calibration guarded)": [j.first == "promote" for j in judged],
        "gates let the candidate through": [j.gates for j in judged],
        "no champion: promoted by challenge and gates": [j.gates and j.first == "promote" for j in judged],
        "noise as champion: promoted by the challenge": [j.against_noise == "promote" for j in judged],
        "noise as champion: kept": [j.against_noise == "keep" for j in judged],
        "noise as champion: undecided": [j.against_noise == "undecided" for j in judged],
        "noise as champion: promoted by challenge and gates": [
            j.gates and j.against_noise == "promote" for j in judged
        ],
    }
    return (
        "\n".join(["| what | months |", "|---|---|", *(f"| {what} | {share(h)} |" for what, h in lines.items())]) + "\n"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--months", type=int, default=200)
    parser.add_argument("--rows-per-day", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    judged = list(judge_months(options.months, rows_per_day=options.rows_per_day, seed=options.seed))
    print(as_markdown(judged))


if __name__ == "__main__":
    main()
