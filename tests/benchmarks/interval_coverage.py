"""How often intervals miss the truth on one side: `python -m tests.benchmarks.interval_coverage --help`.

The simulated challengers of `power_curve` are worse than the champion by exactly the margin, so that a lower end above
−margin is a false promotion. Each side of a 95 % interval may miss in 2.5 % of cases.
"""
# ruff: noqa: T201 - a script prints

import argparse
from collections.abc import Sequence
from typing import get_args

import numpy as np

from ml_assets.bootstrap import IntervalMethod, block_bootstrap
from tests.benchmarks.power_curve import draw_days, noises_for

MARGIN, DAYS = 0.02, (5, 10, 28, 31, 60)
METHODS: tuple[IntervalMethod, ...] = get_args(IntervalMethod)


def misses(
    trials: int, n_days: int, noise: float, *, rows_per_day: int = 100, replicates: int = 1000
) -> dict[IntervalMethod, tuple[float, float]]:
    """Return for each method the share of intervals wholly above and wholly below the true improvement."""
    above, below = dict.fromkeys(METHODS, 0), dict.fromkeys(METHODS, 0)
    rng = np.random.default_rng(n_days)
    for trial in range(trials):
        drawn = draw_days(rng, n_days, noise, rows_per_day)
        found = block_bootstrap(
            task="binary",
            y_true=drawn.y,
            scores={"candidate": drawn.candidate, "champion": drawn.champion},
            blocks=drawn.day,
            metrics=["roc_auc"],
            replicates=replicates,
            seed=trial,
        )
        for method in METHODS:
            interval = found.improvement("roc_auc", "candidate", "champion", method=method)
            above[method] += interval.lower > -MARGIN
            below[method] += interval.upper < -MARGIN
    return {method: (above[method] / trials, below[method] / trials) for method in METHODS}


def as_markdown(trials: int, days: Sequence[int] = DAYS) -> str:
    """Return a table: falsely promoted / falsely kept in percent, a row for each length."""
    noise = noises_for((-MARGIN,))[-MARGIN]
    lines = ["| blocks (days) | " + " | ".join(METHODS) + " |", "|---|" + "---|" * len(METHODS)]
    for n_days in days:
        found = misses(trials, n_days, noise)
        lines.append(f"| {n_days} | " + " | ".join(f"{100 * a:.1f} / {100 * b:.1f}" for a, b in found.values()) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=4000, help="simulated challengers for each number of days")
    options = parser.parse_args()
    error = 100 * np.sqrt(0.025 * 0.975 / options.trials)
    print(f"one-sided misses in percent, 2.5 expected, ± {error:.2f} from simulation\n")
    print(as_markdown(options.trials))


if __name__ == "__main__":
    main()
