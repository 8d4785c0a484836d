"""Errors over days that resemble each other: closed forms, laws, and the rate they keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from ml_assets.calibration import rate_with_error
from ml_assets.quality.day_error import (
    DayEstimate,
    added,
    autocorrelation,
    day_codes,
    day_estimate,
    holm,
    jackknife_influence,
    ratio_influence,
)

P_VALUES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12)


def days_of(rng: np.random.Generator, n_days: int, r: float) -> np.ndarray:
    """Return days of an AR(1) process of variance 1."""
    noise = rng.standard_normal(n_days + 50) * (1 - r**2) ** 0.5
    values = np.zeros(noise.size)
    for day in range(1, noise.size):
        values[day] = r * values[day - 1] + noise[day]
    return values[50:]


def test_days_without_autocorrelation_give_students_t() -> None:
    # Alternating days have a negative autocorrelation, which counts as none.
    values = np.tile([1.0, -0.4], 15) + 0.1
    found = day_estimate(float(values.mean()), values, 1)

    assert found is not None
    assert found.degrees == 29
    assert found.two_sided_p_value() == pytest.approx(ttest_1samp(values, 0.0).pvalue)


def test_a_ratio_has_cochrans_error() -> None:
    rng = np.random.default_rng(1)
    block = np.repeat(np.arange(20), rng.integers(5, 60, 20))
    target = (rng.random(block.size) < 0.3).astype(np.float64)
    totals, sizes = np.bincount(block, target), np.bincount(block).astype(np.float64)
    ratio, influence = ratio_influence(totals, sizes)
    influence = np.sort(influence)[
        np.argsort(np.tile([0, 10], 10), kind="stable").argsort()
    ]  # an order without autocorrelation
    found = day_estimate(ratio, influence, 1)

    assert found is not None
    rate, error = rate_with_error(target, block)
    assert (found.estimate, found.standard_error) == pytest.approx((rate, error))


def test_the_jackknife_of_a_mean_is_the_mean_itself() -> None:
    values = np.random.default_rng(2).normal(size=17)
    without = (values.sum() - values) / 16

    np.testing.assert_allclose(jackknife_influence(without), values - values.mean(), atol=1e-12)


@pytest.mark.parametrize(("r", "allowed"), [(0.0, 0.06), (0.3, 0.08), (0.6, 0.11)])
def test_a_month_of_days_that_resemble_each_other_keeps_the_rate(r: float, allowed: float) -> None:
    rng = np.random.default_rng(3)
    months = [days_of(rng, 30, r) for _ in range(1_000)]
    estimates = [day_estimate(float(month.mean()), month, 3) for month in months]
    alarms = np.mean([e is not None and e.two_sided_p_value() < 0.05 for e in estimates])
    naive = np.mean([ttest_1samp(month, 0.0).pvalue < 0.05 for month in months])

    assert alarms < allowed
    assert naive > (0.12 if r == 0.3 else 0.3 if r == 0.6 else 0.03)  # what independent days would say


def test_a_shift_of_one_days_spread_is_seen() -> None:
    rng = np.random.default_rng(4)
    estimates = [day_estimate(float(m.mean()), m, 3) for m in (days_of(rng, 30, 0.3) + 1.0 for _ in range(300))]

    assert np.mean([e is not None and e.two_sided_p_value() < 0.05 for e in estimates]) > 0.85


def test_too_few_days_have_no_error() -> None:
    assert day_estimate(0.0, np.arange(5.0), 3) is None
    assert day_estimate(0.0, np.arange(6.0), 3) is not None


@given(st.floats(0.0, 0.9), st.integers(0, 1_000))
def test_autocorrelation_is_a_share_and_raises_the_error(r: float, seed: int) -> None:
    values = days_of(np.random.default_rng(seed), 40, r)
    found = day_estimate(0.0, values, 3)

    assert found is not None
    assert 0.0 <= autocorrelation(values) <= 0.9
    assert found.standard_error >= values.std(ddof=1) / 40**0.5 - 1e-12
    assert 1.0 <= found.degrees <= 40 / 3


def test_long_blocks_leave_few_degrees_of_freedom() -> None:
    values = np.tile([1.0, -1.0], 15)
    degrees = [found.degrees for days in (1, 3, 10) if (found := day_estimate(0.0, values, days)) is not None]

    assert degrees == [29.0, 10.0, 3.0]


def test_equal_days_leave_no_doubt() -> None:
    found = DayEstimate(estimate=0.1, standard_error=0.0, degrees=9.0, n_days=30)

    assert (found.two_sided_p_value(), found.p_value(0.05), found.p_value(0.2)) == (0.0, 0.0, 1.0)
    assert DayEstimate(estimate=0.0, standard_error=0.0, degrees=9.0, n_days=30).two_sided_p_value() == 1.0
    assert found.interval(0.95) == (0.1, 0.1)


def test_a_difference_adds_variances() -> None:
    first = DayEstimate(estimate=0.8, standard_error=0.03, degrees=9.0, n_days=30)
    found = first.minus(DayEstimate(estimate=0.7, standard_error=0.04, degrees=9.0, n_days=28))

    assert (found.estimate, found.standard_error) == pytest.approx((0.1, 0.05))
    assert 9.0 < found.degrees < 18.0
    assert added([(0.0, 4.0), (0.0, 9.0)]) == (0.0, 4.0)


@given(P_VALUES)
def test_holm_is_monotone_and_between_the_p_values_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)

    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q + 1e-15
        assert q <= min(1.0, max(p_values) * len(p_values)) + 1e-15
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
    assert adjusted[int(order[0])] == pytest.approx(min(1.0, p_values[int(order[0])] * len(p_values)))


def test_rows_find_their_days() -> None:
    days = np.array(["2024-03-02", "2024-03-01", "2024-03-02"], dtype="datetime64[D]")
    found, code = day_codes(days)

    assert found.tolist() == sorted(set(days.tolist()))
    assert code.tolist() == [1, 0, 1]
