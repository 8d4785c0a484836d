"""The contenders of tests/benchmarks/bench_profile.py do the same work, so that their times can be compared."""

import sys
import time

import numpy as np
import pytest

from ml_assets.profiles.category import CategoryProfile
from ml_assets.profiles.numeric import NumericProfile
from ml_assets.profiles.table import profile_table
from tests.benchmarks import bench_profile
from tests.benchmarks.profile_contenders import (
    CONTENDERS,
    MOVED,
    N_CATEGORIES,
    N_DAYS,
    N_MONTHS,
    N_NUMERIC,
    made_up,
    plain_days,
    plain_whole,
    read_tables,
    write_tables,
)
from tests.benchmarks.profile_rival import drifted, measured

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    write_tables(folder, 4_000)
    return read_tables(folder)


def test_tables_are_what_was_made(sides):
    table, days = made_up(4_000, 1, first_day="2013-01-31", moved=True)
    assert sides[1].table.equals(table)
    assert (sides[1].days == days).all()
    assert len(np.unique(days)) == N_DAYS
    assert table.num_columns == N_NUMERIC + N_CATEGORIES


def test_a_profile_holds_the_plain_facts(sides):
    side = sides[1]
    facts, profile = plain_whole(side.frame), profile_table(side.table, side.table.column_names, side.days)
    assert facts.keys() == profile.columns.keys()
    for name, column in profile.columns.items():
        if isinstance(column, CategoryProfile):
            counts, n_distinct, n_nulls = facts[name]
            # Equally frequent values at the edge of those that are kept may be others.
            assert all(counts[value] == n for value, n in column.value_counts.items())
        else:
            assert isinstance(column, NumericProfile)
            quantiles, mean, variance, n_distinct, n_nulls = facts[name]
            assert column.mean == pytest.approx(mean)
            assert column.m2 / column.n_values == pytest.approx(variance)
            assert (column.min, column.max) == (quantiles[0], quantiles[-1])
        assert column.n_nulls == n_nulls
        assert column.n_distinct == pytest.approx(n_distinct, rel=0 if column.is_distinct_exact else 0.1)


def test_daily_facts_are_of_every_day_and_column(sides):
    found = plain_days(sides[1].frame, sides[1].days)
    assert len(found) == N_DAYS
    assert all(len(facts) == N_NUMERIC + N_CATEGORIES for facts in found)


def test_stored_profiles_tell_what_the_rows_tell(sides):
    by_rows, by_profiles = CONTENDERS["tests"](*sides), CONTENDERS["comparison"](*sides)
    assert set(MOVED) <= set(by_rows["moved"])
    assert set(by_profiles["moved"]) == set(MOVED)
    assert bench_profile.difference({"tests": [by_rows], "comparison": [by_profiles]}) < 0.02


@pytest.mark.parametrize("name", ["profile and comparison", "both profiles and comparison"])
def test_profiles_made_anew_give_the_same_comparison(sides, name):
    assert CONTENDERS[name](*sides) == CONTENDERS["comparison"](*sides)


def test_twelve_months_of_the_same_rows_have_the_same_distances(sides):
    one, many = (CONTENDERS[name](*sides)["distances"] for name in ("comparison", "comparison with a year"))
    assert N_MONTHS == 12
    assert one == pytest.approx(many)


def test_what_is_short_is_repeated_for_half_a_second_and_what_is_long_is_done_once():
    short, long = [], []
    found = measured(lambda: {"calls": short.append(1) or len(short)})
    assert found["calls"] == len(short) > 100
    assert found["wall"] * len(short) >= 0.5
    assert 0.5 <= measured(lambda: {"slept": long.append(1) or time.sleep(0.5)})["wall"] < 10
    assert len(long) == 1


def test_evidently_names_a_column_from_its_threshold_on():
    metrics = [
        {"config": {"type": "evidently:metric_v2:DriftedColumnsCount", "drift_share": 0.5}, "value": {"count": 2.0}},
        *(
            {"config": {"type": "evidently:metric_v2:ValueDrift", "column": c, "threshold": 0.1}, "value": value}
            for c, value in (("below", 0.09), ("at", 0.1), ("above", 0.79))
        ),
    ]
    assert drifted({"metrics": metrics, "tests": []}) == ["at", "above"]


def test_a_contender_that_fails_is_told_with_its_output(tmp_path):
    with pytest.raises(SystemExit, match=r"(?s)ended with code 1:.*reference\.arrow"):
        bench_profile.run_one("profile", tmp_path, None)


def test_too_few_rows_are_refused(capsys):
    with pytest.raises(SystemExit):
        bench_profile.main(["--rows", "100"])
    assert "--rows must be at least 1,500" in capsys.readouterr().err


def test_the_table_is_printed_without_evidently(capsys):
    assert bench_profile.main(["--rows", "2000", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert f"Python {sys.version.split()[0]}" in printed
    assert "2,000 rows × 50 columns a side, 30 days each, 1 rounds" in printed
    assert "Evidently is left out: --rival is not given" in printed
    assert "ours: profile ÷ numpy, pandas facts" in printed
    assert "÷ Evidently" not in printed
    assert "ours: comparison                       names 4 of 4 changed columns, 0 of 46 others" in printed
