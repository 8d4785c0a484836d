"""Profiles of texts and booleans: counts of each value and day, the most frequent of many, and distinct values."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from ml_assets.profiles.bins import day_counts
from ml_assets.profiles.category import EXACT_VALUES, FREQUENT_VALUES, CategoryProfile, label_of
from ml_assets.profiles.distinct import estimate, hash_numbers, hash_texts, registers_of
from ml_assets.profiles.table import profile_table
from tests.unit.profile_tables import days_of, profile_of, rows, texts


def category_of(values: Any, days: Any = None) -> CategoryProfile:
    days = days_of(np.zeros(len(values), dtype=int) if days is None else days)
    column = profile_table(pa.table({"x": values}), ["x"], days).columns["x"]
    assert isinstance(column, CategoryProfile)
    return column


@given(rows(texts))
def test_every_value_is_counted(found: list[tuple[int, Any]]) -> None:
    column = profile_of(found, pa.string()).columns["x"]
    assert isinstance(column, CategoryProfile)
    true = Counter(label_of(value) for _, value in found if value is not None)

    assert column.value_counts == true
    assert list(column.value_counts.items()) == sorted(true.items(), key=lambda item: (-item[1], item[0]))
    assert (column.n_rows, column.n_nulls) == (len(found), sum(value is None for _, value in found))
    assert column.n_values == column.n_rows - column.n_nulls
    assert (column.n_other, column.count_error) == (0, 0)
    assert column.n_distinct == len(true)
    assert column.is_distinct_exact


@given(rows(texts))
def test_counts_of_days_have_a_bin_for_other_values_and_one_for_nulls(found: list[tuple[int, Any]]) -> None:
    column = profile_of(found, pa.string()).columns["x"]
    assert isinstance(column, CategoryProfile)
    chosen = ["a", "a" * 101, "not there"]

    days, counts = day_counts(column, chosen)

    present = sorted({day for day, _ in found})
    assert days.tolist() == days_of(present).tolist()
    for day, row in zip(present, counts, strict=True):
        values = [value for d, value in found if d == day]
        named = [values.count(value) for value in chosen]
        assert row.tolist() == [*named, len(values) - sum(named) - values.count(None), values.count(None)]


def many_values(seed: int, n: int = 40_000) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    common = rng.zipf(1.3, n) % 30_000
    return [f"v{i}" for i in common], rng.integers(0, 30, n)


def test_of_many_values_the_most_frequent_are_exact_and_the_rest_bounded() -> None:
    values, days = many_values(0)
    true = Counter(values)
    column = category_of(values, days)
    kept = column.value_counts

    assert len(true) > EXACT_VALUES
    assert len(kept) == FREQUENT_VALUES
    assert all(true[value] == n for value, n in kept.items())
    assert column.count_error == max(n for value, n in true.items() if value not in kept)
    assert column.count_error <= min(kept.values())
    assert column.n_other == len(values) - sum(kept.values())
    assert not column.is_distinct_exact
    assert column.n_distinct == pytest.approx(len(true), rel=4 * 0.023)
    _, counts = day_counts(column, list(kept)[:3])
    by_day = Counter(zip(values, days.tolist(), strict=True))
    assert counts[:, :3].tolist() == [[by_day[value, day] for value in list(kept)[:3]] for day in range(30)]


def test_equally_frequent_values_are_kept_by_their_text_whatever_the_order() -> None:
    values = [f"v{i:05d}" for i in range(3_000)] * 2
    shuffled = np.random.default_rng(0).permutation(np.array(values, dtype=object)).tolist()
    assert list(category_of(values).value_counts) == [f"v{i:05d}" for i in range(FREQUENT_VALUES)]
    assert category_of(shuffled).value_counts == category_of(values).value_counts


def test_values_that_occur_once_are_not_kept_when_there_are_many() -> None:
    column = category_of([f"id-{i}" for i in range(5_000)] + ["twice", "twice"])
    assert column.value_counts == {"twice": 2}
    assert (column.n_other, column.count_error) == (5_000, 1)
    assert column.n_distinct == pytest.approx(5_001, rel=4 * 0.023)


def test_a_long_text_is_kept_short_and_told_from_others() -> None:
    long = ["x" * 100, "x" * 101, "x" * 5_000, "x" * 4_999 + "y"]
    column = category_of(long)
    assert len(column.value_counts) == 4
    assert max(map(len, column.value_counts)) <= 100
    assert day_counts(column, [long[2]])[1].tolist() == [[1, 3, 0]]


def test_booleans_and_dictionaries_of_texts_are_categories() -> None:
    assert category_of(pa.array([True, None, False, True])).value_counts == {"true": 2, "false": 1}
    encoded = pa.array(["b", "a", None, "b"]).dictionary_encode()
    assert category_of(encoded).value_counts == {"b": 2, "a": 1}
    assert category_of(pa.array([None, None], pa.string())).n_nulls == 2


def test_a_value_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="expected distinct values"):
        day_counts(category_of(["a"]), ["a", "a"])


def test_hashes_do_not_change_with_releases() -> None:
    assert [hex(h) for h in hash_numbers(np.array([0.0, -0.0, 1.5]))] == [
        "0xe220a8397b1dcdaf",
        "0xe220a8397b1dcdaf",
        "0xd6dab18e1392608a",
    ]
    assert [hex(h) for h in hash_texts(np.array(["", "a", "é"], dtype=object))] == [
        "0x186da64456263a46",
        "0xc1999a454057bfd0",
        "0xeaa82851ccf8e8e7",
    ]


@pytest.mark.parametrize("n", [0, 1, 10, 1_000, 100_000])
def test_the_estimate_of_distinct_values_is_within_four_standard_errors(n: int) -> None:
    numbers = estimate(registers_of(hash_numbers(np.arange(n, dtype=np.float64))))
    words = estimate(registers_of(hash_texts(np.array([f"w{i}" for i in range(n)], dtype=object))))
    assert numbers == pytest.approx(n, rel=4 * 0.023)
    assert words == pytest.approx(n, rel=4 * 0.023)


def test_estimates_are_unbiased_and_spread_as_stated() -> None:
    n = 20_000
    found = [
        estimate(registers_of(hash_numbers(np.arange(n, dtype=np.float64) + seed * n))) / n - 1 for seed in range(300)
    ]
    assert abs(np.mean(found)) < 4 * 0.023 / 300**0.5
    assert np.std(found) == pytest.approx(0.023, rel=0.2)
