"""Giving: what is recorded, that a refused statement leaves nothing, and signing again when somebody was faster."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ml_assets.approvals.giving import give_with_retry, records_head, require_acceptable, submit
from ml_assets.approvals.statements import Statement, subject_digest, subject_of
from ml_assets.errors import ApprovalError, LedgerConflictError
from ml_assets.interfaces import NO_HASH, Record
from ml_assets.testing.policy_source import FakePolicySource
from tests.unit.test_approvals_world import DAY, HOUR, NOW, PIPELINE, SessionSigner, World


def something_else(world: World) -> None:
    world.ledger.append(Record(pipeline=PIPELINE, kind="incident", subject="champion", body={}, recorded_at=NOW))


def test_an_approval_is_recorded_as_it_was_signed() -> None:
    world = World()
    waiting = world.wait()
    statement = world.sign(SessionSigner("olga"), waiting)

    world.give(statement, waiting)

    (record,) = world.ledger.records(PIPELINE)
    assert (record.kind, record.subject, record.recorded_at) == ("approval", subject_digest(subject_of(waiting)), NOW)
    assert record.previous_hash == statement.previous == NO_HASH
    assert Statement.from_body(record.body) == statement
    assert world.ledger.decisions(PIPELINE) == [waiting]


def test_one_rejection_ends_the_waiting() -> None:
    world = World(settings={"approval.needed": 3})
    waiting = world.wait()

    found = world.give(world.sign(SessionSigner("pavel"), waiting, action="reject"), waiting)

    assert (found.rejected_by, found.complete) == ("pavel", False)
    assert world.ledger.records(PIPELINE)[0].kind == "rejection"
    assert world.ledger.decisions(PIPELINE)[-1] == replace(
        waiting,
        outcome="rejected",
        reason="Rejected by pavel: The slices look right.",
        decided_by="pavel",
        recorded_at=NOW,
    )


def test_a_request_that_has_closed_can_still_be_rejected() -> None:
    world = World()
    waiting = world.wait(recorded_at=NOW - 30 * DAY)

    assert world.give(world.sign(SessionSigner("pavel"), waiting, action="reject"), waiting).rejected_by == "pavel"


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("dora", {}, "wrong_role"),
        ("tim", {}, "wrong_team"),
        ("lena", {}, "self_approval"),
        ("mallory", {}, "unknown_person"),
        ("olga", {"valid_for": 8 * DAY}, "too_long"),
        ("olga", {"at": NOW - 2 * DAY, "valid_for": DAY}, "expired"),
        ("olga", {"previous": "f" * 64}, "conflict"),
        ("dora", {"action": "reject"}, "wrong_role"),
        ("lena", {"action": "reject"}, "self_approval"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(name: str, changes: dict[str, Any], word: str) -> None:
    world = World()
    waiting = world.wait()

    with pytest.raises((ApprovalError, LedgerConflictError)) as error:
        world.give(world.sign(SessionSigner(name), waiting, **changes), waiting)

    assert getattr(error.value, "reason", "conflict") == word
    assert world.ledger.records(PIPELINE) == []
    assert world.ledger.decisions(PIPELINE) == [waiting]


def test_a_pipeline_without_decision_has_nothing_to_approve() -> None:
    world = World()

    with pytest.raises(ApprovalError, match=r"Nothing was decided on flights/arrival_delay \[2013-03\] yet") as error:
        world.approve("olga", world.waiting())

    assert error.value.reason == "no_decision"


def test_the_last_decision_on_the_partition_counts_and_no_other() -> None:
    world = World()
    waiting = world.wait()
    world.wait(partition="2013-04", outcome="kept")
    assert world.approve("olga", waiting).complete

    world.wait(outcome="promoted")
    with pytest.raises(ApprovalError, match=r"awaits no approval: it is promoted \(ROC AUC 0.712"):
        world.approve("pavel", waiting)


def test_the_same_candidate_decided_again_keeps_its_approvals() -> None:
    world = World(settings={"approval.needed": 2})
    first = world.wait()
    world.approve("olga", first)
    again = world.wait(run_id="run-2", recorded_at=NOW)

    assert world.approve("pavel", first).complete
    assert world.standing(again).complete


def test_after_an_approval_has_expired_the_person_may_approve_again() -> None:
    world = World()
    waiting = world.wait()
    world.approve("olga", waiting, valid_for=HOUR)

    assert world.approve("olga", waiting, now=NOW + HOUR).complete


def test_a_row_in_a_persons_name_does_not_keep_them_from_speaking() -> None:
    world = World()
    waiting = world.wait()
    forged = world.sign(SessionSigner("olga", holder="mallory"), waiting)
    subject = subject_digest(subject_of(waiting))
    world.ledger.append(Record(pipeline=PIPELINE, kind="approval", subject=subject, body=forged.to_body()))

    found = world.approve("olga", waiting)

    assert found.complete
    assert [refused.word for refused in found.not_counted] == ["forged"]


def test_whoever_approved_cannot_reject_while_that_counts() -> None:
    world = World(settings={"approval.needed": 2})
    waiting = world.wait()
    world.approve("olga", waiting)

    with pytest.raises(ApprovalError, match=r"olga has said 'approve' of .* already"):
        world.give(world.sign(SessionSigner("olga"), waiting, action="reject"), waiting)


def test_a_statement_that_would_be_recorded_can_be_checked_without_recording_it() -> None:
    world = World()
    waiting = world.wait()
    statement = world.sign(SessionSigner("olga"), waiting)
    options: dict[str, Any] = {"decision": waiting, "policy": world.policy, "people": world.people, "now": NOW}

    assert require_acceptable(world.ledger, statement, **options) == waiting
    assert world.ledger.records(PIPELINE) == []


def test_a_statement_signed_elsewhere_is_recorded_under_the_policy_of_now() -> None:
    world = World()
    waiting = world.wait()
    text = world.sign(SessionSigner("olga"), waiting).encode()
    stricter = FakePolicySource({"approval.needed": 2}, world.people)

    with pytest.raises(ApprovalError, match="The policy has changed since"):
        submit(world.ledger, stricter, Statement.decode(text), now=NOW)
    assert submit(world.ledger, FakePolicySource({}, world.people), Statement.decode(text), now=NOW).complete


def test_who_comes_second_signs_again() -> None:
    world = World()
    waiting = world.wait()
    heads: list[str] = []

    def make_statement(previous: str) -> Statement:
        if len(heads) < 3:
            something_else(world)
        heads.append(previous)
        return world.sign(SessionSigner("olga"), waiting, previous=previous)

    found = give_with_retry(world.ledger, PIPELINE, make_statement, lambda statement: world.give(statement, waiting))

    assert found.complete
    assert len(set(heads)) == 4


def test_who_comes_second_every_time_gives_up() -> None:
    world = World()
    waiting = world.wait()
    signed: list[Statement] = []

    def make_statement(previous: str) -> Statement:
        something_else(world)
        signed.append(world.sign(SessionSigner("olga"), waiting, previous=previous))
        return signed[-1]

    with pytest.raises(LedgerConflictError):
        give_with_retry(world.ledger, PIPELINE, make_statement, lambda statement: world.give(statement, waiting))

    assert len(signed) == 5


def test_the_head_of_a_pipeline_without_records_is_no_hash() -> None:
    world = World()
    assert records_head(world.ledger, PIPELINE) == NO_HASH

    world.wait()
    assert records_head(world.ledger, PIPELINE) == NO_HASH

    something_else(world)
    assert records_head(world.ledger, PIPELINE) == world.ledger.records(PIPELINE)[-1].row_hash


def test_a_refusal_says_where_the_rule_stands() -> None:
    world = World()
    waiting = world.wait()

    def message(name: str, **changes: Any) -> str:
        with pytest.raises(ApprovalError) as error:
            world.give(world.sign(SessionSigner(name), waiting, **changes), waiting)
        return str(error.value)

    assert message("dora") == (
        "dora has the roles analyst (policies/people.yaml:3); the policy's approval.roles (built-in:0) wants one of "
        "model_reviewer."
    )
    assert message("tim") == (
        "tim's roles hold for the teams births (policies/people.yaml:3); flights/arrival_delay [2013-03] belongs to "
        "flights."
    )
    assert message("lena") == (
        "lena launched a run that led to flights/arrival_delay [2013-03] (as 'lena'); somebody else must decide."
    )
    assert message("olga", valid_for=timedelta(days=30)) == (
        "The statement on flights/arrival_delay [2013-03] would count for 30 days; the policy's approval.valid_days "
        "allows 7."
    )
