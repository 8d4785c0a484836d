"""How often the A/B stop rule stops wrongly, and how soon rightly: `python -m tests.benchmarks.sequential_test`.

Every test lasts 365 days and is looked at on each of them. In the first table both models have the same mean loss, so
that every stop is a false one; the published asymptotic sequence stands beside the widened one that is in use. Its
last rows split the flights of 2013 anew in each test: their days, their order and their losses are real. In the
second table the challenger is better by so many standard deviations of a daily difference. Both are printed as
Markdown, as they stand in `docs/concepts/shadow-and-ab.md`. The same seed gives the same numbers.
"""
# ruff: noqa: T201 - a benchmark prints its table

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deployments.flights.land import data_folder
from ml_assets.experiments.stopping import (
    MIN_DAYS,
    TUNED_FOR_DAYS,
    ArmDay,
    confidence_sequence,
    mixture_variance,
    stop_rule,
)

Floats = NDArray[np.float64]
N_DAYS = 365
STARTS = (2, 14, 28)
CHUNK = 100


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One way in which days may differ.

    Attributes:
        name: For the table.
        draw: (generator, tests) → daily differences of mean zero, shape (tests, N_DAYS); NaN without rows in an arm.
        weeks: Whether weeks are handed over as days.
    """

    name: str
    draw: Callable[[np.random.Generator, int], Floats]
    weeks: bool = False


def log_losses(intercept: float, day_sd: float) -> Callable[[np.random.Generator, tuple[int, int]], Floats]:
    """Return losses of a binary model on rows of one day, all of whose rows are shifted together in the logit."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
        logit = intercept + rng.standard_normal(shape, dtype=np.float32)
        of_day = day_sd * rng.standard_normal((shape[0], 1), dtype=np.float32)
        positive = rng.random(shape, dtype=np.float32) < 1 / (1 + np.exp(-logit - of_day))
        return np.logaddexp(0, np.where(positive, -logit, logit))

    return draw


def absolute_errors(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Return log-normal absolute errors, in which few rows make up most of the sum."""
    return np.exp(rng.standard_normal(shape, dtype=np.float32))


def of_rows(
    n_rows: int, share: float, losses: Callable[[np.random.Generator, tuple[int, int]], Floats]
) -> Callable[[np.random.Generator, int], Floats]:
    """Return daily differences of rows that are split at random; two days in seven have 60 % of the rows."""

    def draw(rng: np.random.Generator, n_tests: int) -> Floats:
        out = np.empty((n_tests, N_DAYS))
        for first in range(0, n_tests, CHUNK):
            part = out[first : first + CHUNK]
            for day in range(N_DAYS):
                shape = (len(part), int(n_rows * (0.6 if day % 7 >= 5 else 1.0)))
                loss = losses(rng, shape)
                chosen = rng.random(shape, dtype=np.float32) < share
                counts = chosen.sum(axis=1)
                with np.errstate(invalid="ignore", divide="ignore"):
                    challenger = (loss * chosen).sum(axis=1) / counts
                    part[:, day] = challenger - (loss * ~chosen).sum(axis=1) / (shape[1] - counts)
        return out

    return draw


def normal(rng: np.random.Generator, n_tests: int) -> Floats:
    """Return independent differences with variance 1."""
    return rng.standard_normal((n_tests, N_DAYS))


def weekdays(rng: np.random.Generator, n_tests: int) -> Floats:
    """Return differences of which half the variance is a fixed pattern of the week."""
    pattern = np.tile([-2.0, -2.0, -2.0, -2.0, -2.0, 5.0, 5.0], 53)[:N_DAYS]
    return normal(rng, n_tests) + pattern / math.sqrt(10)


def lasting(correlation: float, share: float) -> Callable[[np.random.Generator, int], Floats]:
    """Return differences a share of whose variance is an advantage that lasts: autoregressive of order one."""

    def draw(rng: np.random.Generator, n_tests: int) -> Floats:
        steps = normal(rng, n_tests)
        level = steps[:, 0]
        out = np.empty_like(steps)
        for day in range(N_DAYS):
            if day:
                level = correlation * level + math.sqrt(1 - correlation**2) * steps[:, day]
            out[:, day] = level
        return math.sqrt(share) * out + math.sqrt(1 - share) * normal(rng, n_tests)

    return draw


def bad_days(rng: np.random.Generator, n_tests: int) -> Floats:
    """Return differences in which the challenger is far worse on one day in fifty, and a little better else."""
    return 10.0 * ((rng.random((n_tests, N_DAYS)) < 0.02) - 0.02) + normal(rng, n_tests)


@cache
def flights() -> tuple[NDArray[np.int64], dict[str, Floats]]:
    """Return the day of each flight that arrived, and its log loss under three models of a late arrival."""
    columns = ["month", "day", "hour", "carrier", "origin", "arr_delay"]
    rows = pd.read_csv(data_folder() / "flights.csv.zip", usecols=columns).dropna(subset=["arr_delay"])
    late = rows["arr_delay"] >= 15
    losses = {}
    for keys in ("hour", "hour origin", "carrier origin"):
        known = late.groupby([rows[key] for key in keys.split()])
        score = (known.transform("sum") + 5 * late.mean()) / (known.transform("count") + 5)
        losses[keys] = -np.log(np.where(late, score, 1 - score))
    return pd.factorize(rows["month"] * 100 + rows["day"], sort=True)[0].astype(np.int64), losses


def of_flights(challenger: str, share: float = 0.1) -> Callable[[np.random.Generator, int], Floats]:
    """Return daily differences of a model of late flights from one by the hour alone, made equal over the year."""

    def draw(rng: np.random.Generator, n_tests: int) -> Floats:
        day, losses = flights()
        n_rows = np.bincount(day)
        theirs, ours = losses["hour"], losses[challenger]
        ours = ours - (np.bincount(day, ours - theirs) / n_rows).mean()
        out = np.empty((n_tests, N_DAYS))
        for number in range(n_tests):
            chosen = rng.random(day.size, dtype=np.float32) < share
            n_chosen = np.bincount(day, chosen)
            out[number] = np.bincount(day, ours * chosen) / n_chosen
            out[number] -= np.bincount(day, theirs * ~chosen) / (n_rows - n_chosen)
        return out

    return draw


SCENARIOS = (
    Scenario(name="normal differences, independent", draw=normal),
    Scenario(name="900 rows a day, share 0.1, log loss", draw=of_rows(900, 0.1, log_losses(-1.3, 0.3))),
    Scenario(name="900 rows a day, share 0.5, log loss", draw=of_rows(900, 0.5, log_losses(-1.3, 0.3))),
    Scenario(name="30 rows a day, share 0.1, log loss", draw=of_rows(30, 0.1, log_losses(-1.3, 0.3))),
    Scenario(name="200 rows a day, share 0.1, log loss, class of 2 %", draw=of_rows(200, 0.1, log_losses(-4.3, 0.3))),
    Scenario(name="50 rows a day, share 0.1, log loss, class of 2 %", draw=of_rows(50, 0.1, log_losses(-4.3, 0.3))),
    Scenario(name="the same, weeks as days", draw=of_rows(50, 0.1, log_losses(-4.3, 0.3)), weeks=True),
    Scenario(name="50 rows a day, share 0.5, log loss, class of 2 %", draw=of_rows(50, 0.5, log_losses(-4.3, 0.3))),
    Scenario(name="200 rows a day, share 0.1, log-normal absolute error", draw=of_rows(200, 0.1, absolute_errors)),
    Scenario(name="half the variance a fixed pattern of the week", draw=weekdays),
    Scenario(name="a fifth of the variance lasts, day to day 0.6", draw=lasting(0.6, 0.2)),
    Scenario(name="half the variance lasts, day to day 0.6", draw=lasting(0.6, 0.5)),
    Scenario(name="the same, weeks as days", draw=lasting(0.6, 0.5), weeks=True),
    Scenario(name="one day in 50 is far worse", draw=bad_days),
    Scenario(name="flights of 2013, share 0.1, the same model twice", draw=of_flights("hour")),
    Scenario(name="flights, share 0.1, hour and origin against hour", draw=of_flights("hour origin")),
    Scenario(name="flights, share 0.1, carrier and origin against hour", draw=of_flights("carrier origin")),
    Scenario(name="the same, weeks as days", draw=of_flights("carrier origin"), weeks=True),
)


def published(differences: Floats, *, alpha: float) -> tuple[Floats, Floats]:
    """Return the asymptotic confidence sequence as published: normal mixture, running variance, not widened."""
    n = np.arange(1, differences.shape[-1] + 1)
    centred = differences - differences.mean(axis=-1, keepdims=True)
    mean = centred.cumsum(axis=-1) / n
    variance = np.maximum((centred**2).cumsum(axis=-1) / n - mean**2, 0.0)
    growth = n * mixture_variance(alpha, TUNED_FOR_DAYS) + 1
    half = np.sqrt(variance * 2 * growth / (n * (growth - 1)) * np.log(np.sqrt(growth) / alpha))
    middle = differences.cumsum(axis=-1) / n
    return middle - half, middle + half


def excluded(sequence: Callable[..., tuple[Floats, Floats]], differences: Floats, alpha: float) -> NDArray[np.bool_]:
    """Return whether the interval leaves 0 out after each day that is used, shape (tests, N_DAYS)."""
    out = np.zeros(differences.shape, dtype=bool)
    complete = ~np.isnan(differences).any(axis=1)
    lower, upper = sequence(differences[complete], alpha=alpha)
    out[complete] = (lower > 0) | (upper < 0)
    for row in np.flatnonzero(~complete):
        used = differences[row][~np.isnan(differences[row])]
        lower, upper = sequence(used, alpha=alpha)
        out[row, : used.size] = (lower > 0) | (upper < 0)
    return out


def check_against_the_rule(differences: Floats, stops: NDArray[np.bool_], alpha: float) -> None:
    """Raise unless `stop_rule` itself first decides on the days that were counted."""
    for row, stop in zip(differences, stops, strict=True):
        days = [
            ArmDay(
                day=f"{number:03d}",
                n_challenger=0 if np.isnan(value) else 1,
                n_champion=1,
                challenger_loss=0.0 if np.isnan(value) else float(value),
                champion_loss=0.0,
            )
            for number, value in enumerate(row)
        ]
        late = np.flatnonzero(stop[MIN_DAYS - 1 :]) + MIN_DAYS - 1
        expected = None if late.size == 0 else f"{np.flatnonzero(~np.isnan(row))[late[0]]:03d}"
        found = stop_rule(days, alpha=alpha).first_decided
        if found != expected:
            raise SystemExit(f"stop_rule first decides on {found}, the simulation on {expected}")


def false_stops(n_tests: int, alpha: float, seed: int) -> None:
    """Print the share of tests that ever stop although both models are equally good."""
    print(f"\n| {n_tests:,} tests at alpha = {alpha:g} | " + " | ".join(
        f"{name}, day {start}" for name in ("published", "in use") for start in STARTS
    ) + " |")  # fmt: skip
    print("|---" * (1 + 2 * len(STARTS)) + "|")
    for scenario in SCENARIOS:
        differences = scenario.draw(np.random.default_rng(seed), n_tests)
        if scenario.weeks:
            differences = np.nanmean(differences[:, :364].reshape(n_tests, 52, 7), axis=2)
        starts = [max(2, start // 7) if scenario.weeks else start for start in STARTS]
        cells = []
        for sequence in (published, confidence_sequence):
            stops = excluded(sequence, differences, alpha)
            cells += [f"{stops[:, start - 1 :].any(axis=1).mean():.3f}" for start in starts]
        check_against_the_rule(differences[:20], stops[:20], alpha)
        print(f"| {scenario.name} | {' | '.join(cells)} |", flush=True)


def power(n_tests: int, alpha: float, seed: int) -> None:
    """Print how soon a difference stops the test, rightly, with the rule's defaults."""
    print(
        "\n| difference in daily standard deviations | decided by day 28 | 90 | 180 | 365 | median day | wrong side |"
    )
    print("|---" * 7 + "|")
    noise = normal(np.random.default_rng(seed), n_tests)
    for difference in (0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.0):
        lower, upper = confidence_sequence(noise - difference, alpha=alpha)
        stops = (lower > 0) | (upper < 0)
        stops[:, : MIN_DAYS - 1] = False
        day = np.where(stops.any(axis=1), stops.argmax(axis=1) + 1, N_DAYS + 1)
        wrong = stops.any(axis=1) & (lower[np.arange(n_tests), np.minimum(day, N_DAYS) - 1] > 0)
        shares = " | ".join(f"{(day <= last).mean():.2f}" for last in (28, 90, 180, 365))
        median = int(np.median(day))
        middle = str(median) if median <= N_DAYS else f"> {N_DAYS}"
        print(f"| {difference:g} | {shares} | {middle} | {wrong.mean():.4f} |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=4_000, help="simulated A/B tests in each row")
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    false_stops(options.tests, options.alpha, options.seed)
    power(options.tests, options.alpha, options.seed)


if __name__ == "__main__":
    main()
