"""How often the gate promotes, keeps and is undecided: `python -m tests.benchmarks.power_curve --help`.

Simulated months of known truth: the labels' rate differs from day to day, and so does how good each model is, so that
rows of one day are not independent. Candidate and champion see the same signal through noise of their own; the
candidate's noise is chosen so that the ROC AUC, on endlessly many days, differs by what the curve's axis says.
The rules are the policy's: margin 0.02, 95 %, blocks of days.
"""
# ruff: noqa: T201 - a script prints

import argparse
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ml_assets.block_statistics import pair_wins
from ml_assets.challenge import challenge
from ml_assets.challenge_result import ChallengeRules

DIFFERENCES = (-0.06, -0.04, -0.03, -0.025, -0.02, -0.015, -0.01, 0.0, 0.01, 0.02, 0.04)
DAYS = (7, 14, 30, 60, 120)
ROWS_PER_DAY, CHAMPION_NOISE = 100, 1.2
OUTCOMES = ("promote", "undecided", "keep")
COLORS = {"promote": "#2a7f62", "undecided": "#d9a441", "keep": "#a33b3b"}
RULES = ChallengeRules(
    metric="roc_auc",
    margin=0.02,
    confidence=0.95,
    replicates=500,
    block_days=1,
    slice_margin=0.05,
    calibration_guard=False,
    seed=0,
)
Shares = Mapping[tuple[float, int], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Labels, scores in [0, 1] and day numbers of one simulated stretch of days."""

    y: np.ndarray
    candidate: np.ndarray
    champion: np.ndarray
    day: np.ndarray


def draw_days(rng: np.random.Generator, n_days: int, candidate_noise: float, rows_per_day: int = ROWS_PER_DAY) -> Drawn:
    """Return simulated days; each model's noise is larger on some days than on others."""
    day = np.repeat(np.arange(n_days), np.maximum(10, rng.poisson(rows_per_day, n_days)))
    signal = rng.normal(0, 1.0, day.size)
    rate = rng.normal(-1.3, 0.6, n_days)
    y = (rng.random(day.size) < 1 / (1 + np.exp(-rate[day] - signal))).astype(np.float64)

    def score(noise: float) -> np.ndarray:
        daily = noise * np.exp(rng.normal(0, 0.25, n_days))
        seen = signal + daily[day] * rng.normal(0, 1, day.size) + rng.normal(0, 0.2, n_days)[day]
        return 1 / (1 + np.exp(-seen))

    return Drawn(y=y, candidate=score(candidate_noise), champion=score(CHAMPION_NOISE), day=day)


def true_auc(noise: float, *, n_days: int = 1_000, seed: int = 12345) -> float:
    """Return the AUC over pairs from different days, which is all there is on endlessly many days."""
    drawn = draw_days(np.random.default_rng(seed), n_days, noise)
    wins = pair_wins(drawn.y, drawn.candidate, drawn.day, n_days)
    positives = np.bincount(drawn.day, drawn.y)
    negatives = np.bincount(drawn.day) - positives
    return float((wins.sum() - np.trace(wins)) / (positives.sum() * negatives.sum() - positives @ negatives))


def noises_for(differences: tuple[float, ...]) -> dict[float, float]:
    """Return the candidate's noise that gives each true difference of the AUC to the champion's."""
    grid = np.linspace(0.3, 2.6, 24)
    # One seed for all, so that the curve is smooth.
    aucs = np.array([true_auc(noise) for noise in grid])
    champion = np.interp(CHAMPION_NOISE, grid, aucs)
    return {d: float(np.interp(-(champion + d), -aucs, grid)) for d in differences}


def decide_once(rng: np.random.Generator, n_days: int, noise: float, rules: ChallengeRules) -> str:
    """Return the verdict on one simulated challenger."""
    drawn = draw_days(rng, n_days, noise)
    scores = {"candidate": drawn.candidate, "champion": drawn.champion, "baseline": np.full(drawn.y.size, 0.25)}
    days = np.datetime64("2013-01-01") + drawn.day
    return challenge(task="binary", y_true=drawn.y, scores=scores, days=days, columns=None, rules=rules).outcome


def shares(trials: int, *, differences: tuple[float, ...] = DIFFERENCES, days: tuple[int, ...] = DAYS) -> Shares:
    """Return (true difference, days) → share of each verdict."""
    noises = noises_for(differences)
    found = {}
    for difference, n_days in itertools.product(differences, days):
        rng = np.random.default_rng([round(1e4 * (difference + 1)), n_days])
        counts = Counter(decide_once(rng, n_days, noises[difference], RULES) for _ in range(trials))
        found[difference, n_days] = {outcome: counts[outcome] / trials for outcome in OUTCOMES}
    return found


def as_markdown(found: Shares) -> str:
    """Return promoted / undecided / kept in percent, a row for each difference and a column for each length."""
    days = sorted({n_days for _, n_days in found})
    lines = [
        "| true difference of AUC | " + " | ".join(f"{n} days, {n * ROWS_PER_DAY:,} rows" for n in days) + " |",
        "|---|" + "---|" * len(days),
    ]
    for difference in sorted({d for d, _ in found}):
        cells = [" / ".join(f"{100 * found[difference, n][o]:.0f}" for o in OUTCOMES) for n in days]
        lines.append(f"| {difference:+.3f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw_picture(found: Shares, path: Path, trials: int) -> None:
    """Write one panel of stacked shares for each number of days."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    days = sorted({n_days for _, n_days in found})
    differences = sorted({d for d, _ in found})
    figure = Figure(figsize=(2.6 * len(days), 3.6))
    figure.set_layout_engine("constrained", w_pad=0.08)
    panels = figure.subplots(1, len(days), sharey=True)
    for panel, n_days in zip(panels, days, strict=True):
        stacks = [[100 * found[d, n_days][o] for d in differences] for o in OUTCOMES]
        panel.stackplot(differences, stacks, labels=OUTCOMES, colors=[COLORS[o] for o in OUTCOMES], alpha=0.9)
        panel.axvline(-RULES.margin, color="black", linewidth=1, linestyle="--")
        panel.set(title=f"{n_days} days, {n_days * ROWS_PER_DAY:,} rows", xlim=(differences[0], differences[-1]))
        panel.set(ylim=(0, 100), xticks=[-0.06, -0.04, -0.02, 0.0, 0.02, 0.04])
        panel.set_xticklabels(["−.06", "−.04", "−.02", "0", ".02", ".04"], fontsize=8)
    panels[0].set_ylabel("share of verdicts in percent")
    panels[len(days) // 2].set_xlabel("true difference of AUC, challenger − champion (dashed: −margin)")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False)
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"{path}: {trials} simulated challengers a point")


def main() -> None:
    """Print the table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=400, help="simulated challengers for each point")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/power-curve.png"))
    options = parser.parse_args()
    found = shares(options.trials)
    print(as_markdown(found))
    draw_picture(found, options.picture, options.trials)


if __name__ == "__main__":
    main()
