"""CPU of profiles against plain libraries on the same rows; run `python -m tests.benchmarks.bench_profile`.

A table of 1,000,000 rows × 50 columns over 30 days: 40 numeric (continuous, skewed, whole numbers, mostly zero, with
nulls) and 10 categories of 2 to 200,000 values. Two plain contenders, in numpy and pandas:

- *whole*: of each numeric column 20 quantiles, mean, variance, least, greatest, nulls and distinct values; of each
  category the counts and the number of its values. The profile holds all that, and for each day besides.
- *whole and each day*: the same, and for each day 20 quantiles, mean, variance and nulls, and counts of categories.

The contenders run in turns, so that a busy machine slows all alike; medians of the CPU seconds are compared.
"""
# ruff: noqa: T201 - a benchmark prints its table

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.profiles.document import from_document, to_document
from ml_assets.profiles.profile import merge
from ml_assets.profiles.table import profile_table

QUANTILES = np.linspace(0, 1, 20)
N_DAYS = 30
N_NUMERIC, N_CATEGORIES = 40, 10


def made_up(n_rows: int, seed: int) -> tuple[pa.Table, NDArray[np.datetime64]]:
    """Return 40 numeric columns and 10 of text, and the local day of each row, in its order."""
    rng = np.random.default_rng(seed)
    shapes: list[Callable[[], NDArray[np.float64]]] = [
        lambda: rng.normal(size=n_rows),
        lambda: rng.lognormal(0, 2, n_rows),
        lambda: np.round(rng.gamma(1.2, 14, n_rows) - 12),
        lambda: np.where(rng.random(n_rows) < 0.8, 0.0, rng.gamma(1, 5, n_rows)),
        lambda: rng.normal(size=n_rows),
    ]
    columns: dict[str, pa.Array] = {}
    for i in range(N_NUMERIC):
        values = shapes[i % len(shapes)]()
        columns[f"number_{i}"] = pa.array(values, mask=rng.random(n_rows) < 0.03 if i % len(shapes) == 4 else None)
    for i in range(N_CATEGORIES):
        n_values = (2, 5, 12, 16, 30, 100, 400, 900, 5_000, 200_000)[i]
        names = pa.array([f"value-{j:06d}" for j in range(n_values)])
        columns[f"category_{i}"] = names.take(pa.array((n_values * rng.random(n_rows) ** 2).astype(np.int64)))
    days = np.datetime64("2013-01-01") + np.sort(rng.integers(0, N_DAYS, n_rows)).astype("timedelta64[D]")
    return pa.table(columns), days


def plain_whole(frame: pd.DataFrame) -> dict[str, object]:
    """Return facts of each column of a frame, in numpy and pandas."""
    facts: dict[str, object] = {}
    for name in frame.columns:
        column = frame[name]
        if name.startswith("category"):
            counts = column.value_counts()
            facts[name] = (counts, len(counts), column.isna().sum())
        else:
            values = column.to_numpy()
            values = values[np.isfinite(values)]
            quantiles = np.quantile(values, QUANTILES)
            facts[name] = (quantiles, values.mean(), values.var(), len(np.unique(values)), len(column) - len(values))
    return facts


def plain_days(frame: pd.DataFrame, days: NDArray[np.datetime64]) -> list[dict[str, object]]:
    """Return facts of each day's rows, which lie together, in numpy and pandas."""
    starts = np.flatnonzero(np.r_[True, days[1:] != days[:-1]])
    found = []
    for start, end in zip(starts, np.r_[starts[1:], len(days)], strict=True):
        part, facts = frame.iloc[start:end], {}
        for name in frame.columns:
            if name.startswith("category"):
                facts[name] = part[name].value_counts()
                continue
            values = part[name].to_numpy()
            n = len(values)
            values = values[np.isfinite(values)]
            facts[name] = (np.quantile(values, QUANTILES), values.mean(), values.var(), n - len(values))
        found.append(facts)
    return found


def cpu_in_turns(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median CPU seconds of each action, run in turns after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds + 1):
        for name, action in actions.items():
            cpu = time.process_time()
            action()
            seconds[name].append(time.process_time() - cpu)
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}


def compare_profile(n_rows: int, rounds: int) -> None:
    """Print the cost of a profile beside that of the plain contenders."""
    table, days = made_up(n_rows, seed=7)
    frame = table.to_pandas()
    names = table.column_names
    profile = profile_table(table, names, days)
    document = to_document(profile)
    seconds = cpu_in_turns(
        {
            "profile": lambda: profile_table(table, names, days),
            "plain, whole": lambda: plain_whole(frame),
            "plain, whole and each day": lambda: (plain_whole(frame), plain_days(frame, days)),
            "to a document": lambda: to_document(profile),
            "from a document": lambda: from_document(document),
            "adding up 12": lambda: merge([profile] * 12),
        },
        rounds,
    )
    size = len(json.dumps(document))
    print(f"\n{n_rows:,} rows × {len(names)} columns, {N_DAYS} days, {rounds} rounds; document {size / 1e3:,.0f} kB")
    print(f"{'':<28}{'CPU s':>9}{'profile ÷ it':>15}")
    for name, cpu in seconds.items():
        ratio = f"{seconds['profile'] / cpu:>15.2f}" if name.startswith("plain") else ""
        print(f"{name:<28}{cpu:>9.3f}{ratio}")


# The comparison of two sets of partitions, and both against Evidently, are added here.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sizes that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[9_000, 1_000_000], help="rows of each table")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default 5)")
    options = parser.parse_args(arguments)
    versions = f"numpy {np.__version__}, pandas {pd.__version__}, pyarrow {pa.__version__}"
    print(f"Python {sys.version.split()[0]}, {versions}")
    for n_rows in options.rows:
        compare_profile(n_rows, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
