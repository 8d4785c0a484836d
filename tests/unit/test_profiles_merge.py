"""Profiles add up: parts give what the whole gives, in any order and grouping; the same rows give the same profile."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.profiles.bins import day_counts, edges
from ml_assets.profiles.category import CategoryProfile
from ml_assets.profiles.document import to_document
from ml_assets.profiles.numeric import CELLS, NumericProfile
from ml_assets.profiles.profile import Profile, merge
from ml_assets.profiles.table import can_profile, profile_table
from tests.unit.profile_tables import days_of, histogram, numbers, numeric_of, rows, texts

pair = st.tuples(numbers, texts)
parts_of_rows = st.lists(rows(pair, max_size=20), max_size=4)


def profile(found: list[tuple[int, Any]]) -> Profile:
    table = pa.table(
        {
            "number": pa.array([number for _, (number, _) in found], pa.float64()),
            "text": pa.array([text for _, (_, text) in found], pa.string()),
        }
    )
    return profile_table(table, ["number", "text"], days_of([day for day, _ in found]))


def columns(found: Profile) -> tuple[NumericProfile, CategoryProfile]:
    number, text = found.columns["number"], found.columns["text"]
    assert isinstance(number, NumericProfile)
    assert isinstance(text, CategoryProfile)
    return number, text


@given(parts_of_rows)
def test_parts_give_what_the_whole_gives(parts: list[list[tuple[int, Any]]]) -> None:
    whole = profile([row for part in parts for row in part])
    merged = merge([profile([]), *map(profile, parts)])

    assert (merged.n_rows, merged.days.tolist()) == (whole.n_rows, whole.days.tolist())
    (number, text), (whole_number, whole_text) = columns(merged), columns(whole)
    for fact in ("n_rows", "n_nulls", "n_nans", "n_infinities", "n_values", "n_distinct"):
        assert getattr(number, fact) == getattr(whole_number, fact), fact
    for fact in ("n_rows", "n_nulls", "n_values", "value_counts", "n_distinct", "count_error"):
        assert getattr(text, fact) == getattr(whole_text, fact), fact
    for fact in ("min", "max"):
        assert getattr(number, fact) == pytest.approx(getattr(whole_number, fact), rel=0, abs=0, nan_ok=True)
    size = max(abs(number.min), abs(number.max))
    assert number.mean == pytest.approx(whole_number.mean, rel=1e-9, abs=1e-12 * size, nan_ok=True)
    if size < 1e7:
        assert number.m2 == pytest.approx(whole_number.m2, rel=1e-9, abs=1e-12 * size**2)
    inner = edges(whole_number, 4)
    assert inner.tolist() == edges(number, 4).tolist()
    for ours, theirs in (
        (day_counts(number, inner), day_counts(whole_number, inner)),
        (day_counts(text, ["a", "b"]), day_counts(whole_text, ["a", "b"])),
    ):
        assert ours[0].tolist() == theirs[0].tolist()
        assert ours[1].tolist() == theirs[1].tolist()


@given(parts_of_rows, st.randoms())
def test_neither_order_nor_grouping_matters(parts: list[list[tuple[int, Any]]], random: Any) -> None:
    profiles = [profile(part) for part in parts]
    shuffled = random.sample(profiles, len(profiles))
    cut = random.randint(0, len(profiles))

    expected = to_document(merge(profiles))

    assert to_document(merge(shuffled)) == expected
    assert to_document(merge([merge(shuffled[:cut]), merge(shuffled[cut:])])) == expected
    assert to_document(merge([merge(profiles), Profile()])) == expected
    a, b = merge(profiles), merge(shuffled)
    if profiles:
        assert columns(a)[0].m2 == pytest.approx(columns(b)[0].m2, rel=0, abs=0, nan_ok=True)
        assert columns(a)[0].mean == pytest.approx(columns(b)[0].mean, rel=0, abs=0, nan_ok=True)


def test_the_error_of_ranks_does_not_grow_with_the_number_of_parts() -> None:
    rng = np.random.default_rng(3)
    parts = [rng.normal(0.2 * i, 1 + i / 5, 1_000 * (1 + i % 4)) for i in range(36)]
    merged = merge(
        profile_table(pa.table({"x": part}), ["x"], days_of(np.sort(rng.integers(i * 10, i * 10 + 30, len(part)))))
        for i, part in enumerate(parts)
    ).columns["x"]
    assert isinstance(merged, NumericProfile)
    values = np.sort(np.concatenate(parts))

    assert merged.rank_error <= 1.1 / CELLS
    xs = np.linspace(values[0] - 1, values[-1] + 1, 2_000)
    true = np.searchsorted(values, xs, side="right") / len(values)
    assert np.abs(merged.ranks(xs) - true).max() <= merged.rank_error
    ps = np.linspace(0, 1, 101)
    found = np.searchsorted(values, merged.quantiles(ps), side="right") / len(values)
    assert np.abs(found - ps).max() <= 2 * merged.rank_error
    assert merged.n_distinct == pytest.approx(len(values), rel=4 * 0.023)
    assert merged.mean == pytest.approx(values.mean(), rel=1e-12)
    assert merged.std == pytest.approx(values.std(ddof=1), rel=1e-12)


def test_days_of_two_airports_add_up() -> None:
    rng = np.random.default_rng(4)
    halves = [(rng.normal(size=6_000), np.sort(rng.integers(0, 30, 6_000))) for _ in range(2)]
    merged = merge(profile_table(pa.table({"x": x}), ["x"], days_of(days)) for x, days in halves)
    column = merged.columns["x"]
    assert isinstance(column, NumericProfile)
    values, days = np.concatenate([x for x, _ in halves]), np.concatenate([d for _, d in halves])

    inner = edges(column, 10)
    found_days, counts = day_counts(column, inner)

    assert found_days.tolist() == merged.days.tolist() == days_of(range(30)).tolist()
    true = histogram(values, days, inner)
    assert counts.sum(axis=1).tolist() == pytest.approx(true.sum(axis=1).tolist())
    error = np.abs(np.cumsum(counts - true, axis=1))
    assert error.sum(axis=0).max() <= column.rank_error * len(values)
    assert (error / true.sum(axis=1, keepdims=True)).max() < 0.02, "also the share of any single day is close"


def test_values_that_only_some_partitions_keep_are_bounded() -> None:
    rng = np.random.default_rng(2)
    parts = [[f"v{i}" for i in rng.zipf(1.3, 8_000) % 9_000] for _ in range(3)] + [["rare"] * 3, ["v1", "v2"]]
    merged = merge(profile_table(pa.table({"x": part}), ["x"], days_of([0] * len(part))) for part in parts).columns["x"]
    assert isinstance(merged, CategoryProfile)
    true = Counter(value for part in parts for value in part)
    assert merged.count_error > 0
    assert merged.value_counts["rare"] == 3
    assert all(n <= true[value] <= n + merged.count_error for value, n in merged.value_counts.items())
    assert max(n for value, n in true.items() if value not in merged.value_counts) <= merged.count_error
    assert sum(merged.value_counts.values()) + merged.n_other == true.total()
    assert merged.n_distinct == pytest.approx(len(true), rel=4 * 0.023)


@given(rows(pair), st.randoms())
def test_the_same_rows_give_the_same_document(found: list[tuple[int, Any]], random: Any) -> None:
    shuffled = random.sample(found, len(found))
    assert to_document(profile(shuffled)) == to_document(profile(found))


def test_the_form_of_the_table_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    days = days_of(np.sort(rng.integers(0, 30, 3_000)))
    number = pa.array(rng.normal(size=3_000), mask=rng.random(3_000) < 0.1)
    text = pa.array([f"v{i}" for i in rng.integers(0, 2_000, 3_000)], mask=rng.random(3_000) < 0.1)
    plain = to_document(profile_table(pa.table({"n": number, "t": text}), ["n", "t"], days))

    chunked = pa.chunked_array([number[:1], number[1:1], number[1:2_000], number[2_000:]])
    forms = {
        "chunks": pa.table({"n": chunked, "t": text}),
        "dictionary": pa.table({"n": number.dictionary_encode(), "t": text.dictionary_encode()}),
        "large": pa.table({"n": number, "t": text.cast(pa.large_string())}),
        "slice": pa.concat_tables([pa.table({"n": number, "t": text})] * 2).slice(3_000),
    }
    for form, table in forms.items():
        assert to_document(profile_table(table, ["n", "t"], days)) == plain, form
    order = rng.permutation(3_000)
    mixed = pa.table({"n": number, "t": text}).take(order)
    assert to_document(profile_table(mixed, ["n", "t"], days[order])) == plain


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        (pa.array([0, 86_400], pa.timestamp("s")), 43_200),
        (pa.array([1_500_000, None], pa.timestamp("us", tz="America/New_York")), 1.5),
        (pa.array([0, 1], pa.date32()), 43_200),
        (pa.array([0, 86_400_000], pa.date64()), 43_200),
        (pa.array([1_000, 2_000], pa.time32("ms")), 1.5),
        (pa.array([1_000, 2_000], pa.time64("ns")), 1.5e-6),
        (pa.array([1, 2], pa.duration("ms")), 0.0015),
        (pa.array(["1.50", "2.50"]).cast(pa.decimal128(5, 2)), 2),
        (pa.array([1, 2], pa.uint8()), 1.5),
        (pa.array([2**60, 2**60], pa.int64()), 2.0**60),
        (pa.array([1.5, 2.5], pa.float16()), 2),
    ],
)
def test_numbers_and_times_are_numeric(values: pa.Array, mean: float) -> None:
    column = profile_table(pa.table({"x": values}), ["x"], days_of([0, 1])).columns["x"]
    assert isinstance(column, NumericProfile)
    assert column.mean == pytest.approx(mean)
    assert column.n_nulls == values.null_count


def test_what_cannot_be_profiled_is_refused() -> None:
    table = pa.table({"x": pa.array([[1], [2]])})
    assert not can_profile(table.schema.field("x").type)
    assert not can_profile(pa.binary())
    assert not can_profile(pa.month_day_nano_interval())
    with pytest.raises(ValueError, match=r"column 'x' has type list<.*leave the column out"):
        profile_table(table, ["x"], days_of([0, 1]))
    with pytest.raises(ValueError, match="there are 1 days for 2 rows"):
        profile_table(table, [], days_of([0]))


def test_a_column_of_two_kinds_does_not_add_up() -> None:
    number, text = (profile_table(pa.table({"x": values}), ["x"], days_of([0])) for values in ([1], ["1"]))
    with pytest.raises(ValueError, match="Column 'x' is numeric in some profiles and a category in others"):
        merge([number, text])


def test_a_column_that_some_parts_lack_counts_its_own_rows() -> None:
    one = profile_table(pa.table({"x": [1, 2]}), ["x"], days_of([0, 1]))
    two = profile_table(pa.table({"y": [1]}), ["y"], days_of([2]))
    merged = merge([one, two])
    assert (merged.n_rows, merged.columns["x"].n_rows, merged.columns["y"].n_rows) == (3, 2, 1)


def test_nothing_adds_up_to_nothing() -> None:
    assert (merge([]).n_rows, len(merge([]).days), merge([]).columns) == (0, 0, {})
    assert math.isnan(numeric_of([]).mean)
