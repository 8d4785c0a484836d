"""Retrainings never storm: whatever fails, drifts or crashes, no more runs start than the policy allows."""

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.digest import document_digest
from ml_assets.interfaces import Record
from ml_assets.retraining.pauses import pause, resume
from ml_assets.retraining.recording import history_of, request_retraining
from tests.components.retraining_world import (
    DONE,
    FAILED,
    LOST,
    PATH,
    World,
    decayed,
    drifted,
    make_world,
    period,
    refusing,
)

WEEK = timedelta(days=7)


def new_evidence(tick: int) -> dict[str, Any]:
    """Return drift and decay with documents, and data, that nobody has seen before."""
    changed = period(inputs=document_digest({"tick": tick}))
    return {"period": changed, "drift": (drifted(f"d{tick}"),), "performance": (decayed(f"e{tick}"),)}


def most_in_a_week(starts: list[datetime]) -> int:
    return max((sum(first <= at < first + WEEK for at in starts) for first in starts), default=0)


@pytest.mark.parametrize("minutes", [1, 30, 240])
def test_500_ticks_of_drift_start_no_more_failing_trainings_than_the_budget(tmp_path: Path, minutes: int) -> None:
    world = make_world(
        tmp_path,
        ending=FAILED,
        parts=new_evidence,
        **{"retraining.cooldown_hours": 0, "retraining.breaker_failures": 1000, "retraining.runs_per_week": 3},
    )

    world.ticks(500, timedelta(minutes=minutes))

    weeks = -(-500 * minutes // (7 * 24 * 60))
    assert most_in_a_week(world.starts) == 3
    assert len(world.starts) <= 3 * weeks
    assert world.turns[-1].decision.holding[0].name in ("budget_runs", "budget_cost")


@pytest.mark.parametrize("refused", [False, True])
def test_the_breaker_opens_after_three_in_a_row_and_lets_one_through_a_day(tmp_path: Path, refused: bool) -> None:
    limits = {"retraining.cooldown_hours": 0, "retraining.runs_per_week": 1000, "retraining.breaker_hours": 24}
    world = make_world(tmp_path, ending=FAILED, parts=new_evidence, **limits)
    if refused:
        world.runs.ending = refusing(world)

    world.ticks(500, timedelta(minutes=10))

    assert world.turns[20].decision.outcome == "stop"
    assert [guard.name for guard in world.turns[20].decision.holding] == ["breaker"]
    days = [(at - world.starts[0]) / timedelta(days=1) for at in world.starts]
    assert len(days) == 3 + 3, "three until it opens, then one after each day: 500 ticks are 3.5 days"
    assert all(later - earlier >= 1 for earlier, later in pairwise(days[2:]))
    endings = {attempt.ending for attempt in history_of(world.ledger, PATH).attempts}
    assert endings == {"refused" if refused else "failed"}


def test_a_half_open_breaker_closes_when_the_one_try_succeeds(tmp_path: Path) -> None:
    world = make_world(
        tmp_path,
        ending=FAILED,
        parts=new_evidence,
        **{"retraining.cooldown_hours": 1, "retraining.runs_per_week": 1000},
    )
    world.ticks(8, timedelta(hours=1))
    assert world.turns[-1].decision.outcome == "stop"

    world.runs.ending = lambda _: DONE
    world.now += timedelta(days=1)
    world.ticks(3, timedelta(hours=1))

    assert history_of(world.ledger, PATH).failures == 0
    assert len(world.starts) == 3 + 3
    breaker = next(g for g in world.turns[-1].decision.guards if g.name == "breaker")
    assert breaker.sentence.startswith("Closed: 0 attempts in a row")


def test_the_same_evidence_never_starts_a_second_attempt(tmp_path: Path) -> None:
    limits = {"retraining.cooldown_hours": 0, "retraining.breaker_failures": 1000, "retraining.runs_per_week": 1000}
    world = make_world(tmp_path, ending=FAILED, parts=lambda _: {"performance": (decayed(),)}, **limits)

    world.ticks(500, timedelta(minutes=10))

    assert len(world.starts) == 1
    assert [guard.name for guard in world.turns[-1].decision.holding] == ["tried"]


def test_what_a_retraining_made_itself_is_no_cause(tmp_path: Path) -> None:
    """New documents about the same data, after a training on these data was decided on, start nothing."""
    limits = {"retraining.cooldown_hours": 0, "retraining.runs_per_week": 1000}
    world = make_world(tmp_path, ending=DONE, parts=lambda tick: {"performance": (decayed(f"e{tick}"),)}, **limits)

    world.ticks(500, timedelta(minutes=10))

    assert len(world.starts) == 1


def test_a_lost_run_is_tried_again_twice_with_growing_waits_and_then_counts_as_failed(tmp_path: Path) -> None:
    world = make_world(tmp_path, ending=LOST)

    world.ticks(300, timedelta(minutes=1))

    waits = [later - earlier for earlier, later in pairwise(world.starts)]
    assert waits == [timedelta(minutes=6), timedelta(minutes=31)], "a minute to see it, then 5 and 30 minutes"
    (attempt,) = history_of(world.ledger, PATH).attempts
    assert (attempt.ending, history_of(world.ledger, PATH).failures) == ("failed", 1)


def test_a_crash_between_the_record_and_the_request_neither_loses_nor_doubles_the_run(tmp_path: Path) -> None:
    world = make_world(tmp_path)

    world.tick(submit=False)
    world.now += timedelta(seconds=10)
    world.tick(submit=False)
    world.now += timedelta(seconds=10)
    world.ticks(50, timedelta(seconds=10))

    assert len({start.run_key for start in world.requests}) == 1
    assert len(world.runs.started) == 1
    (attempt,) = history_of(world.ledger, PATH).attempts
    assert attempt.ending == "succeeded"


def test_nothing_starts_while_a_pause_holds_not_even_what_was_recorded_before_it(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.tick(submit=False)
    pause(world.ledger, ("shop", "*"), by="lena", reason="Warehouse is moving", now=world.now)

    world.ticks(5, timedelta(minutes=1))

    assert world.runs.started == []
    held = world.turns[-1].decision
    assert (held.outcome, held.holding[0].name) == ("stop", "paused")
    assert "lena paused all pipelines of shop" in held.reasons[0]
    resume(world.ledger, ("shop", "*"), by="lena", reason="It has moved", now=world.now)
    world.tick()
    assert len(world.runs.started) == 1


def test_a_tick_that_decides_the_same_records_nothing(tmp_path: Path) -> None:
    world = make_world(tmp_path, ending=FAILED, parts=lambda _: {"performance": (decayed(),)})
    world.ticks(100, timedelta(seconds=10))
    before = len(world.ledger.records(PATH))

    world.ticks(200, timedelta(seconds=10))

    assert len(world.ledger.records(PATH)) == before
    assert before <= 6


TICKS = st.lists(
    st.fixed_dictionaries(
        {
            "hours": st.floats(0.0, 60.0),
            "evidence": st.integers(0, 5),
            "labels": st.sampled_from([0, 999, 1000, 50_000]),
            "cause": st.sampled_from(["none", "drift", "decay"]),
            "state": st.sampled_from(["failed", "lost", "succeeded"]),
            "person": st.booleans(),
            "submit": st.booleans(),
        }
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ticks=TICKS, runs=st.integers(0, 4), cooldown=st.sampled_from([0.0, 12.0, 48.0]))
def test_budget_and_cooldown_hold_for_any_course_of_events(
    tmp_path: Path, ticks: list[dict[str, Any]], runs: int, cooldown: float
) -> None:
    limits = {
        "retraining.runs_per_week": runs,
        "retraining.cooldown_hours": cooldown,
        "retraining.breaker_failures": 3,
    }
    world: World = make_world(tmp_path, **limits)

    def parts(number: int) -> dict[str, Any]:
        tick = ticks[number]
        evidence = f"{tick['evidence']}"
        watched = {
            "none": {},
            "drift": {"drift": (drifted(evidence),)},
            "decay": {"performance": (decayed(evidence),)},
        }[tick["cause"]]
        return {"period": period(new_labels=tick["labels"], inputs=evidence * 64), **watched}

    world.parts = parts
    for tick in ticks:
        world.runs.ending = lambda _, state=tick["state"]: {"failed": FAILED, "lost": LOST, "succeeded": DONE}[state]
        if tick["person"]:
            request_retraining(world.ledger, PATH, by="lena", reason="A test", now=world.now)
        world.tick(submit=tick["submit"])
        world.now += timedelta(hours=tick["hours"])

    attempts = history_of(world.ledger, PATH).attempts
    starts = sorted(at for attempt in attempts for at in attempt.starts)
    assert most_in_a_week(starts) <= runs
    alone = [attempt for attempt in attempts if "person" not in attempt.causes]
    for attempt in alone:
        earlier = [at for at in starts if at < attempt.starts[0]]
        assert not earlier or attempt.starts[0] - max(earlier) >= timedelta(hours=cooldown)
    assert len({start.run_key for start in world.runs.started}) == len(world.runs.started)


@pytest.mark.parametrize("ahead", [timedelta(seconds=20), timedelta(days=1)])
def test_a_request_from_a_clock_that_is_ahead_starts_one_run(tmp_path: Path, ahead: timedelta) -> None:
    limits: dict[str, Any] = {"retraining.runs_per_week": 5}
    world = make_world(tmp_path, ending=DONE, **limits)
    request_retraining(world.ledger, PATH, by="lena", reason="the labels were corrected", now=world.now + ahead)

    world.ticks(200, timedelta(minutes=5))

    named = [start for start in world.requests if "person" in start.why]
    assert len({start.run_key for start in named}) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"event": ["decision"]},
        {"event": "request"},
        {"event": "decision"},
        {"event": "decision", "outcome": "retrain", "key": "k", "number": 1, "inputs": "i", "causes": 5, "guards": []},
        {"event": "decision", "outcome": "wait", "key": [], "number": 1, "inputs": "i", "causes": [], "guards": []},
        {"event": "ended", "key": ["k"]},
    ],
    ids=str,
)
def test_a_record_that_nobody_here_wrote_stops_nothing(tmp_path: Path, body: dict[str, Any]) -> None:
    world = make_world(tmp_path, ending=DONE)
    world.tick()
    world.ledger.append(Record(pipeline=PATH, kind="automation", subject="", body=body, recorded_at=world.now))

    world.ticks(3, timedelta(hours=1))

    assert len(world.starts) == 1
    assert history_of(world.ledger, PATH).attempts[0].ending == "succeeded"


def test_a_pause_is_ended_by_nothing_but_a_resume(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    pause(world.ledger, PATH, by="lena", reason="the source moves", now=world.now)
    world.ledger.append(Record(pipeline=PATH, kind="pause", subject="other", body={}, recorded_at=world.now))

    assert world.tick().decision.outcome == "stop"
    resume(world.ledger, PATH, by="lena", reason="", now=world.now)
    assert world.tick().decision.outcome == "retrain"
