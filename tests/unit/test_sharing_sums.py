"""What teams used of late and what their month costs."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.interfaces import ComputeRules, TeamShare
from ml_assets.interfaces.spend import Spend
from ml_assets.sharing.budgets import RunningCost, budgets, month_bounds, month_of, waiting_text
from ml_assets.sharing.runs import RunningRun
from ml_assets.sharing.shares import duration
from ml_assets.sharing.usage import UsageHistory

NOW = datetime(2013, 9, 2, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_the_mean_of_constant_use_is_that_use() -> None:
    history = UsageHistory(HOUR)
    history.add("flights", {"gpus": 3}, NOW - 100 * HOUR, NOW)

    assert history.means(NOW)["flights"]["gpus"] == pytest.approx(3)


def test_use_counts_half_after_the_half_life() -> None:
    history = UsageHistory(HOUR)
    history.add("flights", {"gpus": 3}, NOW - 100 * HOUR, NOW)

    assert history.means(NOW + HOUR * 0.693147)["flights"]["gpus"] == pytest.approx(1.5, rel=1e-5)


@given(st.permutations([(0, 3), (1, 2), (5, 9), (2, 9)]))
def test_the_order_in_which_ended_runs_are_told_does_not_matter(spans: list[tuple[int, int]]) -> None:
    history = UsageHistory(HOUR)
    for begin, end in spans:
        history.add("flights", {"gpus": 1}, NOW + begin * HOUR, NOW + end * HOUR)

    expected = sum(integral(begin, end, now=10) for begin, end in spans)
    assert history.means(NOW + 10 * HOUR)["flights"]["gpus"] == pytest.approx(expected)


def integral(begin: int, end: int, *, now: int) -> float:
    """Return the definition of a mean: the sum of exp(-(now - t)) over a run's time, in steps of a second."""
    return sum(math.exp(begin + (n + 0.5) / 3600 - now) for n in range((end - begin) * 3600)) / 3600


def test_a_run_in_progress_counts_as_if_it_ended_now() -> None:
    ended, going = UsageHistory(HOUR), UsageHistory(HOUR)
    ended.add("flights", {"gpus": 2}, NOW - HOUR, NOW)
    run = RunningRun(run_id="r", team="flights", demand={"gpus": 2}, started=NOW - HOUR)
    unknown = RunningRun(run_id="s", team="flights", demand={"gpus": 2})

    assert going.means(NOW, [run, unknown])["flights"]["gpus"] == pytest.approx(ended.means(NOW)["flights"]["gpus"])


def test_months_are_calendar_months_in_utc() -> None:
    assert month_of(datetime(2013, 9, 1, 1, 0, tzinfo=UTC).astimezone()) == "2013-09"
    assert month_bounds("2013-12") == (datetime(2013, 12, 1, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC))


RULES = ComputeRules(
    teams={"flights": TeamShare(budget_per_month=10.0, over_budget="refuse"), "births": TeamShare(weight=2)}
)


def test_a_run_that_has_just_begun_is_expected_to_cost_what_runs_cost_on_average() -> None:
    running = {
        "a": RunningCost(team="flights"),
        "b": RunningCost(team="flights", kept=0.5, so_far=4.5),
        "c": RunningCost(team="births", so_far=100.0),
    }

    (month,) = budgets(RULES, {"flights": Spend(amount=6.0, runs=4)}, running, now=NOW).values()

    assert (month.team, month.month, month.spent, month.budget) == ("flights", "2013-09", 6.0, 10.0)
    assert month.running == 1.5 + 4.0
    assert month.is_over()


def test_a_team_that_has_spent_nothing_is_not_over_its_budget() -> None:
    (month,) = budgets(RULES, {}, {"a": RunningCost(team="flights", so_far=9.99)}, now=NOW).values()

    assert not month.is_over()


def test_on_the_first_day_of_a_month_runs_are_expected_to_cost_what_they_did_in_the_month_before() -> None:
    before, running = {"flights": Spend(amount=30.0, runs=5)}, {"a": RunningCost(team="flights")}

    (month,) = budgets(RULES, {}, running, now=NOW, before=before).values()

    assert (month.spent, month.running, month.mean_run) == (0.0, 6.0, 6.0)
    assert not month.is_over()
    assert month.is_over(just_started=1)
    (later,) = budgets(RULES, {"flights": Spend(amount=2.0, runs=1)}, running, now=NOW, before=before).values()
    assert later.mean_run == 2.0


def test_a_refused_run_is_told_the_sums_and_what_to_do() -> None:
    (month,) = budgets(RULES, {"flights": Spend(amount=1234.5, runs=1)}, {}, now=NOW).values()

    assert waiting_text(month, "refused") == (
        "flights spent 1,234.50 of its budget of 10.00 EUR for 2013-09. Wait until 2013-10-01 (UTC), or have "
        "teams.flights.budget_per_month raised in policies/compute.yaml"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m"), (3661, "1h 1m"), (7200, "2h"), (190_000, "2d 4h"), (-5, "0s")],
)
def test_times_are_told_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
