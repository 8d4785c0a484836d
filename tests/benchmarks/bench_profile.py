"""Profiles and their comparison against numpy, scipy and Evidently: `python -m tests.benchmarks.bench_profile`.

Two tables of 1,000,000 rows × 50 columns over 30 days each: 40 numeric columns (continuous, skewed, whole numbers,
mostly zero, with nulls) and 10 categories of 2 to 200,000 values. In the current table four columns are distributed
otherwise than in the reference. Contenders:

- *facts*: of each numeric column of the current table 20 quantiles, mean, variance, nulls and distinct values; of each
  category the counts and the number of its values; in numpy and pandas. Our profile holds all that, and for each day.
- *daily facts*: the same, and for each day 20 quantiles, mean, variance and nulls, and counts of categories.
- *tests*: scipy's ks_2samp of each numeric column and chi2_contingency of each category's counts, from the rows.
- Evidently's DataDriftPreset with its defaults and its result as JSON: distances instead of p-values, and what its
  pages draw, which belongs to every run; and its ValueDrift of each column, the least it can be asked for. It gets 49
  of the 50 columns: its time grows with the square of the number of a category's values, and the one of 200,000 would
  not end. Ratios are of our work on 50 columns to its on 49.
- ours: the profile of the current table; the comparison of two stored profiles, which reads two JSON texts and writes
  the report's; the same with twelve months (the same rows on other days) added up as the reference; profile and
  comparison together, once with the stored profile of the reference and once with both made anew.

Every contender runs in a process of its own, one thread each, in turns, so that a busy machine slows all alike.
Imports, first calls (on 1,500 rows) and the reading of the tables are outside of what is measured, for all of them.
CPU is user and system time of the process and its children; medians are compared.

Evidently needs an environment of its own, whose interpreter is given with --rival; without it, it is left out:

    python -m venv rivals
    rivals/bin/python -m pip install evidently==0.7.23 pyarrow "pandas<3"
    python -m tests.benchmarks.bench_profile --rival rivals/bin/python
"""
# ruff: noqa: T201 - a benchmark prints its table

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Cost, medians
from tests.benchmarks.profile_contenders import CONTENDERS, MOVED, N_CATEGORIES, N_DAYS, N_NUMERIC, write_tables
from tests.benchmarks.profile_rival import LEFT_OUT, WARM_UP_ROWS

Run = dict[str, Any]

RIVAL = Path(__file__).with_name("profile_rival.py")
PRESET, COLUMNS = "Evidently preset", "Evidently columns"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
TITLES = {
    "facts": "numpy, pandas: facts",
    "daily facts": "numpy, pandas: daily facts",
    "tests": "scipy: tests",
    PRESET: "Evidently: preset",
    COLUMNS: "Evidently: columns",
    "profile": "ours: profile",
    "comparison": "ours: comparison",
    "comparison with a year": "ours: comparison with 12 months",
    "profile and comparison": "ours: profile and comparison",
    "both profiles and comparison": "ours: both profiles and comparison",
}
RATIOS = (
    ("profile", "facts"),
    ("profile", "daily facts"),
    ("comparison", "tests"),
    ("comparison with a year", "tests"),
    ("comparison", PRESET),
    ("comparison", COLUMNS),
    ("tests", COLUMNS),
    ("profile and comparison", PRESET),
    ("profile and comparison", COLUMNS),
    ("both profiles and comparison", PRESET),
    ("both profiles and comparison", COLUMNS),
)


def run_one(name: str, folder: Path, rival: Path | None) -> Run:
    """Return what one contender found and took in a process of its own.

    Raises:
        SystemExit: If it fails, with the end of what it wrote.
    """
    ours = [sys.executable, "-m", "tests.benchmarks.profile_contenders", name, str(folder)]
    theirs = [str(rival), str(RIVAL), name.rsplit(maxsplit=1)[-1], str(folder)]
    command = theirs if name in (PRESET, COLUMNS) else ours
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder: Path, rounds: int, rival: Path | None) -> dict[str, list[Run]]:
    """Return each contender's runs, in turns."""
    names = [name for name in TITLES if name in CONTENDERS or rival is not None]
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            runs[name].append(run_one(name, folder, rival))
    return runs


def cost_of(run: Run) -> Cost:
    """Return the seconds of a run."""
    return Cost(cpu=run["cpu"], wall=run["wall"])


def show(runs: Mapping[str, Sequence[Run]]) -> None:
    """Print seconds, ratios, and what was found."""
    costs = {name: [cost_of(run) for run in found] for name, found in runs.items()}
    middle = {name: medians(found) for name, found in costs.items()}
    print(f"{'':<38}{'CPU s':>9}{'wall s':>9}   CPU s of each round")
    for name, cost in middle.items():
        print(f"{TITLES[name]:<38}{cost.cpu:>9.3f}{cost.wall:>9.3f}   {' '.join(f'{c.cpu:.3f}' for c in costs[name])}")
    print(f"\n{'':<62}{'CPU':>9}{'wall':>9}")
    for ours, theirs in RATIOS:
        if theirs in middle:
            one, other = middle[ours], middle[theirs]
            title = f"{TITLES[ours]} ÷ {TITLES[theirs].replace(':', '')}"
            print(f"{title:<62}{one.cpu / other.cpu:>9.3g}{one.wall / other.wall:>9.3g}")
    print()
    for name, found in runs.items():
        if "moved" in found[0] and name != "comparison with a year":  # its months are the same rows again: no evidence
            named = names_of(found[0])
            changed, others = len(named & set(MOVED)), len(named - set(MOVED))
            of_others = N_NUMERIC + N_CATEGORIES - len(MOVED) - (len(LEFT_OUT) if name in (PRESET, COLUMNS) else 0)
            print(f"{TITLES[name]:<38} names {changed} of {len(MOVED)} changed columns, {others} of {of_others} others")
    print(f"Kolmogorov-Smirnov distances differ from scipy's by {difference(runs):.4f} at most")


def names_of(run: Run) -> set[str]:
    """Return the columns that a run says have moved."""
    return set(run["moved"])


def difference(runs: Mapping[str, Sequence[Run]]) -> float:
    """Return the greatest difference of a column's distance, from stored profiles, from scipy's of the rows."""
    ours, theirs = (runs[name][0]["distances"] for name in ("comparison", "tests"))
    assert ours.keys() == theirs.keys()
    return max(abs(ours[name] - theirs[name]) for name in theirs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the tables of each size, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[9_000, 1_000_000], help="rows of each table")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default 3)")
    parser.add_argument("--rival", type=Path, help="interpreter of the environment with Evidently")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    options = parser.parse_args(arguments)
    if min(options.rows) < WARM_UP_ROWS or options.rounds < 1:
        parser.error(f"--rows must be at least {WARM_UP_ROWS:,} and --rounds at least 1")
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "pandas", "pyarrow"))
    print(f"Python {sys.version.split()[0]}, {versions}; one thread each, {os.cpu_count()} cores", flush=True)
    for n_rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            write_tables(folder, n_rows)
            size = (folder / "current.json").stat().st_size / 1e3
            runs = measure(folder, options.rounds, options.rival)
        print(f"\n{n_rows:,} rows × {N_NUMERIC + N_CATEGORIES} columns a side, {N_DAYS} days each, ", end="")
        print(f"{options.rounds} rounds; a stored profile has {size:,.0f} kB")
        print(runs[PRESET][0]["version"] if options.rival else "Evidently is left out: --rival is not given")
        show(runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
