"""Profiles of numeric columns: facts, ranks, quantiles and the counts of days, against numpy on the rows."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml_assets.profiles.bins import day_counts, edges
from ml_assets.profiles.numeric import CELLS, EXACT_VALUES, NumericProfile
from ml_assets.profiles.table import profile_table
from tests.unit.profile_tables import days_of, histogram, numbers, numeric_of, profile_of, rows

Shape = Callable[[np.random.Generator, int], NDArray[np.float64]]

SHAPES: dict[str, Shape] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "lognormal": lambda rng, n: rng.lognormal(0, 3, n),
    "mostly zero": lambda rng, n: np.where(rng.random(n) < 0.7, 0.0, rng.gamma(1, 50, n)),
    "two spikes": lambda rng, n: np.where(rng.random(n) < 0.5, rng.choice([-1.0, 7.5], n), rng.normal(size=n)),
    "whole numbers": lambda rng, n: np.round(rng.normal(0, 400, n)),
    "days apart": lambda rng, n: np.sort(rng.normal(size=n)),
    "wide": lambda rng, n: rng.normal(size=n) * 10.0 ** rng.integers(-300, 300, n),
    "alternating": lambda rng, n: np.repeat(rng.normal(size=n // 2), 2),
}


def column(found: list[tuple[int, Any]]) -> NumericProfile:
    profile = profile_of(found, pa.float64()).columns["x"]
    assert isinstance(profile, NumericProfile)
    return profile


@example([(0, 0.0), (0, 0.0), (0, 1.2883302290571527e-160)])
@given(rows(numbers))
def test_counts_and_moments_are_those_of_numpy(found: list[tuple[int, Any]]) -> None:
    profile = column(found)
    given_ = [value for _, value in found if value is not None]
    finite = np.array([value for value in given_ if math.isfinite(value)])

    assert profile.n_rows == len(found)
    assert profile.n_nulls == len(found) - len(given_)
    assert profile.n_nans == sum(math.isnan(value) for value in given_)
    assert profile.n_infinities == (given_.count(-math.inf), given_.count(math.inf))
    assert profile.n_values == len(finite)
    assert profile.n_distinct == len(np.unique(finite))
    assert profile.is_distinct_exact
    if len(finite) == 0:
        assert all(math.isnan(fact) for fact in (profile.min, profile.max, profile.mean, profile.m2, profile.std))
        return
    assert (profile.min, profile.max) == (finite.min(), finite.max())
    scale = np.abs(finite).max()
    mean = float(sum(map(Fraction, finite.tolist())) / len(finite))
    assert profile.mean == pytest.approx(mean, abs=max(1e-12 * scale, 1e-320), rel=1e-12)
    if scale < 1e7:
        # The squares of tiny values have no digits: they go in steps of 5e-324.
        m2 = ((finite - finite.mean()) ** 2).sum()
        assert profile.m2 == pytest.approx(m2, abs=max(1e-12 * scale**2, 1e-318), rel=1e-9)
        assert len(finite) < 2 or profile.std == pytest.approx(finite.std(ddof=1), abs=1e-6 * scale)


@given(rows(numbers), st.lists(st.floats(-1e7, 1e7), max_size=6, unique=True))
def test_counts_of_days_are_exact_for_few_values(found: list[tuple[int, Any]], chosen: list[float]) -> None:
    inner = np.sort(np.array(chosen) + 0.0)
    values = np.array([math.nan if value is None else value for _, value in found], dtype=np.float64)
    numbers_of_days = np.array([day for day, _ in found], dtype=np.int64)

    days, counts = day_counts(column(found), np.unique(inner))

    assert days.tolist() == days_of(np.unique(numbers_of_days)).tolist()
    assert counts.tolist() == histogram(values, numbers_of_days, np.unique(inner)).tolist()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [600, 1_023, 9_000, 50_000])
def test_ranks_and_quantiles_are_within_the_error_that_is_told(shape: str, n: int) -> None:
    rng = np.random.default_rng(n)
    values = SHAPES[shape](rng, n)
    profile = numeric_of(values)

    assert profile.rank_error <= math.ceil(len(values) / CELLS) / len(values)
    between = rng.uniform(values.min() / 2, values.max() / 2, 300)
    xs = np.array([*rng.choice(values, 300), *between, values[0] * 2])
    true = np.searchsorted(np.sort(values), xs, side="right") / len(values)
    assert np.abs(profile.ranks(xs) - true).max() <= profile.rank_error + 1e-12
    assert profile.ranks([values.min(), values.max()])[1] == 1.0

    ps = np.array([0, 0.001, 0.01, 0.25, 0.5, 0.75, 0.99, 1])
    quantiles = profile.quantiles(ps)
    assert np.isin(quantiles, values).all()
    ordered = np.sort(values)
    below = np.searchsorted(ordered, quantiles, side="left") / len(values)
    up_to = np.searchsorted(ordered, quantiles, side="right") / len(values)
    miss = np.maximum(0, np.maximum(below - ps, ps - up_to))
    assert miss.max() <= 1 / CELLS + 1 / len(values)
    assert (quantiles[0], quantiles[-1]) == (values.min(), values.max())


@pytest.mark.parametrize("shape", SHAPES)
def test_own_edges_give_exact_counts_of_days_and_any_edge_close_ones(shape: str) -> None:
    rng = np.random.default_rng(5)
    values = SHAPES[shape](rng, 9_000)
    days = np.sort(rng.integers(0, 30, len(values)))
    profile = numeric_of(values, days)

    own = edges(profile, 10)
    assert day_counts(profile, own)[1].tolist() == histogram(values, days, own).tolist()

    other = np.unique(rng.choice(values, 12) * 1.0001)
    counts, true = day_counts(profile, other)[1], histogram(values, days, other)
    assert counts.sum(axis=1).tolist() == pytest.approx(true.sum(axis=1).tolist())
    below, truly_below = np.cumsum(counts, axis=1), np.cumsum(true, axis=1)
    assert np.abs(below - truly_below).sum(axis=0).max() <= profile.rank_error * len(values) + 1e-6


def test_bins_have_about_equally_many_values_and_ties_make_fewer() -> None:
    rng = np.random.default_rng(1)
    even = numeric_of(rng.normal(size=20_000))
    counts = day_counts(even, edges(even, 10))[1][0]
    assert len(counts) == 11
    assert np.abs(counts[:10] / 20_000 - 0.1).max() <= 2 / CELLS
    assert counts[10] == 0

    spiked = numeric_of(SHAPES["mostly zero"](rng, 9_000))
    assert len(edges(spiked, 10)) == 3
    assert edges(spiked, 10)[0] == 0.0
    assert edges(numeric_of([0, 1, 1, 0]), 10).tolist() == [0.0]
    assert edges(numeric_of([1.0, 2.0]), 1).tolist() == []


def test_another_value_than_a_constants_shows() -> None:
    inner = edges(numeric_of([3.0] * 50), 10)
    assert day_counts(numeric_of([2.9, 3.0, 3.1, math.nan]), inner)[1].tolist() == [[1, 1, 1, 1]]


def test_a_common_value_does_not_hide_its_neighbours() -> None:
    values = np.concatenate([np.zeros(5_000), np.linspace(-1, -0.001, 2_500), np.linspace(0.001, 1, 2_500)])
    profile = numeric_of(values)
    just_below, at = profile.ranks([-0.0005, 0.0])
    assert just_below == pytest.approx(0.25, abs=1e-12)
    assert at == pytest.approx(0.75, abs=1e-12)


def test_infinities_are_in_the_outer_bins_and_null_and_nan_in_the_last() -> None:
    table = pa.table({"x": pa.array([-math.inf, 1.0, 2.0, math.inf, math.inf, None, math.nan])})
    profile = profile_table(table, ["x"], days_of([0] * 7)).columns["x"]
    assert isinstance(profile, NumericProfile)
    assert day_counts(profile, np.array([1.0, 1.5]))[1].tolist() == [[2, 0, 3, 2]]
    assert day_counts(profile, np.array([]))[1].tolist() == [[5, 2]]
    assert (profile.min, profile.max, profile.n_values) == (1.0, 2.0, 2)


@pytest.mark.parametrize("values", [[], [None, None], [math.nan, None], [math.inf]])
def test_a_column_without_finite_values_has_no_quantiles(values: list[float | None]) -> None:
    profile = column([(0, value) for value in values])
    assert np.isnan(profile.quantiles([0.1, 0.9])).all()
    assert np.isnan(profile.ranks([0.0])).all()
    assert edges(profile, 10).tolist() == []
    assert profile.n_distinct == 0
    assert profile.rank_error == 0.0


def test_a_constants_moments_have_no_rounding() -> None:
    profile = numeric_of([0.1] * 1_001, np.arange(1_001) % 7)
    assert (profile.mean, profile.m2, profile.std) == (0.1, 0.0, 0.0)


def test_squares_beyond_float64_are_infinite_and_the_mean_is_not() -> None:
    profile = numeric_of([1.7e308, -1.7e308, 1.7e308, 1.7e308])
    assert profile.mean == pytest.approx(0.85e308)
    assert profile.m2 == math.inf
    tiny = numeric_of(np.array([1.0, 2.0, 3.0]) * 1e-150)
    assert tiny.mean == pytest.approx(2e-150)
    assert tiny.m2 == pytest.approx(2e-300)


def test_the_mean_of_numbers_far_from_zero_keeps_its_digits() -> None:
    values = 1e9 + np.random.default_rng(0).normal(size=20_000)
    profile = numeric_of(values, np.arange(20_000) % 30)
    assert profile.std == pytest.approx(values.std(ddof=1), rel=1e-9)


@pytest.mark.parametrize("n", [EXACT_VALUES, EXACT_VALUES + 1, 3_000, 200_000])
def test_distinct_values_are_counted_or_estimated(n: int) -> None:
    values = np.random.default_rng(n).permutation(np.repeat(np.arange(n) / 7, 2))
    profile = numeric_of(values)
    assert profile.is_distinct_exact == (n <= EXACT_VALUES)
    assert profile.n_distinct == pytest.approx(n, rel=0 if n <= EXACT_VALUES else 4 * 0.023)


@pytest.mark.parametrize("bad", [[2.0, 1.0], [1.0, 1.0], [math.nan], [math.inf]])
def test_edges_that_do_not_ascend_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="expected finite, ascending numbers"):
        day_counts(numeric_of([1.0]), np.array(bad))
    with pytest.raises(ValueError, match="n_bins is 0; expected at least 1"):
        edges(numeric_of([1.0]), 0)
