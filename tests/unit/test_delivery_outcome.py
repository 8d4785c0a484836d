"""What became of a batch's run: done, tried again, or dead with the reason that a reader needs."""

from typing import Any

import pytest

from ml_assets.delivery.outcome import PartitionFailure, RunFacts, StepFailure, failed_partition, outcome_of
from ml_assets.errors import (
    GateClosedError,
    LedgerError,
    MlAssetsError,
    RegistryUnavailableError,
    SourceError,
    StoreError,
)
from ml_assets.interfaces import Batch, Event, InboxEvent
from ml_assets.testing.inbox import NOW, PIPELINE

A, B, C = "DE|2024-01", "FR|2024-01", "DE|2024-02"


def batch(*partitions: str) -> Batch:
    events = tuple(
        InboxEvent(
            number=number,
            event=Event(source="arrivals", key=str(number), pipeline=PIPELINE, partition=partition),
            state="running",
            received_at=NOW,
            seen_at=NOW,
            not_before=NOW,
        )
        for number, partition in enumerate(partitions, start=1)
    )
    return Batch(name="b", pipeline=PIPELINE, events=events, run_id="r", claimed_at=NOW, leased_until=NOW)


def facts(ended: str = "failure", **parts: Any) -> RunFacts:
    return RunFacts(run_id="r", ended=ended, **parts)


def made(*partitions: str) -> dict[str, frozenset[str]]:
    return {"raw_data": frozenset(partitions), "features": frozenset(partitions)}


def test_what_was_made_is_done() -> None:
    outcome = outcome_of(batch(A, B, A), facts("success", made=made(A, B)))
    assert outcome.done == {A, B}
    assert outcome.failures == {}


def test_a_bad_partition_is_told_by_its_own_words_and_its_neighbours_are_done() -> None:
    bad = PartitionFailure(message="3 rows of it have another country", transient=False, traceback="Traceback …")
    step = StepFailure(stage="features", message="1 of 2 partitions failed", partitions={B: bad})

    outcome = outcome_of(batch(A, B), facts(made=made(A), failures=[step]))

    assert outcome.done == {A}
    (failure,) = outcome.failures.values()
    assert failure.reason == f"[{B}] 3 rows of it have another country"
    assert (failure.transient, failure.traceback) == (False, "Traceback …")


def test_all_events_of_a_failed_partition_failed() -> None:
    step = StepFailure(stage="raw_data", message="it broke")
    assert outcome_of(batch(A, A), facts(failures=[step])).failures.keys() == {1, 2}


def test_neighbours_that_a_bad_partition_kept_from_being_made_are_tried_again() -> None:
    bad = PartitionFailure(message="no file", transient=False)
    step = StepFailure(stage="raw_data", message="1 of 2 partitions failed", partitions={B: bad})

    outcome = outcome_of(batch(A, B), facts(made={"raw_data": frozenset({A})}, failures=[step]))

    assert outcome.done == frozenset()
    assert outcome.failures[1].transient
    assert outcome.failures[1].reason == (
        f"[{A}] was kept from being made: raw_data failed on others of its run ({B})."
    )
    assert not outcome.failures[2].transient


def test_a_closed_gate_of_the_rows_is_a_dead_letter_with_the_gates_sentence() -> None:
    step = StepFailure(
        stage="features",
        message="1 of 1 partitions failed",
        partitions={A: PartitionFailure(message="raw_data is closed", transient=False)},
    )
    refused = {("raw_data", A): "gate expectations is closed: amount is above 1000 in 3 rows"}

    outcome = outcome_of(batch(A), facts(made={"raw_data": frozenset({A})}, refused=refused, failures=[step]))

    assert not outcome.failures[1].transient
    assert outcome.failures[1].reason == (
        f"[{A}] raw_data: gate expectations is closed: amount is above 1000 in 3 rows"
    )


def test_a_closed_gate_of_the_features_is_a_dead_letter_though_they_were_made() -> None:
    refused = {("features", A): "gate expectations is closed: no rows"}
    outcome = outcome_of(batch(A, B), facts("success", made=made(A, B), refused=refused))
    assert outcome.done == {B}
    assert not outcome.failures[1].transient


def test_a_waived_gate_of_the_rows_is_no_failure() -> None:
    refused = {("raw_data", A): "gate expectations is closed: too few rows"}
    assert outcome_of(batch(A), facts("success", made=made(A), refused=refused)).done == {A}


@pytest.mark.parametrize(
    ("ended", "message", "reason"),
    [
        ("gone", "", f"Run r was deleted before it made [{A}]."),
        ("canceled", "", f"Run r was canceled before it made [{A}]."),
        ("failure", "the process was killed", f"Run r failed before it made [{A}]: the process was killed"),
        ("success", "", f"Run r ended before it made [{A}]."),
    ],
)
def test_a_run_that_was_cut_off_is_tried_again(ended: str, message: str, reason: str) -> None:
    (failure,) = outcome_of(batch(A), facts(ended, message=message)).failures.values()
    assert failure.transient
    assert failure.reason == reason


def test_an_error_that_nobody_foresaw_is_tried_again() -> None:
    step = StepFailure(stage="features", message="division by zero", traceback="ZeroDivisionError")
    (failure,) = outcome_of(batch(C), facts(failures=[step])).failures.values()
    assert failure.transient
    assert failure.reason == f"[{C}] features failed: division by zero"
    assert failure.traceback == "ZeroDivisionError"


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (SourceError("wrong schema"), False),
        (GateClosedError(("a", "b", "c"), "p", "v", "closed"), False),
        (MlAssetsError("else"), False),
        (StoreError("no answer"), True),
        (LedgerError("locked"), True),
        (RegistryUnavailableError("no answer"), True),
    ],
)
def test_only_outages_are_worth_another_try(error: Exception, transient: bool) -> None:
    told = failed_partition(error)
    assert told["transient"] is transient
    assert told["message"] == str(error)
    assert type(error).__name__ in told["traceback"]
