import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.errors import EvaluationError
from ml_assets.experiments.stopping import (
    ArmDay,
    confidence_sequence,
    losses_by_day,
    mixture_variance,
    row_losses,
    stop_rule,
)

ALPHA = 0.05


def days_of(differences):
    """Return days on which the challenger's mean loss is the champion's 0.5 and the difference more."""
    return [
        ArmDay(
            day=f"d{number:04d}",
            n_challenger=10,
            n_champion=90,
            challenger_loss=10 * (0.5 + float(difference)),
            champion_loss=45.0,
        )
        for number, difference in enumerate(differences)
    ]


def swapped(day):
    return ArmDay(
        day=day.day,
        n_challenger=day.n_champion,
        n_champion=day.n_challenger,
        challenger_loss=day.champion_loss,
        champion_loss=day.challenger_loss,
    )


def around(mean, n_days, seed=0, spread=0.02):
    return mean + spread * np.random.default_rng(seed).standard_normal(n_days)


# The interval


@pytest.mark.parametrize("n_days", [7, 10, 28, 100])
@pytest.mark.parametrize("tuned_for_days", [7, 30])
def test_the_interval_ends_where_the_bayes_factor_of_students_t_reaches_one_over_alpha(n_days, tuned_for_days):
    from scipy.stats import nct, norm, t

    differences = around(0.3, n_days, spread=1.0)
    lower, _ = confidence_sequence(differences, alpha=ALPHA, tuned_for_days=tuned_for_days)
    statistic = (differences.mean() - lower[-1]) / (differences.std(ddof=1) / math.sqrt(n_days))
    scale = math.sqrt(mixture_variance(ALPHA, tuned_for_days))

    effects = np.linspace(-8 * scale, 8 * scale, 8_001)
    densities = nct.pdf(statistic, n_days - 1, math.sqrt(n_days) * effects) * norm.pdf(effects, scale=scale)
    mixture = densities.sum() * (effects[1] - effects[0])
    assert mixture / t.pdf(statistic, n_days - 1) == pytest.approx(1 / ALPHA, rel=1e-3)


def test_with_many_days_it_is_the_asymptotic_confidence_sequence():
    n_days = 20_000
    differences = around(0.0, n_days, spread=1.0)
    lower, upper = confidence_sequence(differences, alpha=ALPHA)
    growth = n_days * mixture_variance(ALPHA, 30) + 1
    expected = differences.std() * math.sqrt(2 * growth / (n_days * (growth - 1)) * math.log(math.sqrt(growth) / ALPHA))
    assert (upper[-1] - lower[-1]) / 2 == pytest.approx(expected, rel=1e-3)


def test_it_is_wider_than_the_asymptotic_one_by_most_when_days_are_few():
    differences = around(0.0, 60, spread=1.0)
    lower, upper = confidence_sequence(differences, alpha=ALPHA)
    n = np.arange(1, 61)
    growth = n * mixture_variance(ALPHA, 30) + 1
    running = np.array([differences[:k].std() for k in n])
    asymptotic = running * np.sqrt(2 * growth / (n * (growth - 1)) * np.log(np.sqrt(growth) / ALPHA))
    ratio = (upper - lower)[6:] / 2 / asymptotic[6:]
    assert (np.diff(ratio) < 0).all()
    assert ratio[-1] > 1


@pytest.mark.parametrize("tuned_for_days", [20, 50, 100])
def test_no_other_tuning_is_much_narrower_at_the_day_it_is_tuned_for(tuned_for_days):
    differences = around(0.0, tuned_for_days, spread=1.0)

    def width(tuning):
        lower, upper = confidence_sequence(differences, alpha=ALPHA, tuned_for_days=tuning)
        return upper[-1] - lower[-1]

    assert width(tuned_for_days) < 1.03 * min(width(other) for other in np.geomspace(1, 1_000, 60))


NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=40).filter(lambda v: np.std(v) > 1e-3)


@given(values=NUMBERS, factor=st.floats(0.01, 100), shift=st.floats(-1e3, 1e3))
def test_it_moves_and_stretches_with_the_differences(values, factor, shift):
    differences = np.array(values)
    ends = confidence_sequence(differences, alpha=ALPHA)
    moved = confidence_sequence(factor * differences + shift, alpha=ALPHA)
    for before, after in zip(ends, moved, strict=True):
        np.testing.assert_allclose(after[-1], factor * before[-1] + shift, rtol=1e-6, atol=1e-6)


@given(values=NUMBERS, cut=st.integers(1, 4))
def test_a_later_day_does_not_change_an_earlier_interval(values, cut):
    differences = np.array(values)
    before = confidence_sequence(differences[:-cut], alpha=ALPHA)
    after = confidence_sequence(differences, alpha=ALPHA)
    for short, long in zip(before, after, strict=True):
        np.testing.assert_allclose(long[:-cut], short, rtol=1e-6, atol=1e-6)


def test_it_misses_the_mean_at_most_alpha_often_over_a_year_of_days():
    differences = np.random.default_rng(3).standard_normal((2_000, 365))
    lower, upper = confidence_sequence(differences, alpha=ALPHA)
    missed = ((lower > 0) | (upper < 0)).any(axis=1).mean()
    assert missed <= ALPHA
    # The same differences looked at daily with an ordinary t interval: what peeking does without protection.
    n = np.arange(2, 366)
    mean = differences.cumsum(axis=1)[:, 1:] / n
    error = np.sqrt((np.cumsum(differences**2, axis=1)[:, 1:] / n - mean**2) / (n - 1))
    assert (np.abs(mean) > 1.98 * error)[:, 26:].any(axis=1).mean() > 4 * ALPHA


# The verdict


@pytest.mark.parametrize(("mean", "outcome"), [(-0.03, "challenger_better"), (0.03, "champion_better")])
def test_a_clear_difference_stops_the_test_on_the_first_day_it_may(mean, outcome):
    found = stop_rule(days_of(around(mean, 40)), alpha=ALPHA)
    assert found.outcome == outcome
    assert found.first_decided == "d0027"
    assert found.more_days is None
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower < mean < found.upper


def test_nothing_is_decided_before_the_first_day_on_which_it_may():
    found = stop_rule(days_of(around(0.2, 27)), alpha=ALPHA)
    assert (found.outcome, found.first_decided, found.more_days) == ("go_on", None, 1)
    assert found.lower is not None
    assert found.lower > 0
    assert "nothing is decided before day 28" in found.reason


def test_equal_arms_go_on():
    found = stop_rule(days_of(around(0.0, 100)), alpha=ALPHA)
    assert (found.outcome, found.first_decided) == ("go_on", None)
    assert "the interval holds 0" in found.reason


def test_the_reason_has_the_numbers():
    found = stop_rule(days_of([0.1, 0.3] * 14), alpha=ALPHA)
    assert found.reason == (
        "the challenger's loss minus the champion's is +0.2 [+0.1368, +0.2632] over 28 days, at 95 % for all looks "
        "together: the champion is better"
    )


def test_the_first_decision_is_kept_when_later_days_take_it_back():
    found = stop_rule(days_of([*around(0.03, 30), *around(-0.1, 20)]), alpha=ALPHA)
    assert found.outcome == "go_on"
    assert found.first_decided == "d0027"


def test_days_without_rows_in_an_arm_are_skipped_and_named():
    daily = days_of(around(0.03, 30))
    daily[3] = replace(daily[3], n_challenger=0, challenger_loss=0.0)
    daily[7] = replace(daily[7], n_champion=0, champion_loss=0.0)
    found = stop_rule(daily, alpha=ALPHA)
    kept = stop_rule([d for d in daily if d.n_challenger and d.n_champion], alpha=ALPHA)
    assert found.skipped_days == ("d0003", "d0007")
    assert found == replace(kept, skipped_days=("d0003", "d0007"))


@pytest.mark.parametrize("n_days", [0, 1, 2])
def test_too_few_days_give_no_interval(n_days):
    found = stop_rule(days_of(around(0.1, n_days)), alpha=ALPHA)
    assert (found.outcome, found.lower, found.upper) == ("go_on", None, None)
    assert (found.estimate is None) == (n_days == 0)
    assert ("no day has rows with labels in both arms yet" if n_days == 0 else "unbounded yet") in found.reason


@given(values=st.lists(st.floats(-1, 1), max_size=60))
def test_when_the_arms_change_places_so_does_the_verdict(values):
    daily = days_of(values)
    one, other = stop_rule(daily, alpha=ALPHA), stop_rule([swapped(day) for day in daily], alpha=ALPHA)
    mirrored = {"challenger_better": "champion_better", "champion_better": "challenger_better", "go_on": "go_on"}
    assert other.outcome == mirrored[one.outcome]
    assert other.first_decided == one.first_decided
    if one.upper is not None:
        assert other.lower == pytest.approx(-one.upper, abs=1e-9)


@settings(max_examples=20)
@given(mean=st.floats(0.2, 0.6))
def test_so_many_more_days_decide_if_the_difference_stays(mean):
    pattern = [mean - 1, mean + 1] * 2_000
    found = stop_rule(days_of(pattern[:30]), alpha=ALPHA)
    if found.more_days is None:
        assert found.outcome == "champion_better"
        return
    # The pattern's mean and spread are the same on every second day.
    last = 30 + found.more_days + found.more_days % 2
    assert stop_rule(days_of(pattern[:last]), alpha=ALPHA).outcome == "champion_better"
    assert stop_rule(days_of(pattern[: last - 2]), alpha=ALPHA).outcome == "go_on"


def test_days_that_hang_together_show_in_the_correlation():
    noise = np.random.default_rng(0).standard_normal(2_000)
    apart = stop_rule(days_of(noise), alpha=ALPHA).lag1_correlation
    together = stop_rule(days_of(np.convolve(noise, np.ones(5) / 5, mode="valid")), alpha=ALPHA).lag1_correlation
    assert apart == pytest.approx(0.0, abs=0.15)
    assert together == pytest.approx(0.8, abs=0.1)
    assert stop_rule(days_of([0.0] * 10), alpha=ALPHA).lag1_correlation is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0.0; expected a number between 0 and 1, both excluded."),
        ({"tuned_for_days": 0}, "tuned_for_days is 0; expected a number of days ≥ 1, such as 30."),
        ({"min_days": 1}, "min_days is 1; expected at least 2, and 28 unless days are weeks."),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(EvaluationError, match=re.escape(message)):
        stop_rule(days_of([0.1]), **({"alpha": ALPHA} | changes))


def test_a_day_that_comes_twice_is_refused():
    with pytest.raises(EvaluationError, match=r"1 days come more than once, such as d0000; expected each day once"):
        stop_rule([*days_of([0.1]), *days_of([0.2])], alpha=ALPHA)


def test_a_sum_that_is_no_number_is_refused():
    with pytest.raises(EvaluationError, match=r"the losses of day d0001 sum to nan and 45.0; expected finite numbers"):
        stop_rule(days_of([0.1, float("nan")]), alpha=ALPHA)


# Losses of rows and days


def test_the_loss_of_a_row_is_its_log_loss_or_its_absolute_error():
    np.testing.assert_allclose(row_losses("binary", [1, 0], [0.8, 0.3]), [-math.log(0.8), -math.log(0.7)])
    np.testing.assert_allclose(
        row_losses("multiclass", ["b", "a"], [[0.1, 0.9], [0.4, 0.6]], ["a", "b"]), [-math.log(0.9), -math.log(0.4)]
    )
    np.testing.assert_allclose(row_losses("regression", [3.0, -1.0], [1.0, 1.0]), [2.0, 2.0])


@given(rows=st.lists(st.tuples(st.integers(1, 28), st.booleans(), st.floats(0, 10)), min_size=1, max_size=80))
def test_the_days_are_what_grouping_the_rows_gives(rows):
    frame = pd.DataFrame(rows, columns=["day", "challenger", "loss"])
    day = (np.datetime64("2013-01-01", "D") + frame["day"].to_numpy()).astype("datetime64[D]")
    found = losses_by_day(day, frame["challenger"].to_numpy(), frame["loss"].to_numpy())
    assert [d.day for d in found] == sorted({str(value) for value in day})
    for d in found:
        inside = frame[np.array([str(value) == d.day for value in day])]
        of_arm = {arm: inside["loss"][inside["challenger"] == arm] for arm in (True, False)}
        assert (d.n_challenger, d.n_champion) == (len(of_arm[True]), len(of_arm[False]))
        assert d.challenger_loss == pytest.approx(of_arm[True].sum())
        assert d.champion_loss == pytest.approx(of_arm[False].sum())


def test_rows_without_a_day_or_of_another_number_are_refused():
    with pytest.raises(EvaluationError, match="1 of 2 rows have no block label"):
        losses_by_day(np.array(["a", None], dtype=object), np.array([True, False]), np.zeros(2))
    with pytest.raises(EvaluationError, match=r"have shapes \(1,\), \(2,\) and \(2,\); expected one of each"):
        losses_by_day(["a"], np.array([True, False]), np.zeros(2))


def test_no_rows_are_no_days():
    assert losses_by_day([], np.zeros(0, dtype=bool), np.zeros(0)) == ()
