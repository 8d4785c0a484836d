"""Which queued runs start: the laws of fair sharing, on random queues and on examples worked out by hand."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.interfaces import Ageing, ComputeRules, TeamShare
from ml_assets.sharing.budgets import Budget
from ml_assets.sharing.choose import choose
from ml_assets.sharing.runs import RUNS, Choice, QueuedRun, RunningRun

NOW = datetime(2013, 9, 2, 12, 0, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
TEAMS = ("births", "flights", "rides")


def run(name: str, *, waited: timedelta = MINUTE, price: float = 0.0, priority: int = 0, **demand: int) -> QueuedRun:
    """Return a run that waits; its name is "team-number"."""
    team = name.partition("-")[0]
    return QueuedRun(
        run_id=name,
        team=team,
        demand=demand or {"gpus": 1},
        priority=priority,
        submitted=NOW - waited,
        price_per_hour=price,
    )


def runs(team: str, count: int, **settings: Any) -> list[QueuedRun]:
    return [run(f"{team}-{n:02}", **settings) for n in range(count)]


def going(name: str, **demand: int) -> RunningRun:
    return RunningRun(run_id=name, team=name.partition("-")[0], demand=demand or {"gpus": 1}, started=NOW - HOUR)


def rules(teams: Mapping[str, TeamShare] | None = None, **capacity: int) -> ComputeRules:
    return ComputeRules(capacity=capacity or {"gpus": 8}, teams=teams or {"flights": TeamShare()})


def started(choice: Choice) -> list[str]:
    return [run.run_id for run in choice.start]


# Examples


def test_a_flood_of_one_team_does_not_delay_the_single_run_of_another() -> None:
    flood, held = runs("births", 30, waited=HOUR), [going(f"births-r{n}") for n in range(7)]

    choice = choose([*flood, run("flights-1")], held, rules(), now=NOW)

    assert started(choice) == ["flights-1"]
    assert choice.waits["births-00"].text == "it needs 1 gpu; 0 of 8 gpus are free"


def test_dominant_shares_are_equal_as_in_the_example_of_the_paper() -> None:
    queue = [*runs("births", 9, cores=1, memory=4), *runs("flights", 9, cores=3, memory=1)]

    choice = choose(queue, [], rules(cores=9, memory=18), now=NOW)

    assert sorted(started(choice)) == ["births-00", "births-01", "births-02", "flights-00", "flights-01"]


def test_a_weight_of_two_gets_twice_as_much() -> None:
    queue = [*runs("births", 20), *runs("flights", 20)]

    choice = choose(queue, [], rules({"flights": TeamShare(weight=2)}, gpus=9), now=NOW)

    assert sum(name.startswith("flights") for name in started(choice)) == 6


def test_who_used_less_of_late_goes_first() -> None:
    queue = [run("births-1", waited=HOUR), run("flights-1")]

    choice = choose(queue, [], rules(gpus=1), now=NOW, means={"births": {"gpus": 0.5}, "flights": {"gpus": 0.4}})

    assert started(choice) == ["flights-1"]


def test_priority_counts_within_a_team_only() -> None:
    queue = [run("births-1", priority=1000), run("births-2", priority=2000), run("flights-1")]

    assert started(choose(queue, [], rules(gpus=2), now=NOW)) == ["births-2", "flights-1"]


def test_waiting_raises_the_priority_by_one_for_each_step() -> None:
    old, new = run("flights-old", waited=31 * MINUTE), run("flights-new", priority=3)

    assert started(choose([old, new], [], rules(gpus=1), now=NOW)) == ["flights-old"]
    assert started(choose([replace(old, submitted=NOW - 29 * MINUTE), new], [], rules(gpus=1), now=NOW)) == [
        "flights-new"
    ]


def test_a_limit_is_kept_and_told() -> None:
    choice = choose(runs("flights", 4), [], rules({"flights": TeamShare(limit={"gpus": 3})}), now=NOW)

    assert len(choice.start) == 3
    assert choice.waits["flights-03"].kind == "limit"
    assert choice.waits["flights-03"].text == "flights uses 3 of its limit of 3 gpus, and it needs 1 gpu"


def test_an_overdue_run_is_not_passed_for_ever_within_its_teams_limit() -> None:
    limited = rules({"flights": TeamShare(limit={"gpus": 3})})
    queue = [run("flights-wide", gpus=3, waited=5 * HOUR), run("flights-narrow")]

    choice = choose(queue, [going("flights-r")], limited, now=NOW)
    assert started(choice) == []
    assert choice.waits["flights-narrow"].text == (
        "flights uses 1 of its limit of 3 gpus, and it needs 1 gpu; the rest is kept for run flights- of its own, "
        "which has waited 5h"
    )
    assert started(choose(queue[1:], [going("flights-r")], limited, now=NOW)) == ["flights-narrow"]


def test_a_reserve_is_lent_while_nobody_needs_it() -> None:
    reserved = rules({"flights": TeamShare(reserve={"gpus": 2})})

    assert len(choose(runs("births", 12), [], reserved, now=NOW).start) == 8


def test_a_borrower_starts_nothing_more_while_the_reserver_waits() -> None:
    reserved = rules({"flights": TeamShare(reserve={"gpus": 2})})
    held = [going(f"births-r{n}") for n in range(7)]
    queue = [*runs("births", 3, waited=HOUR), run("births-cpu", cores=4), run("flights-1", gpus=2)]

    choice = choose(queue, held, reserved, now=NOW)

    assert started(choice) == ["births-cpu"]
    assert choice.waits["flights-1"].kind == "resources"
    assert choice.waits["births-00"].text == (
        "it needs 1 gpu; 1 of 8 gpus are free, kept for run flights-, within the reserve of flights"
    )


def test_a_team_within_its_reserve_goes_before_one_with_a_smaller_share() -> None:
    reserved = rules({"flights": TeamShare(reserve={"gpus": 4})})
    held = [going("flights-r", gpus=3), going("rides-r", gpus=4)]

    assert started(choose([run("births-1", waited=HOUR), run("flights-1")], held, reserved, now=NOW)) == ["flights-1"]


def test_beyond_its_reserve_a_team_is_like_any_other() -> None:
    reserved = rules({"flights": TeamShare(reserve={"gpus": 2})}, gpus=3)

    choice = choose([*runs("flights", 3), run("births-1")], [], reserved, now=NOW)

    assert started(choice) == ["flights-00", "flights-01", "births-1"]


def test_narrow_runs_pass_a_wide_one_until_it_has_waited_too_long() -> None:
    held = [going("births-r", gpus=5)]
    wide, narrow = run("flights-wide", gpus=4), run("births-1", gpus=1)

    assert started(choose([wide, narrow], held, rules(), now=NOW)) == ["births-1"]

    choice = choose([replace(wide, submitted=NOW - 4 * HOUR), narrow], held, rules(), now=NOW)
    assert started(choice) == []
    assert choice.waits["births-1"].text == (
        "it needs 1 gpu; 3 of 8 gpus are free, kept for run flights- of flights, which has waited 4h"
    )


def test_what_a_held_run_does_not_need_goes_on() -> None:
    held = [going("births-r", gpus=5, cores=10)]
    wide = run("flights-wide", gpus=4, cores=8, waited=5 * HOUR)
    queue = [wide, run("births-a", cores=14), run("births-b", cores=1), run("births-c", gpus=1, cores=1)]

    assert started(choose(queue, held, rules(gpus=8, cores=32), now=NOW)) == ["births-a"]


def test_one_overdue_run_at_a_time_holds_back_others() -> None:
    held = [going("births-r", gpus=6)]
    queue = [run("flights-1", gpus=4, cores=1, waited=6 * HOUR), run("rides-1", gpus=4, memory=1, waited=5 * HOUR)]

    choice = choose([*queue, run("births-1", memory=1)], held, rules(gpus=8, memory=1), now=NOW)

    assert started(choice) == ["births-1"]  # rides-1 keeps nothing yet
    assert started(choose([*queue[:1], run("births-2", cores=1)], held, rules(gpus=8, cores=1), now=NOW)) == []


def test_the_overdue_backlog_of_a_flood_holds_back_nobody_with_a_smaller_share() -> None:
    held = [going("births-r", gpus=6)]
    queue = [run("births-wide", gpus=4, waited=9 * HOUR), run("flights-1"), run("flights-2")]

    assert started(choose(queue, held, rules(), now=NOW)) == ["flights-1", "flights-2"]


def test_a_run_that_needs_the_reserves_is_not_starved_by_those_who_use_them() -> None:
    reserved = rules({"flights": TeamShare(reserve={"gpus": 2})})
    whole = run("births-whole", gpus=8, waited=5 * HOUR)
    held = [going("flights-r")]

    assert started(choose([whole, run("flights-1")], held, reserved, now=NOW)) == []
    narrower = replace(whole, demand={"gpus": 6})
    held = [going("flights-r"), going("rides-r", gpus=2)]
    assert started(choose([narrower, run("flights-1")], held, reserved, now=NOW)) == ["flights-1"]


@pytest.mark.parametrize(
    ("demand", "text"),
    [
        ({"gpus": 9}, "it asks for 9 gpus at once, and the capacity is 8"),
        ({"gpus": 4}, "it asks for 4 gpus at once, and the limit of flights is 3"),
    ],
)
def test_a_run_that_can_never_start_holds_back_nobody(demand: dict[str, int], text: str) -> None:
    queue = [run("flights-1", waited=9 * HOUR, **demand), run("births-1")]

    choice = choose(queue, [], rules({"flights": TeamShare(limit={"gpus": 3})}), now=NOW)

    assert started(choice) == ["births-1"]
    assert (choice.waits["flights-1"].kind, choice.waits["flights-1"].text) == ("never", text)


def test_a_team_over_its_budget_waits_with_the_sums_and_its_free_runs_go_on() -> None:
    month = Budget(team="flights", month="2013-12", spent=1990, running=12.5, budget=2000, currency="EUR")

    choice = choose([run("flights-1", price=0.6), run("flights-2")], [], rules(), now=NOW, budgets={"flights": month})

    assert started(choice) == ["flights-2"]
    assert choice.waits["flights-1"].text == (
        "flights spent 1,990.00 of its budget of 2,000.00 EUR for 2013-12, runs in progress are expected to add 12.50; "
        "it waits until 2014-01-01 (UTC) or until the budget is raised"
    )


def test_runs_that_start_together_do_not_overdraw_a_budget_more_than_one_would() -> None:
    month = Budget(team="flights", month="2013-12", spent=90, running=0, budget=100, currency="EUR", mean_run=6)

    choice = choose(runs("flights", 8, price=0.6), [], rules(), now=NOW, budgets={"flights": month})

    assert len(choice.start) == 2


def test_what_the_engine_does_not_admit_waits_and_holds_back_nobody() -> None:
    queue = [run("flights-1", waited=9 * HOUR), run("flights-2"), run("births-1")]

    choice = choose(queue, [], rules(), now=NOW, admits=lambda run: run.run_id != "flights-1")

    assert sorted(started(choice)) == ["births-1", "flights-2"]
    assert choice.waits["flights-1"].kind == "engine"


def test_places_for_runs_are_a_resource() -> None:
    queue = [run(f"births-{n}", runs=1) for n in range(5)]

    choice = choose(queue, [going("births-r", runs=1)], ComputeRules(), now=NOW, slots=2)

    assert len(choice.start) == 1
    assert choice.waits["births-4"].text == "it needs a place; 0 of 2 places for runs are free"


def test_without_any_capacity_all_start() -> None:
    assert len(choose(runs("flights", 9), [], ComputeRules(), now=NOW).start) == 9


# Laws

SIZES = st.fixed_dictionaries({"gpus": st.integers(0, 9), "cores": st.integers(1, 40), RUNS: st.just(1)})


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[QueuedRun], list[RunningRun], ComputeRules, int]:
    """Draw a queue, what runs, the rules and the places for runs."""
    teams = {}
    for team in draw(st.sets(st.sampled_from(TEAMS))):
        reserve, limit = draw(st.integers(0, 2)), draw(st.none() | st.integers(2, 8))
        teams[team] = TeamShare(
            weight=draw(st.sampled_from([0.5, 1.0, 3.0])),
            reserve={"gpus": reserve} if reserve else {},
            limit={} if limit is None else {"gpus": limit},
        )
    queued = [
        QueuedRun(
            run_id=f"q{n}",
            team=draw(st.sampled_from(TEAMS)),
            demand=draw(SIZES),
            priority=draw(st.integers(-3, 3)),
            submitted=NOW - timedelta(minutes=draw(st.integers(-1, 600))),
        )
        for n in range(draw(st.integers(0, 12)))
    ]
    running = [
        RunningRun(run_id=f"r{n}", team=draw(st.sampled_from(TEAMS)), demand=draw(SIZES), started=NOW)
        for n in range(draw(st.integers(0, 3)))
    ]
    capacity = {"gpus": 8, "cores": 64} if draw(st.booleans()) else {"gpus": 8}
    return queued, running, ComputeRules(capacity=capacity, teams=teams), draw(st.integers(0, 8))


def held_by(found: Iterable[QueuedRun | RunningRun], resource: str, team: str | None = None) -> int:
    return sum(one.demand.get(resource, 0) for one in found if team in (None, one.team))


@given(situations())
@settings(max_examples=300, deadline=None)
def test_each_run_starts_or_has_a_reason_and_nothing_is_given_twice(situation: Any) -> None:
    queued, running, rules_, slots = situation

    choice = choose(queued, running, rules_, now=NOW, slots=slots)

    assert sorted([*started(choice), *choice.waits]) == sorted(run.run_id for run in queued)
    for resource, amount in {**rules_.capacity, RUNS: slots}.items():
        after, before = held_by([*running, *choice.start], resource), held_by(running, resource)
        assert after <= max(amount, before)
    for team, share in rules_.teams.items():
        for resource, most in share.limit.items():
            after, before = held_by([*running, *choice.start], resource, team), held_by(running, resource, team)
            assert after <= max(most, before)


@given(situations(), st.randoms())
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_queue_does_not_matter(situation: Any, shuffler: random.Random) -> None:
    queued, running, rules_, slots = situation
    shuffled = list(queued)
    shuffler.shuffle(shuffled)

    first = choose(queued, running, rules_, now=NOW, slots=slots)

    assert choose(shuffled, running[::-1], rules_, now=NOW, slots=slots) == first


@given(situations())
@settings(max_examples=300, deadline=None)
def test_nothing_that_fits_waits_unless_it_is_kept_for_somebody(situation: Any) -> None:
    queued, running, rules_, slots = situation

    choice = choose(queued, running, rules_, now=NOW, slots=slots)

    there_is = {**rules_.capacity, RUNS: slots}
    for run_ in queued:
        reason = choice.waits.get(run_.run_id)
        if reason is None or reason.kind in {"held", "limit", "never"}:
            continue
        assert any(held_by([*running, *choice.start], r) + run_.demand[r] > amount for r, amount in there_is.items()), (
            reason
        )


@given(situations())
@settings(max_examples=300, deadline=None)
def test_while_a_reserver_waits_no_other_takes_what_it_needs(situation: Any) -> None:
    queued, running, rules_, slots = situation

    choice = choose(queued, running, rules_, now=NOW, slots=slots)

    within = {}
    for team, share in rules_.teams.items():
        left = share.reserve.get("gpus", 0) - held_by([*running, *choice.start], "gpus", team)
        within[team] = [
            run_
            for run_ in queued
            if run_.team == team and 0 < run_.demand["gpus"] <= left and choice.waits.get(run_.run_id) is not None
        ]
    short = [run_ for waiting in within.values() for run_ in waiting if choice.waits[run_.run_id].kind == "resources"]
    for run_ in short:
        if held_by(running, "gpus") + run_.demand["gpus"] <= rules_.capacity["gpus"]:
            continue  # it waits for another resource
        outside = [
            other
            for other in choice.start
            if other.demand["gpus"]
            and held_by([*running, *choice.start], "gpus", other.team) > rules_.team(other.team).reserve.get("gpus", 0)
        ]
        assert not outside


@given(st.lists(st.sampled_from(TEAMS), min_size=1, max_size=40), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_equal_runs_are_shared_by_weight_as_far_as_they_are_asked_for(teams: list[str], gpus: int) -> None:
    weights = {"births": 1.0, "flights": 2.0, "rides": 3.0}
    queue = [run(f"{team}-{n:02}") for n, team in enumerate(teams)]
    shares = {team: TeamShare(weight=weight) for team, weight in weights.items()}

    choice = choose(queue, [], rules(shares, gpus=gpus), now=NOW)

    got = {team: sum(run.team == team for run in choice.start) for team in weights}
    assert sum(got.values()) == min(gpus, len(queue))
    for waiting in {queue[n].team for n in range(len(queue)) if queue[n].run_id in choice.waits}:
        for team, count in got.items():
            if count:
                assert (count - 1) / weights[team] <= got[waiting] / weights[waiting]


@given(st.integers(1, 8), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_a_wide_run_starts_soon_after_the_longest_wait_however_many_narrow_ones_come(width: int, seed: int) -> None:
    random_ = random.Random(seed)  # noqa: S311 - a simulation
    shared = ComputeRules(
        capacity={"gpus": 8},
        teams={"rides": TeamShare(reserve={"gpus": 1})},
        ageing=Ageing(step=MINUTE, longest_wait=HOUR),
    )
    wide, at = replace(run("flights-wide", gpus=width), submitted=NOW), NOW
    ends: list[tuple[datetime, RunningRun]] = []
    longest = timedelta(minutes=50)
    for n in range(10_000):
        ends = [(end, one) for end, one in ends if end > at]
        narrow = [replace(run(f"{team}-{n}-{k}"), submitted=at) for k in range(3) for team in ("births", "rides")]
        choice = choose([wide, *narrow], [one for _, one in ends], shared, now=at)
        if wide in choice.start:
            break
        for one in choice.start:
            lasts = timedelta(minutes=random_.randint(1, 50))
            ends.append((at + lasts, RunningRun(run_id=one.run_id, team=one.team, demand=one.demand, started=at)))
        at += MINUTE
    assert at - NOW <= HOUR + longest


@given(st.integers(24, 32), st.integers(0, 10_000), st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_reserve_in_use_without_a_pause_starves_nobody_of_what_it_does_not_name(
    cores: int, seed: int, places: bool
) -> None:
    random_ = random.Random(seed)  # noqa: S311 - a simulation
    shared = ComputeRules(
        capacity={"gpus": 8, "cores": 32},
        teams={"flights": TeamShare(reserve={"gpus": 8 if places else 2})},
        ageing=Ageing(step=MINUTE, longest_wait=HOUR),
    )
    one = {RUNS: 1} if places else {}
    wide, at = replace(run("rides-wide", cores=1 if places else cores, **one), submitted=NOW), NOW
    ends: list[tuple[datetime, RunningRun]] = []
    for n in range(1_000):
        ends = [(end, held) for end, held in ends if end > at]
        steady = [replace(run(f"flights-{n}-{k}", gpus=1, cores=4, **one), submitted=at) for k in range(4)]
        going_on = [held for _, held in ends]
        choice = choose([wide, *steady], going_on, shared, now=at, slots=3 if places else None)
        if wide in choice.start:
            break
        for taken in choice.start:
            lasts = timedelta(minutes=random_.randint(1, 50))
            held = RunningRun(run_id=taken.run_id, team=taken.team, demand=taken.demand, started=at)
            ends.append((at + lasts, held))
        at += MINUTE
    assert at - NOW <= HOUR + timedelta(minutes=50)
