"""What `bench_profile` measures, each contender in a process of its own: two tables, and what is done with them.

`python -m tests.benchmarks.profile_contenders NAME FOLDER` reads the tables of a folder, does what the contender does
once with their first rows (so that imports and first calls are done), then with all of them, and prints what that
took and found as JSON.
"""
# ruff: noqa: T201 - the parent process reads what it prints

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import feather
from scipy.stats import chi2_contingency, ks_2samp

from ml_assets.drift.compare import compare
from ml_assets.drift.settings import DriftSettings
from ml_assets.profiles.document import from_document, to_document
from ml_assets.profiles.profile import Profile, merge
from ml_assets.profiles.table import profile_table
from tests.benchmarks.profile_rival import WARM_UP_ROWS, measured

Days = NDArray[np.datetime64]
Found = dict[str, Any]

SIDES = ("reference", "current")
FIRST_DAYS = ("2013-01-01", "2013-01-31")
QUANTILES = np.linspace(0, 1, 20)
N_DAYS, N_NUMERIC, N_CATEGORIES, N_MONTHS = 30, 40, 10, 12
VALUES_OF_CATEGORIES = (2, 5, 12, 16, 30, 100, 400, 900, 5_000, 200_000)
MOVED = ("number_0", "number_4", "number_6", "category_1")
"""Columns that the current table has otherwise: two shifted (one with nulls), one wider, one of other shares."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two tables, in each form that a contender takes it in.

    Attributes:
        table: 40 columns of numbers and 10 of texts.
        frame: The same in pandas.
        days: Local day of each row, in order, datetime64[D].
        stored: JSON of its profile.
    """

    table: pa.Table
    frame: pd.DataFrame
    days: Days
    stored: str

    def head(self, n_rows: int) -> "Side":
        """Return its first rows in days of equal size, with their profile."""
        table = self.table.slice(0, n_rows)
        days = self.days[0] + (np.arange(len(table)) * N_DAYS // len(table)).astype("timedelta64[D]")
        return Side(table=table, frame=self.frame.head(n_rows), days=days, stored=stored(table, days))


def made_up(n_rows: int, seed: int, *, first_day: str = FIRST_DAYS[0], moved: bool = False) -> tuple[pa.Table, Days]:
    """Return 40 numeric columns and 10 of text, and the local day of each row, in its order.

    Numbers are continuous, skewed, whole, mostly zero, and continuous with 3 % nulls, in turns. Categories have 2 to
    200,000 values. With `moved`, the columns `MOVED` are distributed otherwise.
    """
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
        if moved and f"number_{i}" in MOVED:
            values = values * 4 if i == 6 else values + 0.8
        columns[f"number_{i}"] = pa.array(values, mask=rng.random(n_rows) < 0.03 if i % len(shapes) == 4 else None)
    for i, n_values in enumerate(VALUES_OF_CATEGORIES):
        names = pa.array([f"value-{j:06d}" for j in range(n_values)])
        power = 4 if moved and f"category_{i}" in MOVED else 2
        columns[f"category_{i}"] = names.take(pa.array((n_values * rng.random(n_rows) ** power).astype(np.int64)))
    days = np.datetime64(first_day) + np.sort(rng.integers(0, N_DAYS, n_rows)).astype("timedelta64[D]")
    return pa.table(columns), days


def write_tables(folder: Path, n_rows: int) -> None:
    """Write both tables, their days and their stored profiles."""
    for seed, (side, first_day) in enumerate(zip(SIDES, FIRST_DAYS, strict=True)):
        table, days = made_up(n_rows, seed, first_day=first_day, moved=side == "current")
        feather.write_feather(table, folder / f"{side}.arrow", compression="uncompressed")
        np.save(folder / f"{side}_days.npy", days.astype(np.int64))
        (folder / f"{side}.json").write_text(stored(table, days), encoding="utf-8")


def read_tables(folder: Path) -> tuple[Side, Side]:
    """Return (reference, current) as they were written, in memory."""
    reference, current = (
        Side(
            table=(table := feather.read_table(folder / f"{side}.arrow", memory_map=False)),
            frame=table.to_pandas(),
            days=np.load(folder / f"{side}_days.npy").astype("datetime64[D]"),
            stored=(folder / f"{side}.json").read_text(encoding="utf-8"),
        )
        for side in SIDES
    )
    return reference, current


def stored(table: pa.Table, days: Days) -> str:
    """Return the profile of a table as it is stored."""
    return json.dumps(to_document(profile_table(table, table.column_names, days)))


def read_back(text: str) -> Profile:
    """Return a stored profile."""
    return from_document(json.loads(text))


def plain_whole(frame: pd.DataFrame) -> dict[str, tuple[Any, ...]]:
    """Return facts of each column of a frame, in numpy and pandas."""
    facts: dict[str, tuple[Any, ...]] = {}
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


def plain_days(frame: pd.DataFrame, days: Days) -> list[dict[str, object]]:
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


def plain_tests(reference: pd.DataFrame, current: pd.DataFrame) -> Found:
    """Return the Kolmogorov-Smirnov distance of each number, and the columns with p below 0.05 by scipy's tests."""
    distances, moved = {}, []
    for name in reference.columns:
        if name.startswith("category"):
            counts = pd.concat([side[name].value_counts() for side in (reference, current)], axis=1).fillna(0)
            p_value = chi2_contingency(counts.to_numpy().T).pvalue  # pyright: ignore[reportAttributeAccessIssue]
        else:
            sides = [values[np.isfinite(values)] for values in (reference[name].to_numpy(), current[name].to_numpy())]
            test = ks_2samp(*sides, method="asymp")
            distances[name], p_value = float(test.statistic), test.pvalue  # pyright: ignore[reportAttributeAccessIssue]
        if p_value < 0.05:
            moved.append(name)
    return {"distances": distances, "moved": moved}


def comparison(reference: Profile, current: Profile) -> Found:
    """Return the distance of each number and the columns that moved, as we tell it; the report is made to be stored."""
    report = compare(reference, current, importance={}, settings=DriftSettings())
    document = json.dumps(report.to_document())
    distances = {column.name: column.distance for column in report.columns if column.kind == "numeric"}
    return {"distances": distances, "moved": list(report.moved), "bytes": len(document)}


def _profile(_: Side, current: Side) -> Found:
    profile = profile_table(current.table, current.table.column_names, current.days)
    return {"rows": profile.n_rows}


def _facts(_: Side, current: Side) -> Found:
    return {"columns": len(plain_whole(current.frame))}


def _daily_facts(_: Side, current: Side) -> Found:
    plain_whole(current.frame)
    return {"days": len(plain_days(current.frame, current.days))}


def _comparison(reference: Side, current: Side) -> Found:
    return comparison(read_back(reference.stored), read_back(current.stored))


def _year(reference: Side, current: Side) -> Found:
    months = [_earlier(read_back(reference.stored), month * N_DAYS) for month in range(N_MONTHS)]
    return comparison(merge(months), read_back(current.stored))


def _earlier(profile: Profile, n_days: int) -> Profile:
    """Return the same rows so many days earlier."""
    columns = {
        name: replace(column, blocks=tuple(replace(block, days=block.days - n_days) for block in column.blocks))
        for name, column in profile.columns.items()
    }
    return replace(profile, days=profile.days - n_days, columns=columns)


def _tests(reference: Side, current: Side) -> Found:
    return plain_tests(reference.frame, current.frame)


def _profile_and_comparison(reference: Side, current: Side) -> Found:
    return comparison(read_back(reference.stored), read_back(stored(current.table, current.days)))


def _both_profiles_and_comparison(reference: Side, current: Side) -> Found:
    then, now = (stored(side.table, side.days) for side in (reference, current))
    return comparison(read_back(then), read_back(now))


CONTENDERS: Mapping[str, Callable[[Side, Side], Found]] = {
    "profile": _profile,
    "facts": _facts,
    "daily facts": _daily_facts,
    "comparison": _comparison,
    "comparison with a year": _year,
    "tests": _tests,
    "profile and comparison": _profile_and_comparison,
    "both profiles and comparison": _both_profiles_and_comparison,
}


def main(name: str, folder: Path) -> None:
    """Measure one contender and print it."""
    sides, contender = read_tables(folder), CONTENDERS[name]
    contender(*(side.head(WARM_UP_ROWS) for side in sides))
    print(json.dumps(measured(lambda: contender(*sides))))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
