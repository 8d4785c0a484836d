"""What becomes an alert: which rows, under which key, and with which next command."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ml_assets.alerting.raising import (
    MOST_BODY,
    MOST_KEY,
    MOST_TITLE,
    awaiting_approval,
    breaker_opened,
    dead_letters,
    freshness_missed,
    gates_failed,
    incidents,
)
from ml_assets.interfaces import Verdict
from ml_assets.testing.inbox import FakeInbox, event, failure
from ml_assets.testing.ledger import FakeLedger, decision, record, verdict

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PATH = ("flights", "arrival_delay")


def failed(**changes: object) -> Verdict:
    return verdict(**{"outcome": "failed", "reason": "3 of 12 expectations failed", "recorded_at": NOW, **changes})


def test_a_failed_gate_says_what_where_and_the_next_command() -> None:
    (alert,) = gates_failed([failed()], after=NOW - HOUR)
    assert alert.kind == "gate_failed"
    assert alert.pipeline == PATH
    assert alert.title == "flights/arrival_delay: gate expectations of raw_data [EWR|2013-01] is closed"
    assert "3 of 12 expectations failed." in alert.body
    assert "ml-assets waivers grant flights/arrival_delay raw_data 'EWR|2013-01' expectations" in alert.body


@pytest.mark.parametrize(
    "changes",
    [{"data_version": "x" * 64}, {"policy_version": "x" * 64}, {"check": "roc_auc.floor"}, {"partition": "b"}],
)
def test_what_makes_a_failed_gate_new_is_in_its_key(changes: dict[str, str]) -> None:
    (one,) = gates_failed([failed()], after=NOW - HOUR)
    (other,) = gates_failed([failed(**changes)], after=NOW - HOUR)
    assert one.key != other.key


@pytest.mark.parametrize("changes", [{"severity": "warning"}, {"outcome": "passed"}, {"recorded_at": NOW - HOUR}])
def test_warnings_passed_gates_and_history_are_not_told(changes: dict[str, object]) -> None:
    assert list(gates_failed([failed(**changes)], after=NOW - HOUR)) == []


def test_what_is_corrected_or_waived_is_not_told() -> None:
    corrected = [failed(), verdict(data_version="n" * 64, recorded_at=NOW)]
    assert list(gates_failed(corrected, after=NOW - HOUR)) == []
    assert list(gates_failed([failed()], after=NOW - HOUR, waived=lambda _: True)) == []


def test_only_the_last_decision_of_a_partition_awaits() -> None:
    waiting = decision(outcome="awaiting_approval", evaluation_digest="e" * 64)
    (alert,) = awaiting_approval([decision(outcome="refused"), waiting])
    assert "ml-assets approvals show flights/arrival_delay '2013-02'" in alert.body
    (again,) = awaiting_approval([replace(waiting, evaluation_digest="f" * 64)])
    assert alert.key != again.key
    assert list(awaiting_approval([waiting, decision()])) == []


def test_a_dead_letter_that_dies_again_is_new() -> None:
    inbox = FakeInbox()
    kept = inbox.bury(event(), failure(reason="The file is empty"), now=NOW)
    (alert,) = dead_letters([kept])
    assert "The file is empty. " in alert.body
    assert f"ml-assets dead-letters show {kept.number}." in alert.body
    (again,) = dead_letters([replace(kept, run_id="other")])
    assert alert.key != again.key
    assert list(dead_letters([replace(kept, state="discarded")])) == []


def test_an_open_breaker_is_told_once_for_each_attempt_that_opened_it() -> None:
    ledger = FakeLedger()
    start = {"event": "decision", "outcome": "retrain", "key": "a1", "number": 1, "inputs": "", "causes": []}
    end = {
        "event": "ended",
        "key": "a1",
        "number": 1,
        "ending": "failed",
        "run_id": "r",
        "reason": "x",
        "core_hours": 0,
    }
    guard = {"name": "breaker", "sentence": "Open until tomorrow: 3 attempts in a row failed", "until": "2026-11-26"}
    stop = {**start, "outcome": "stop", "key": "", "guards": [guard]}
    for body in ({**start, "guards": []}, end):
        ledger.append(record(kind="automation", subject="2013-02", body=body))
    assert list(breaker_opened(PATH, ledger.records(PATH))) == []

    ledger.append(record(kind="automation", subject="2013-02", body=stop))

    (alert,) = breaker_opened(PATH, ledger.records(PATH))
    assert alert.key == "breaker_open/flights/arrival_delay/a1"
    assert "ml-assets automation explain flights/arrival_delay" in alert.body


def test_incidents_are_told_from_an_instant_on() -> None:
    moved = record(kind="incident", subject="champion", body={"sentence": "Somebody moved it"}, recorded_at=NOW)
    (alert,) = incidents([moved], after=NOW - HOUR)
    assert "Somebody moved it. See what happened: ml-assets history flights/arrival_delay" in alert.body
    assert list(incidents([moved, record(recorded_at=NOW)], after=NOW)) == []


def test_missed_freshness_is_new_with_each_miss() -> None:
    assert freshness_missed(PATH, "features", NOW).key != freshness_missed(PATH, "features", NOW + HOUR).key


def test_long_and_unstorable_texts_are_cut_and_escaped() -> None:
    (alert,) = gates_failed([failed(reason="a\x00" * 5000, partition="p" * 1500)], after=NOW - HOUR)
    assert (len(alert.key), len(alert.title), len(alert.body)) == (MOST_KEY, MOST_TITLE, MOST_BODY)
    assert "\x00" not in alert.body
    (other,) = gates_failed([failed(partition="p" * 1500 + "q")], after=NOW - HOUR)
    assert alert.key != other.key
