from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.drift.day_test import block_length, day_test, mean_test


def correlated(rng: np.random.Generator, n: int, correlation: float) -> np.ndarray:
    noise = rng.normal(size=n)
    noise[1:] *= np.sqrt(1 - correlation**2)
    for i in range(1, n):
        noise[i] += correlation * noise[i - 1]
    return noise


def draw(rng: np.random.Generator, days: int, *, day_effect: float, correlation: float, shift: float = 0.0):
    """Rows by day and decile of a standard normal number with day effects, 40 rows a day."""
    values = shift + rng.normal(size=(days, 40)) + day_effect * correlated(rng, days, correlation)[:, None]
    edges = np.linspace(-1.5, 1.5, 9) * np.sqrt(1 + day_effect**2)
    code = np.searchsorted(edges, values) + 10 * np.arange(days)[:, None]
    return np.bincount(code.ravel(), minlength=10 * days).reshape(days, 10).astype(float)


def p_values(n: int, seed: int, *, reference_days: int = 60, shift: float = 0.0, ordered: bool = True, **how: float):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        days = draw(rng, reference_days + 30, **how)  # pyright: ignore[reportArgumentType]
        now = draw(rng, 30, shift=shift, **how) if shift else days[reference_days:]  # pyright: ignore[reportArgumentType]
        found.append(day_test(days[:reference_days], now, block_days=5, ordered=ordered).p_value)
    return np.array(found)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("reference_days", [30, 60, 200])
@pytest.mark.parametrize(("day_effect", "correlation"), [(0.0, 0.0), (0.6, 0.4), (3.0, 0.7)])
def test_days_of_one_process_are_seldom_told_apart(
    day_effect: float, correlation: float, reference_days: int, ordered: bool
) -> None:
    p = p_values(200, 7, reference_days=reference_days, day_effect=day_effect, correlation=correlation, ordered=ordered)

    # Three standard errors of 200 draws above the level.
    assert (p < 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert (p < 0.001).mean() <= 0.001 + 3 * np.sqrt(0.001 * 0.999 / 200)


def test_a_test_of_rows_would_raise_an_alarm_in_most_months() -> None:
    """What the test is for: with the same days, rows taken as independent say "moved" in most months."""
    from scipy.stats import chi2_contingency

    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(100):
        days = draw(rng, 90, day_effect=0.6, correlation=0.4)
        table = np.vstack([days[:60].sum(axis=0), days[60:].sum(axis=0)]) + 0.5
        alarms += chi2_contingency(table).pvalue < 0.05

    assert alarms > 50


def test_a_shift_is_found_the_more_surely_the_less_days_differ() -> None:
    independent = p_values(50, 1, day_effect=0.0, correlation=0.0, shift=0.3)
    dependent = p_values(50, 1, day_effect=0.6, correlation=0.4, shift=1.5)

    assert (independent < 0.01).all()
    assert (dependent < 0.05).mean() > 0.8


def test_two_hundred_columns_can_be_corrected_for() -> None:
    """A p-value of a simulation ends at one over its draws; this one is as small as the distance is large."""
    p = p_values(20, 2, reference_days=90, day_effect=0.2, correlation=0.3, shift=1.5)

    assert np.median(p) < 0.05 / 200


def test_a_storm_on_one_day_of_the_current_month_is_no_drift() -> None:
    calm = np.tile([100.0, 0.0], (60, 1))
    month = np.tile([100.0, 0.0], (30, 1))
    month[11] = [10.0, 90.0]

    assert day_test(calm, month, block_days=5).p_value > 0.05


def test_what_is_new_on_every_day_is_drift() -> None:
    rng = np.random.default_rng(4)
    share = rng.uniform(0.05, 0.15, 30)
    month = np.column_stack([100 * (1 - share), 100 * share])

    assert day_test(np.tile([100.0, 0.0], (60, 1)), month, block_days=5).p_value < 1e-4


def test_one_bin_for_all_rows_says_nothing_and_another_says_everything() -> None:
    same, other = np.tile([5.0, 0.0], (20, 1)), np.tile([0.0, 5.0], (20, 1))

    assert day_test(same, same, block_days=5).p_value == 1.0
    assert day_test(same, other, block_days=5).p_value == 0.0


@pytest.mark.parametrize(("reference", "current"), [(1, 10), (10, 0), (0, 10)])
def test_without_days_nothing_is_significant(reference: int, current: int) -> None:
    assert day_test(np.ones((reference, 3)), np.ones((current, 3)), block_days=5).p_value == 1.0


def test_few_days_need_a_larger_distance() -> None:
    rng = np.random.default_rng(5)
    long, now = draw(rng, 100, day_effect=0.3, correlation=0.0), draw(rng, 30, day_effect=0.3, correlation=0.0, shift=1)

    assert day_test(long[:10], now, block_days=5).p_value > 10 * day_test(long, now, block_days=5).p_value


@pytest.mark.parametrize(("days", "expected"), [((30, 30, 5), 5), ((90, 30, 5), 11), ((365, 30, 5), 30)])
def test_blocks_grow_with_the_reference_up_to_the_current_length(days: tuple[int, int, int], expected: int) -> None:
    assert block_length(*days) == expected


TABLES = st.integers(2, 6).flatmap(
    lambda bins: st.tuples(
        *(
            st.lists(st.lists(st.integers(0, 50), min_size=bins, max_size=bins), min_size=low, max_size=25)
            for low in (2, 1)
        )
    )
)


@given(TABLES, st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_p_value_is_a_share_and_equal_sides_have_no_distance(
    tables: tuple[list[list[int]], list[list[int]]], ordered: bool
) -> None:
    reference, current = (np.array(table, dtype=float) for table in tables)

    found = day_test(reference, current, block_days=3, ordered=ordered)

    assert 0.0 <= found.p_value <= 1.0
    assert found.directions >= 1.0
    assert day_test(reference, reference, block_days=3, ordered=ordered).p_value == 1.0


@given(TABLES, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_categories_does_not_matter(
    tables: tuple[list[list[int]], list[list[int]]], random: Random
) -> None:
    reference, current = (np.array(table, dtype=float) for table in tables)
    order = list(range(reference.shape[1]))
    random.shuffle(order)

    once = day_test(reference, current, block_days=3).p_value
    again = day_test(reference[:, order], current[:, order], block_days=3).p_value

    assert again == pytest.approx(once, rel=1e-6, abs=1e-12)


def sums(values: np.ndarray) -> np.ndarray:
    """Number, sum and sum of squares of the rows of each day, shape (days, 3)."""
    return np.column_stack([np.full(len(values), values.shape[1]), values.sum(axis=1), (values**2).sum(axis=1)])


def weather(rng: np.random.Generator, days: int) -> np.ndarray:
    """Twenty equal values a day that hang together from day to day, shape (days, 20)."""
    return np.repeat(correlated(rng, days, 0.7)[:, None], 20, axis=1)


def test_means_of_days_of_one_process_are_seldom_told_apart() -> None:
    rng = np.random.default_rng(6)
    p = []
    for _ in range(400):
        days = sums(weather(rng, 90))
        p.append(mean_test(days[:60], days[60:], block_days=5).p_value)

    assert np.mean(np.array(p) < 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean(np.array(p) < 0.001) <= 0.001 + 3 * np.sqrt(0.001 * 0.999 / 400)


def test_sides_that_lie_wholly_apart_are_told_apart_by_their_means() -> None:
    """Another unit, such as °F in place of °C: the days' shares alone can be no further apart than wholly."""
    rng = np.random.default_rng(6)
    then, now = weather(rng, 30), weather(rng, 30) + 30.0

    assert mean_test(sums(then), sums(now), block_days=5).p_value < 1e-4
    assert mean_test(sums(then), sums(then), block_days=5).p_value == 1.0
    assert mean_test(sums(then)[:1], sums(now), block_days=5).p_value == 1.0
