import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml_assets.drift.compare import compare
from ml_assets.drift.effects import adjusted, ks_distance, largest_change, psi, wasserstein
from ml_assets.drift.report import DriftReport
from ml_assets.drift.settings import DriftSettings, settings_of
from ml_assets.drift.verdicts import final_verdict, persistent
from ml_assets.errors import StoreError
from ml_assets.profiles.profile import Profile, merge
from ml_assets.profiles.table import profile_table
from ml_assets.testing.policy_source import FakePolicySource
from tests.benchmarks import drift_null

GOLDEN = Path(__file__).parents[1] / "golden" / "drift_report.json"
SETTINGS = DriftSettings()


def days_of(n_days: int, rows_per_day: int, first: str = "2013-01-01") -> NDArray[np.datetime64]:
    return np.repeat(np.datetime64(first) + np.arange(n_days), rows_per_day)


def table(seed: int, n: int) -> dict[str, NDArray | list]:
    rng = np.random.default_rng(seed)
    return {
        "distance": rng.gamma(2, 300, n),
        "hour": rng.integers(6, 23, n),
        "carrier": rng.choice(["AA", "B6", "DL", "UA"], n, p=[0.3, 0.3, 0.2, 0.2]).tolist(),
        "seats": np.where(rng.random(n) < 0.1, np.nan, rng.normal(150, 30, n)).tolist(),
    }


def profile(columns: dict, days: NDArray[np.datetime64]) -> Profile:
    filled = {k: [None if v != v else v for v in vs] if k == "seats" else vs for k, vs in columns.items()}
    return profile_table(pa.table(filled), list(columns), days)


def sides(n_days: int = 60, **changes) -> tuple[Profile, Profile]:
    """Two quiet sides of which the current one has some columns replaced."""
    then, now = days_of(n_days, 50), days_of(30, 50, "2013-06-01")
    return profile(table(1, len(then)), then), profile(table(2, len(now)) | changes, now)


def report(*, importance: dict[str, float] | None = None, n_days: int = 60, **changes) -> DriftReport:
    reference, current = sides(n_days, **changes)
    return compare(reference, current, importance=importance or {}, settings=SETTINGS)


def aspect(found: DriftReport, column: str, name: str):
    return next(a for a in found.column(column).aspects if a.name == name)


def test_a_quiet_month_is_stable() -> None:
    found = report()

    assert found.moved == ()
    assert (found.verdict, found.importance_moved, found.problem) == ("stable", 0.0, "")


def test_a_shifted_column_is_named_and_no_other() -> None:
    rng = np.random.default_rng(3)

    found = report(distance=rng.gamma(2, 300, 1500) + 300, importance={"distance": 3.0, "hour": 1.0})

    assert found.moved == ("distance",)
    assert (found.verdict, found.importance_moved) == ("moved", 0.75)
    assert found.column("distance").distance > 0.2
    assert aspect(found, "distance", "distribution").p_adjusted < 1e-3


def test_the_same_columns_are_named_when_the_sides_change_places() -> None:
    rng = np.random.default_rng(3)
    one, other = sides(30, distance=rng.gamma(2, 300, 1500) + 400)

    named = [compare(*pair, importance={}, settings=SETTINGS).moved for pair in ((one, other), (other, one))]

    assert named == [("distance",), ("distance",)]


def test_a_significant_but_small_change_is_not_named() -> None:
    rng = np.random.default_rng(3)
    found = report(distance=rng.gamma(2, 300, 1500) + 40)

    assert aspect(found, "distance", "distribution").p_adjusted < 0.05
    assert found.moved == ()


def test_a_large_change_on_few_days_is_not_named() -> None:
    """Half of the month's rows are new, but they came on two days: days like these were never seen, nor is it drift."""
    then, rows = days_of(60, 50), np.where(np.arange(30) < 2, 700, 50)
    now = np.repeat(np.datetime64("2013-06-01") + np.arange(30), rows)
    columns = table(2, len(now))
    columns["distance"] = np.where(np.arange(len(now)) < 1400, 5000.0, columns["distance"])

    found = compare(profile(table(1, len(then)), then), profile(columns, now), importance={}, settings=SETTINGS)

    assert aspect(found, "distance", "distribution").beyond
    assert found.moved == ()


def test_what_moved_must_matter_to_the_model() -> None:
    rng = np.random.default_rng(3)
    shifted = rng.gamma(2, 300, 1500) + 300

    found = report(distance=shifted, importance={"distance": 0.05, "hour": 0.95})

    assert found.moved == ("distance",)
    assert (found.verdict, found.importance_moved) == ("stable", 0.05)


def test_new_and_vanished_categories_are_named_with_their_values() -> None:
    rng = np.random.default_rng(3)
    carriers = rng.choice(["AA", "B6", "DL", "F9"], 1500, p=[0.3, 0.3, 0.3, 0.1]).tolist()

    found = report(carrier=carriers)

    column = found.column("carrier")
    assert (column.unseen, column.vanished) == (("F9",), ("UA",))
    assert aspect(found, "carrier", "unseen").moved
    assert aspect(found, "carrier", "vanished").moved
    assert aspect(found, "carrier", "unseen").effect == pytest.approx(0.1, abs=0.02)
    assert aspect(found, "carrier", "vanished").effect == pytest.approx(0.2, abs=0.02)


def test_names_that_keep_coming_are_not_new() -> None:
    """Of a long tail of names each period has some that no earlier one had; the reference tells how many."""
    rng = np.random.default_rng(8)
    names = np.minimum(rng.zipf(1.5, 4500), 10**6).astype(str)
    then, now = days_of(60, 50), days_of(30, 50, "2013-06-01")
    reference = profile_table(pa.table({"plane": names[:3000]}), ["plane"], then)
    current = profile_table(pa.table({"plane": names[3000:]}), ["plane"], now)

    found = compare(reference, current, importance={}, settings=SETTINGS)

    known = set(names[:3000])
    assert np.mean([name not in known for name in names[3000:]]) > SETTINGS.new_category_share
    assert not aspect(found, "plane", "unseen").beyond


def test_missing_values_are_named() -> None:
    rng = np.random.default_rng(3)
    seats = np.where(rng.random(1500) < 0.3, np.nan, rng.normal(150, 30, 1500)).tolist()

    found = report(seats=seats)

    assert found.moved == ("seats",)
    assert [a.name for a in found.column("seats").aspects if a.moved] == ["nulls"]
    assert found.column("seats").null_rates == pytest.approx((0.1, 0.3), abs=0.03)


def test_numbers_outside_of_the_range_are_named() -> None:
    rng = np.random.default_rng(3)
    hours = np.where(rng.random(1500) < 0.15, 99, rng.integers(6, 23, 1500))

    found = report(hour=hours)

    assert found.moved == ("hour",)
    assert {a.name for a in found.column("hour").aspects if a.moved} == {"distribution", "unseen"}
    assert (found.column("hour").reference_range, found.column("hour").current_range) == ((6.0, 22.0), (6.0, 99.0))


def test_with_too_few_days_nothing_is_tested_and_it_says_so() -> None:
    found = report(n_days=9, distance=np.full(1500, 1e6))

    assert found.verdict == "unknown"
    assert found.problem.startswith("not enough days: the reference has 9 and the current side 30")
    assert found.moved == ()
    assert aspect(found, "distance", "distribution").beyond
    assert found.column("distance").p_adjusted is None


def test_what_cannot_be_compared_is_told() -> None:
    then, now = days_of(60, 50), days_of(30, 50)
    reference, current = profile(table(1, 3000), then), profile(table(2, 1500) | {"hour": ["x"] * 1500}, now)

    found = compare(reference, current, importance={}, settings=SETTINGS, columns=["distance", "hour", "gate"])

    assert [column.name for column in found.columns] == ["distance"]
    assert found.not_compared == {
        "hour": "it was numeric and is category now",
        "gate": "the reference and the current side has no such column",
    }


def test_an_empty_and_a_constant_column_are_compared() -> None:
    then, now = days_of(60, 50), days_of(30, 50)
    nothing, one = pa.array([None] * 3000, pa.float64()), np.ones(3000)

    def of(columns: dict, days: NDArray[np.datetime64]) -> Profile:
        return profile_table(pa.table(columns), list(columns), days)

    reference = of({"nothing": nothing, "one": one}, then)
    same = of({"nothing": nothing[:1500], "one": one[:1500]}, now)
    other = of({"nothing": pa.array(one[:1500]), "one": one[:1500] * 2}, now)

    assert compare(reference, same, importance={}, settings=SETTINGS).moved == ()
    assert compare(reference, other, importance={}, settings=SETTINGS).moved == ("one", "nothing")


@pytest.mark.parametrize("n_columns", [10, 30])
def test_months_without_drift_raise_no_more_alarms_than_the_policy_allows(n_columns: int) -> None:
    """A few of the thousand months of tests/benchmarks/drift_null.py."""
    strict = replace(SETTINGS, importance_share=0.0)
    found = list(drift_null.reports(12, strict, first_seed=0, n_columns=n_columns, reference_days=30, rows_per_day=40))

    shares = drift_null.alarms(found)
    assert shares["beyond"] == 1.0  # by effects alone every month is an alarm
    assert shares["alarm"] <= 0.05


@pytest.mark.parametrize("kind", [pa.float64(), pa.string()])
def test_of_a_column_that_lost_all_values_only_the_missing_ones_are_named(kind: pa.DataType) -> None:
    then, now = days_of(60, 50), days_of(30, 50, "2013-06-01")
    values = pa.array(np.arange(3000) % 7).cast(kind)
    reference = profile_table(pa.table({"x": values}), ["x"], then)
    current = profile_table(pa.table({"x": pa.array([None] * 1500, kind)}), ["x"], now)

    column = compare(reference, current, importance={}, settings=SETTINGS).columns[0]

    assert [(a.name, a.moved) for a in column.aspects] == [("distribution", False), ("nulls", True)]
    assert (column.psi, column.distance) == (0.0, 0.0)


def test_infinities_that_the_reference_has_are_not_new() -> None:
    rng = np.random.default_rng(9)

    def of(n: int, share: float) -> NDArray:
        return np.where(rng.random(n) < share, np.inf, rng.normal(size=n))

    def judged(before: float, after: float) -> tuple[str, ...]:
        then, now = days_of(60, 50), days_of(30, 50, "2013-06-01")
        first, second = (
            profile_table(pa.table({"x": of(len(days), share)}), ["x"], days)
            for days, share in ((then, before), (now, after))
        )
        return compare(first, second, importance={}, settings=SETTINGS).moved

    assert judged(0.06, 0.06) == judged(1.0, 1.0) == ()
    assert judged(0.0, 0.06) == ("x",)


def test_another_unit_is_found_where_days_are_much_alike() -> None:
    """Temperature in °F in place of °C after one month: no share of a bin can be further apart than wholly."""
    rng = np.random.default_rng(2)
    world = drift_null.World(rng=rng, day=np.repeat(np.arange(60), 20), storm=np.zeros(60))
    celsius = 8 * drift_null.column(world, "weather").to_numpy()
    days = days_of(60, 20)
    reference = profile_table(pa.table({"temp": celsius[:600]}), ["temp"], days[:600])
    current = profile_table(pa.table({"temp": 1.8 * celsius[600:] + 60}), ["temp"], days[600:])

    column = compare(reference, current, importance={}, settings=SETTINGS).columns[0]

    assert column.moved
    assert column.p_adjusted is not None
    assert column.p_adjusted < 1e-3


def test_a_report_survives_its_document() -> None:
    rng = np.random.default_rng(3)
    found = report(distance=rng.gamma(2, 300, 1500) + 300, carrier=["ZZ"] * 1500)

    assert DriftReport.from_document(json.loads(json.dumps(found.to_document()))) == found


def test_the_document_is_as_it_was() -> None:
    """Other values for the same data would be other data versions. Write the file anew when that is meant."""
    rng = np.random.default_rng(3)
    document = report(distance=rng.gamma(2, 300, 1500) + 300).to_document()

    assert json.loads(json.dumps(document)) == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_a_document_of_another_format_is_refused() -> None:
    with pytest.raises(StoreError, match="has format 99; expected 1"):
        DriftReport.from_document({"format": 99})


def test_partitions_may_come_in_any_order() -> None:
    days = days_of(60, 50)
    parts = [profile({k: v[i::3] for k, v in table(1, 3000).items()}, days[i::3]) for i in range(3)]
    current = sides()[1]

    once, again = (
        compare(merge(order), current, importance={}, settings=SETTINGS).to_document() for order in (parts, parts[::-1])
    )

    assert once == again


SHARES = st.lists(st.floats(0.001, 1.0), min_size=2, max_size=12)


@given(SHARES, st.data())
def test_effects_are_zero_on_equal_shares_and_symmetric(values: list[float], data: st.DataObject) -> None:
    first = np.array(values) / sum(values)
    other = np.array(data.draw(st.lists(st.floats(0.001, 1.0), min_size=len(values), max_size=len(values))))
    second = other / other.sum()

    for effect in (psi, ks_distance, largest_change):
        assert effect(first, first) == 0.0
        assert effect(first, second) >= 0.0
        assert effect(first, second) == pytest.approx(effect(second, first))
    assert largest_change(first, second) <= 1.0 + 1e-12
    order = np.argsort(first)
    assert psi(first[order], second[order]) == pytest.approx(psi(first, second))


def test_the_wasserstein_distance_of_a_shift_is_the_shift_in_interquartile_ranges() -> None:
    quantiles = np.linspace(0.0, 8.0, 101)

    assert wasserstein(quantiles, quantiles + 2.0) == pytest.approx(0.5)
    assert wasserstein(quantiles, quantiles) == 0.0


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30))
def test_the_correction_is_that_of_scipy(p_values: list[float]) -> None:
    from scipy.stats import false_discovery_control

    given_values = np.array(p_values)
    assert adjusted(given_values) == pytest.approx(false_discovery_control(given_values))


@pytest.mark.parametrize(
    ("partition", "earlier", "expected"),
    [
        ("moved", [], "suspected"),
        ("moved", [True], "drift"),
        ("moved", [True, False], "drift"),
        ("moved", [True, False, False], "suspected"),
        ("stable", [True, True], "stable"),
        ("unknown", [True, True], "unknown"),
    ],
)
def test_only_what_persists_is_drift(partition, earlier: list[bool], expected: str) -> None:
    assert final_verdict(partition, earlier, k=2, n=3) == expected


@given(st.lists(st.booleans(), max_size=10), st.integers(1, 5), st.integers(1, 5))
def test_persistence_counts_the_last_partitions(history: list[bool], k: int, n: int) -> None:
    assert persistent(history, k, n) == (sum(history[-n:]) >= k)
    assert persistent([*history, *[True] * k], k, max(k, n))


def test_each_group_of_a_period_has_its_share_of_alpha() -> None:
    policy = FakePolicySource({"drift.alpha": 0.03, "drift.psi": 0.1}).effective(("shop", "returns"))

    found = settings_of(policy, 3)

    assert (found.alpha, found.psi, found.ks, found.k, found.n) == (0.01, 0.1, 0.1, 2, 3)
