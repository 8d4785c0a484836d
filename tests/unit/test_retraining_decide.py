"""The decision about a retraining: what starts one, what holds it back, and what a person may pass."""

from datetime import timedelta
from typing import Any

import pytest

from ml_assets.interfaces import EffectivePolicy
from ml_assets.retraining.attempts import Attempt, End, Ending, History, Request
from ml_assets.retraining.decide import decide
from ml_assets.retraining.decision import RetrainingDecision
from ml_assets.retraining.pauses import Pause
from ml_assets.retraining.situation import Training
from ml_assets.testing.policy_source import effective_policy
from tests.components.retraining_world import BEGIN, decayed, drifted, period, situation

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def policy(**settings: Any) -> EffectivePolicy:
    return effective_policy({f"retraining.{name}": value for name, value in settings.items()})


def attempt(hours_ago: float, ending: Ending | None = "failed", **changes: Any) -> Attempt:
    """Return an attempt that ended an hour after its start, or is under way."""
    start = BEGIN - hours_ago * HOUR
    end = End(number=1, ending=ending or "failed", at=start + HOUR, run_id="r", reason="why", core_hours=2.0)
    given: dict[str, Any] = {
        "key": f"k{hours_ago}",
        "period": "2024-02",
        "causes": {"decay": f"{hours_ago}"},
        "inputs": f"{hours_ago}",
        "starts": (start,),
        "ends": () if ending is None else (end,),
    }
    return Attempt(**given | changes)


def look(rules: EffectivePolicy | None = None, **changes: Any) -> RetrainingDecision:
    return decide(situation(**changes), rules or policy(), BEGIN)


def holding(decision: RetrainingDecision) -> list[str]:
    return [guard.name for guard in decision.holding]


def test_new_labels_retrain() -> None:
    found = look()

    assert (found.outcome, found.period, found.number) == ("retrain", "2024-03", 1)
    assert found.run_key == f"{found.key}:1"
    assert found.reasons == (
        "5,000 labelled rows are new and there is no training yet (retraining.min_new_labels: 1000, built-in; "
        "retraining.on_new_data: true, built-in).",
    )


@pytest.mark.parametrize(
    ("changes", "outcome", "name"),
    [
        ({"enabled": False}, "stop", "off"),
        ({"pause": Pause(scope=("shop", "*"), by="lena", reason="Inventory", since=BEGIN)}, "stop", "paused"),
        ({"history": History(attempts=tuple(attempt(24.1 + i) for i in (0.8, 0.4, 0)))}, "stop", "breaker"),
        ({"history": History(attempts=(attempt(30, None),))}, "wait", "running"),
        ({"history": History(attempts=tuple(attempt(30 + i, "succeeded") for i in range(7)))}, "wait", "budget_runs"),
        ({"training": Training(period="2024-02", outcome="kept", at=BEGIN - 23 * HOUR)}, "wait", "cooldown"),
        ({"period": None}, "wait", "incomplete"),
        ({"period": period(window=())}, "wait", "first_period"),
        ({"period": period(unindexed=("2024-01",))}, "wait", "row_index"),
        ({"period": period(labels_known_at=BEGIN + DAY)}, "wait", "labels"),
        ({"period": period(labels_known_at=None)}, "wait", "labels"),
        ({"period": period(dead=1)}, "wait", "bad_data"),
        ({"period": period(waiting=1)}, "wait", "events"),
        ({"period": period(new_labels=999), "performance": (decayed(),)}, "wait", "new_labels"),
        ({"training": Training(period="2024-03", outcome="kept", at=BEGIN - 9 * DAY)}, "wait", "tried"),
    ],
)
def test_each_guard_holds_alone(changes: dict[str, Any], outcome: str, name: str) -> None:
    found = look(**changes)

    assert (found.outcome, holding(found)) == (outcome, [name])
    assert found.reasons[0] == found.holding[0].sentence
    assert not found.key


def test_cost_is_held_against_the_budget() -> None:
    spent = History(attempts=(attempt(30, "succeeded"), attempt(29, "succeeded")))

    assert holding(look(policy(cost_per_week=4), history=spent)) == ["budget_cost"]
    assert look(policy(cost_per_week=4.5), history=spent).outcome == "retrain"


def test_an_old_week_counts_no_more() -> None:
    ago = 8 * 24
    history = History(attempts=tuple(attempt(ago + i, "succeeded") for i in range(7)))

    assert look(history=history).outcome == "retrain"


def test_nothing_new_is_no_cause_and_says_when_it_looks_again() -> None:
    at = BEGIN - 5 * DAY
    found = look(
        policy(every_days=30),
        period=period(new_labels=0),
        training=Training(period="2024-02", outcome="kept", at=at),
    )

    assert (found.outcome, found.causes) == ("wait", ())
    assert found.next_look == at + 30 * DAY


@pytest.mark.parametrize(
    ("switch", "parts"),
    [
        ("on_new_data", {}),
        ("on_decay", {"performance": (decayed(),), "period": period(new_labels=1000)}),
        ("on_drift", {"drift": (drifted(),), "performance": (decayed(),)}),
    ],
)
def test_the_policy_switches_causes_off(switch: str, parts: dict[str, Any]) -> None:
    name = {"on_new_data": "new_data", "on_decay": "decay", "on_drift": "drift"}[switch]
    on = {cause.name: cause.counts for cause in look(**parts).causes}
    off = {cause.name: cause.counts for cause in look(policy(**{switch: False}), **parts).causes}

    assert (on[name], off[name]) == (True, False)


def test_age_is_a_cause() -> None:
    found = look(
        policy(every_days=30, on_new_data=False),
        training=Training(period="2024-02", outcome="kept", at=BEGIN - 31 * DAY),
    )

    assert found.outcome == "retrain"
    assert found.reasons[0].startswith("The newest training is 31.0 days old (retraining.every_days: 30, ")


def requested(*attempts: Attempt) -> History:
    asked = Request(by="lena", reason="New prices", at=BEGIN - HOUR, evidence="r" * 64)
    return History(attempts=attempts, request=asked)


def test_a_person_passes_cooldown_breaker_labels_and_repeats() -> None:
    failed = requested(attempt(5), attempt(4), attempt(3, inputs="a" * 64, period="2024-03"))

    found = look(history=failed, period=period(new_labels=0))

    assert found.outcome == "retrain"
    assert found.reasons == ("lena asked for it on 2026-10-31 23:00 UTC: New prices.",)
    assert sum(guard.sentence.startswith("Passed for a person's request") for guard in found.guards) >= 3


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"pause": Pause(scope=("*", "*"), by="lena", reason="Inventory", since=BEGIN)}, "paused"),
        ({"period": period(dead=1)}, "bad_data"),
        ({"history": requested(*[attempt(30 + i, "succeeded") for i in range(7)])}, "budget_runs"),
    ],
)
def test_a_person_does_not_pass_pause_budget_or_bad_data(changes: dict[str, Any], name: str) -> None:
    found = look(**{"history": requested()} | changes)

    assert holding(found) == [name]


def test_a_request_is_answered_once_and_lapses() -> None:
    answered = requested(attempt(0.5, "succeeded"))
    assert not [cause for cause in look(history=answered).causes if cause.name == "person"]

    late = decide(situation(history=requested()), policy(), BEGIN + 7 * DAY)
    assert not [cause for cause in late.causes if cause.name == "person"]


def test_a_lost_run_waits_for_its_backoff_and_keeps_its_key() -> None:
    lost = attempt(1.05, "lost")
    waiting = look(history=History(attempts=(lost,)))
    assert (waiting.outcome, holding(waiting)) == ("wait", ["backoff"])
    assert waiting.next_look == lost.ends[0].at + timedelta(minutes=5)

    again = look(history=History(attempts=(attempt(1.1, "lost"),)))

    assert (again.outcome, again.key, again.number) == ("retrain", "k1.1", 2)


def test_attempts_on_the_same_data_and_reasons_have_keys_of_their_own() -> None:
    first, later = look(), look(history=History(attempts=(attempt(100, "succeeded"),)))

    assert first.key != later.key
    assert look().key == first.key
