"""Months without drift: `python -m tests.benchmarks.drift_null --help`.

Each simulated month is compared with the months before it, which come from the same process. Columns are of ten kinds:
rows that are independent, values that are the same all day long and hang together over days as weather does (with a
correlation of 0.7 and of 0.9 from day to day), both mixed, rain (mostly none, at times much), rare days, categories
whose shares differ from day to day, weekdays, names of which new ones keep coming, and numbers that are missing on
some days. A quarter of the day effects is shared by all columns, as a storm is. Counted is how many months raise an
alarm, that is have any column named; the policy's rate is alpha.
"""
# ruff: noqa: T201 - a script prints

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ml_assets.drift.compare import compare
from ml_assets.drift.report import DriftReport
from ml_assets.drift.settings import DriftSettings
from ml_assets.profiles.profile import Profile
from ml_assets.profiles.table import profile_table

KINDS = ("rows", "weather", "spell", "mixed", "rain", "rare", "shares", "weekday", "names", "missing")
SHARED = 0.25
FIRST = np.datetime64("2013-01-01")


@dataclass(frozen=True, kw_only=True)
class World:
    """Days that all columns of a simulated pipeline share.

    Attributes:
        rng: Source of everything random.
        day: Number of each row's day, ascending, shape (n_rows,).
        storm: Each day's shared effect, shape (n_days,).
    """

    rng: np.random.Generator
    day: np.ndarray
    storm: np.ndarray

    @classmethod
    def draw(cls, seed: int, n_days: int, rows_per_day: int) -> "World":
        """Return days with about so many rows."""
        rng = np.random.default_rng(seed)
        n_rows = np.maximum(5, rng.poisson(rows_per_day, n_days))
        return cls(rng=rng, day=np.repeat(np.arange(n_days), n_rows), storm=correlated(rng, n_days, 0.6))

    def effect(self, correlation: float) -> np.ndarray:
        """Return a column's day effects, shape (n_days,), with mean 0 and variance 1."""
        own = correlated(self.rng, len(self.storm), correlation)
        return np.sqrt(1 - SHARED) * own + np.sqrt(SHARED) * self.storm


def correlated(rng: np.random.Generator, n: int, correlation: float) -> np.ndarray:
    """Return n normal numbers, each correlated with the one before."""
    noise = rng.normal(size=n)
    noise[1:] *= np.sqrt(1 - correlation**2)
    for i in range(1, n):
        noise[i] += correlation * noise[i - 1]
    return noise


def column(world: World, kind: str) -> pa.Array:
    """Return one column of a kind for all rows of all days."""
    rng, day = world.rng, world.day
    n = len(day)
    if kind == "rows":
        return pa.array(rng.normal(size=n))
    if kind == "weather":
        return pa.array(world.effect(0.7)[day])
    if kind == "spell":
        return pa.array(world.effect(0.9)[day])
    if kind == "mixed":
        return pa.array(0.5 * world.effect(0.5)[day] + rng.normal(size=n))
    if kind == "rain":
        return pa.array(np.maximum(0.0, np.exp(2 * world.effect(0.4)) - 4)[day])
    if kind == "rare":
        return pa.array((world.effect(0.4) > 1.8)[day].astype(float))
    if kind == "missing":
        rate = 1 / (1 + np.exp(2.5 - 1.5 * world.effect(0.4)))
        return pa.array(rng.normal(size=n), mask=rng.random(n) < rate[day])
    if kind == "weekday":
        return pa.array((day % 7).astype(float))
    return pa.array([f"v{code}" for code in _codes(world, kind)])


def _codes(world: World, kind: str) -> np.ndarray:
    rng, day = world.rng, world.day
    if kind == "names":
        return np.minimum(rng.zipf(1.4, len(day)), 100_000)
    base = np.log([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    weight = np.exp(base + 0.5 * np.column_stack([world.effect(0.3) for _ in base]))
    upper = np.cumsum(weight / weight.sum(axis=1, keepdims=True), axis=1)
    return (rng.random(len(day))[:, None] > upper[day]).sum(axis=1)


def sides(seed: int, *, n_columns: int, reference_days: int, rows_per_day: int) -> tuple[Profile, Profile]:
    """Return the profiles of the reference's days and of the 28 to 31 days after them."""
    days = reference_days + 28 + seed % 4
    world = World.draw(seed, days, rows_per_day)
    names = [f"{KINDS[i % len(KINDS)]}_{i:03}" for i in range(n_columns)]
    table = pa.table({name: column(world, name.rpartition("_")[0]) for name in names})
    split = int(np.searchsorted(world.day, reference_days))
    stamps = FIRST + world.day
    return (
        profile_table(table.slice(0, split), names, stamps[:split]),
        profile_table(table.slice(split), names, stamps[split:]),
    )


def reports(
    months: int, settings: DriftSettings, *, first_seed: int, n_columns: int, reference_days: int, rows_per_day: int
) -> Iterator[DriftReport]:
    """Yield what is said of each month."""
    for seed in range(first_seed, first_seed + months):
        reference, current = sides(seed, n_columns=n_columns, reference_days=reference_days, rows_per_day=rows_per_day)
        yield compare(reference, current, importance={}, settings=settings)


def alarms(found: Sequence[DriftReport]) -> dict[str, float]:
    """Return the shares of months with an alarm, without the limits on effects, and by p < 0.05 of any column."""
    tests = [[a for c in report.columns for a in c.aspects] for report in found]
    return {
        "alarm": float(np.mean([bool(report.moved) for report in found])),
        "significant": float(
            np.mean([any((a.p_adjusted or 0.0) <= r.alpha for a in t) for r, t in zip(found, tests, strict=True)])
        ),
        "beyond": float(np.mean([any(a.beyond for a in t) for t in tests])),
    }


def main() -> None:
    """Print one line of a Markdown table for each number of columns and length of the reference."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--months", type=int, default=1000)
    parser.add_argument("--columns", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--reference-days", type=int, nargs="+", default=[30, 90])
    parser.add_argument("--rows-per-day", type=int, default=60)
    parser.add_argument("--first-seed", type=int, default=0)
    asked = parser.parse_args()
    settings = replace(DriftSettings(), importance_share=0.0)
    print("| columns | reference days | months | alarms | significant, any size | large, not tested | CPU s |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for n_columns in asked.columns:
        for days in asked.reference_days:
            started = time.process_time()
            found = list(
                reports(
                    asked.months,
                    settings,
                    first_seed=asked.first_seed,
                    n_columns=n_columns,
                    reference_days=days,
                    rows_per_day=asked.rows_per_day,
                )
            )
            shares = alarms(found)
            cells = " | ".join(f"{100 * value:.1f} %" for value in shares.values())
            spent = time.process_time() - started
            print(f"| {n_columns} | {days} | {len(found)} | {cells} | {spent:.0f} |", flush=True)


if __name__ == "__main__":
    main()
