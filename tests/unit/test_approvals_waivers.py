"""Waivers: what lets a failed gate pass, for how long, and every way round the rules that was tried."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ml_assets.approvals.giving import record_of
from ml_assets.approvals.signing import sign_statement
from ml_assets.approvals.statements import Statement, subject_digest, subject_of_gate
from ml_assets.approvals.waivers import check_waiver, grant_waiver, live_waiver
from ml_assets.errors import ApprovalError
from ml_assets.interfaces import Record, Verdict
from ml_assets.testing.policy_source import setting
from tests.unit.test_approvals_world import DAY, NOW, PIPELINE, Attack, Outcome, SessionSigner, World, refusal


def waive(
    world: World,
    failed: Verdict,
    *,
    person: str = "olga",
    days: float = 1,
    launched_by: tuple[str, ...] = (),
    signed_for: Verdict | None = None,
    at: Any = NOW,
) -> Outcome:
    """Grant a waiver; then put it into the ledger all the same, and look at it again."""
    statement = sign_statement(
        SessionSigner(person),
        action="waive",
        pipeline=PIPELINE,
        partition=failed.partition,
        subject=subject_of_gate(signed_for or failed),
        reason="The desk knows about the strike.",
        issued_at=NOW,
        valid_for=timedelta(days=days),
        previous=world.ledger.heads(PIPELINE)["records/flights/arrival_delay"].row_hash,
    )
    options: dict[str, Any] = {"policy": world.policy, "people": world.people}
    given = refusal(
        lambda: grant_waiver(world.ledger, statement, verdict=failed, now=NOW, launched_by=launched_by, **options)
    )
    if given != "accepted":
        world.ledger.append(replace(record_of(statement, NOW), subject=subject_digest(subject_of_gate(failed))))
    live = live_waiver(failed, world.ledger.records(PIPELINE), at=at, launched_by=launched_by, **options)
    return Outcome(given=given, later="not live" if live is None else "live", stopped=live is None)


def world_of_waivers(**settings: Any) -> World:
    world = World(settings=settings)
    world.ledger.append(Record(pipeline=PIPELINE, kind="incident", subject="champion", body={}, recorded_at=NOW))
    return world


def waive_what_is_unwaivable() -> Outcome:
    world = world_of_waivers(**{"roc_auc.floor": setting("roc_auc.floor", 0.55, unwaivable=True)})
    return waive(world, world.failed())


def waive_without_the_role() -> Outcome:
    world = world_of_waivers(**{"waiver.roles": ["risk"]})
    return waive(world, world.failed())


def waive_ones_own() -> Outcome:
    world = world_of_waivers()
    return waive(world, world.failed(), launched_by=("olga@example.com",))


def waive_for_a_year() -> Outcome:
    world = world_of_waivers()
    return waive(world, world.failed(), days=365)


def waive_and_let_it_expire() -> Outcome:
    world = world_of_waivers()
    return waive(world, world.failed(), at=NOW + DAY)


def waive_one_version_and_use_another() -> Outcome:
    world = world_of_waivers()
    old = world.failed(data_version="1" * 64)
    return waive(world, world.failed(data_version="2" * 64), signed_for=old)


def waive_one_gate_and_use_another() -> Outcome:
    world = world_of_waivers()
    other = world.failed(check="log_loss.beats_baseline")
    return waive(world, world.failed(), signed_for=other)


WAIVERS = [
    Attack("unwaivable gate", "waives a gate that the policy marks `unwaivable`", waive_what_is_unwaivable),
    Attack("wrong role", "has no role that may waive", waive_without_the_role),
    Attack("self-waiver", "launched the run that failed", waive_ones_own),
    Attack("too long", "waives for a year", waive_for_a_year),
    Attack("expired", "goes on after the waiver has expired", waive_and_let_it_expire),
    Attack("another data version", "uses a waiver of an earlier data version", waive_one_version_and_use_another),
    Attack("another gate", "uses a waiver of another gate", waive_one_gate_and_use_another),
]


@pytest.mark.parametrize("attempt", WAIVERS, ids=lambda attempt: attempt.name)
def test_nothing_is_gained_by(attempt: Attack) -> None:
    assert attempt.run().stopped


def granted(world: World, failed: Verdict, **options: Any) -> Record:
    assert waive(world, failed, **options).given == "accepted"
    return world.ledger.records(PIPELINE, kind="waiver")[-1]


def live(world: World, failed: Verdict, *, at: Any = NOW) -> Statement | None:
    return live_waiver(failed, world.ledger.records(PIPELINE), world.policy, world.people, at=at)


def test_a_waiver_counts_until_it_expires() -> None:
    world = world_of_waivers()
    failed = world.failed()
    granted(world, failed, days=2)

    found = live(world, failed, at=NOW + 2 * DAY - timedelta(seconds=1))

    assert found is not None
    assert (found.person, found.reason) == ("olga", "The desk knows about the strike.")
    assert live(world, failed, at=NOW + 2 * DAY) is None


def test_a_waiver_is_for_one_gate_of_one_data_version() -> None:
    world = world_of_waivers()
    failed = world.failed()
    granted(world, failed)

    assert live(world, failed) is not None
    for other in ({"check": "wape.ceiling"}, {"data_version": "3" * 64}, {"partition": "2013-04"}):
        assert live(world, replace(failed, **other)) is None


def test_a_gate_that_becomes_unwaivable_is_closed_at_once() -> None:
    world = world_of_waivers()
    failed = world.failed()
    record = granted(world, failed)
    world.settings = {"roc_auc.floor": setting("roc_auc.floor", 0.55, unwaivable=True)}

    assert live(world, failed) is None
    with pytest.raises(ApprovalError, match=r"The gate roc_auc\.floor is marked unwaivable \(policies/test\.yaml:1\)"):
        check_waiver(record, world.policy, world.people, at=NOW)


def test_a_person_without_the_role_any_more_waives_nothing_any_more() -> None:
    world = world_of_waivers()
    failed = world.failed()
    granted(world, failed)
    world.people["olga"] = replace(world.people["olga"], roles=())

    assert live(world, failed) is None


def test_data_gates_can_be_waived_too() -> None:
    world = world_of_waivers()
    failed = world.failed(check="expectations")

    assert waive(world, failed).later == "live"


@pytest.mark.parametrize("last", [{"outcome": "passed"}, {"severity": "warning"}])
def test_only_a_gate_that_is_closed_can_be_waived(last: dict[str, Any]) -> None:
    world = world_of_waivers()
    failed = world.failed()
    world.failed(**last)

    assert waive(world, failed).given == "`not_failed`"


def test_somebody_else_may_renew_a_waiver_and_the_same_person_only_when_it_has_expired() -> None:
    world = world_of_waivers()
    failed = world.failed()
    granted(world, failed)

    assert waive(world, failed).given == "`already_spoken`"
    assert waive(world, failed, person="pavel").given == "accepted"


def test_a_copy_of_a_waiver_does_not_count() -> None:
    world = world_of_waivers()
    failed = world.failed()
    record = granted(world, failed)
    copy = world.ledger.append(record)

    with pytest.raises(ApprovalError, match="is a copy"):
        check_waiver(copy, world.policy, world.people, at=NOW)


def test_an_approval_waives_nothing() -> None:
    world = world_of_waivers()
    waiting = world.wait()
    approval = world.sign(SessionSigner("olga"), waiting)

    options: dict[str, Any] = {"policy": world.policy, "people": world.people, "now": NOW}
    with pytest.raises(ApprovalError, match="'approve' is nothing to say of a failed gate"):
        grant_waiver(world.ledger, approval, verdict=world.failed(), **options)
