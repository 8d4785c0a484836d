"""How a waiting decision stands: what counts, what does not and why; records alone decide, and bad ones never raise."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.approvals.giving import record_of
from ml_assets.approvals.standing import Standing, standing
from ml_assets.approvals.statements import Statement, subject_of
from ml_assets.errors import PolicyError
from ml_assets.interfaces import NO_HASH, Decision, PublicKey, Record
from tests.unit.test_approvals_world import (
    DAY,
    HOUR,
    KEYS_FROM,
    NOW,
    PIPELINE,
    SessionSigner,
    World,
    public_key,
    reviewer,
)


def recorded(statement: Statement, *, at: datetime = NOW, **changes: Any) -> Record:
    """Return the record that a ledger would return for a statement at its place."""
    return replace(record_of(statement, at), previous_hash=statement.previous, row_hash="e" * 64, **changes)


def places(n: int) -> list[str]:
    return [NO_HASH, *(f"{i:064x}" for i in range(1, n))]


def approvals_of(world: World, about: Decision, *names: str) -> list[Record]:
    return [
        recorded(world.sign(SessionSigner(name), about, previous=place))
        for name, place in zip(names, places(len(names)), strict=True)
    ]


def judged(world: World, about: Decision, records: list[Record], *, at: datetime = NOW, **options: Any) -> Standing:
    return standing(about, records, world.policy, world.people, at=at, **options)


def words(found: Standing) -> list[str]:
    return [refused.word for refused in found.not_counted]


def test_without_records_nobody_has_approved() -> None:
    found = judged(World(), World().waiting(), [])

    assert (found.needed, found.missing, found.approvals, found.complete, found.closed) == (1, 1, (), False, False)


def test_an_approval_says_who_when_and_why() -> None:
    world = World()
    waiting = world.waiting()

    found = judged(world, waiting, approvals_of(world, waiting, "olga"))

    (approval,) = found.approvals
    assert found.complete
    assert (approval.person, approval.reason) == ("olga", "The slices look right.")
    assert (approval.given_at, approval.expires_at) == (NOW, NOW + 5 * DAY)


@pytest.mark.parametrize(
    ("launched_by", "needed"),
    [(("lena",), 2), ((), 3), (("",), 3), (("lena", " "), 3), (("nobody-we-know",), 2)],
    ids=["known", "nobody", "blank", "one blank", "a stranger"],
)
def test_an_unknown_launcher_may_be_one_of_the_approvers(launched_by: tuple[str, ...], needed: int) -> None:
    world = World(settings={"approval.needed": 2})

    assert judged(world, world.waiting(launched_by=launched_by), []).needed == needed


def test_as_many_people_must_approve_as_the_policy_says() -> None:
    world = World(settings={"approval.needed": 2})
    waiting = world.waiting()

    assert not judged(world, waiting, approvals_of(world, waiting, "olga")).complete
    assert judged(world, waiting, approvals_of(world, waiting, "olga", "pavel")).complete


def test_a_person_and_a_key_count_once() -> None:
    world = World(settings={"approval.needed": 2})
    waiting = world.waiting()
    world.people["anna"] = reviewer("anna", keys=(PublicKey(value=public_key("olga"), effective_from=KEYS_FROM),))
    under_another_name = world.sign(SessionSigner("anna", holder="olga"), waiting, previous=places(3)[2])

    found = judged(world, waiting, [*approvals_of(world, waiting, "olga", "olga"), recorded(under_another_name)])

    assert words(found) == ["repeated", "repeated"]
    assert (len(found.approvals), found.complete) == (1, False)


def test_the_request_closes_after_the_days_of_the_policy() -> None:
    world = World(settings={"approval.valid_days": 2})
    waiting = world.waiting(recorded_at=NOW)
    late = recorded(world.sign(SessionSigner("olga"), waiting, at=NOW + DAY, valid_for=2 * DAY, previous=NO_HASH))

    before = judged(world, waiting, [late], at=NOW + 2 * DAY - timedelta(seconds=1))
    after = judged(world, waiting, [late], at=NOW + 2 * DAY)

    assert (before.complete, before.closed) == (True, False)
    assert (after.complete, after.closed, len(after.approvals)) == (False, True, 1)
    assert before.expires_at == after.expires_at == NOW + 2 * DAY


@pytest.mark.parametrize("outcome", ["kept", "undecided", "refused", "rejected", "rolled_back"])
def test_a_decision_that_does_not_wait_is_never_complete(outcome: Any) -> None:
    world = World()
    waiting = world.waiting()

    assert not judged(world, replace(waiting, outcome=outcome), approvals_of(world, waiting, "olga")).complete


def test_one_rejection_outweighs_all_approvals_and_does_not_expire() -> None:
    world = World()
    waiting = world.waiting()
    rejection = world.sign(SessionSigner("pavel"), waiting, action="reject", valid_for=HOUR, previous=places(2)[1])

    found = judged(world, waiting, [*approvals_of(world, waiting, "olga"), recorded(rejection)], at=NOW + DAY)

    assert (found.rejected_by, len(found.approvals), found.complete) == ("pavel", 1, False)


def test_a_rejection_by_somebody_without_the_role_rejects_nothing() -> None:
    world = World()
    waiting = world.waiting()
    rejection = world.sign(SessionSigner("dora"), waiting, action="reject", previous=places(2)[1])

    found = judged(world, waiting, [*approvals_of(world, waiting, "olga"), recorded(rejection)])

    assert (found.rejected_by, found.complete, words(found)) == (None, True, ["wrong_role"])


def test_what_was_approved_stays_approved_when_it_was_carried_out() -> None:
    """Later the approval has expired, the key too, and the policy is another one."""
    world = World()
    waiting = world.waiting()
    records = approvals_of(world, waiting, "olga")
    promoted = replace(waiting, outcome="promoted", recorded_at=NOW + HOUR)
    key = PublicKey(value=public_key("olga"), effective_from=KEYS_FROM, expires=NOW + DAY)
    later = World(settings={"roc_auc.floor": 0.6}, people={"olga": reviewer("olga", keys=(key,))})

    assert later.policy.digest != promoted.policy_digest
    assert judged(later, promoted, records, at=NOW + HOUR, after_promotion=True).complete
    assert words(judged(later, promoted, records, at=NOW + HOUR)) == ["policy_changed"]
    assert words(judged(later, promoted, records, at=NOW + 9 * DAY, after_promotion=True)) == ["expired"]


def test_what_is_signed_after_a_promotion_does_not_bear_on_it() -> None:
    world = World()
    waiting = world.waiting()
    promoted = replace(waiting, outcome="promoted", recorded_at=NOW)
    first, second = places(2)
    approval = world.sign(SessionSigner("olga"), waiting, at=NOW + HOUR, previous=first)
    rejection = world.sign(SessionSigner("pavel"), waiting, action="reject", at=NOW + HOUR, previous=second)
    later = [recorded(statement, at=NOW + HOUR) for statement in (approval, rejection)]

    found = judged(world, promoted, later, after_promotion=True)

    assert words(found) == ["not_yet_valid", "not_yet_valid"]
    assert (found.rejected_by, found.complete) == (None, False)


def test_a_decision_without_digests_cannot_be_approved() -> None:
    world = World()
    for field in ("model_digest", "evaluation_digest", "policy_digest", "data_version"):
        waiting = world.waiting(**{field: ""})

        assert words(judged(world, waiting, approvals_of(world, waiting, "olga"))) == ["unbound"]


def test_the_key_must_be_in_force_when_the_statement_is_recorded() -> None:
    """Whoever has left could still sign with an earlier date."""
    key = PublicKey(value=public_key("olga"), effective_from=KEYS_FROM, expires=NOW + HOUR)
    world = World(people={"olga": reviewer("olga", keys=(key,))})
    waiting = world.waiting()
    statement = world.sign(SessionSigner("olga"), waiting, previous=NO_HASH)

    assert judged(world, waiting, [recorded(statement)]).complete
    assert words(judged(world, waiting, [recorded(statement, at=NOW + 2 * HOUR)], at=NOW + 2 * HOUR)) == ["wrong_key"]


def test_of_two_records_at_one_place_of_the_chain_the_second_is_misplaced() -> None:
    """A row that was written into the database by hand, beside the one that stands there."""
    world = World(settings={"approval.needed": 2})
    waiting = world.waiting()
    incident = Record(pipeline=PIPELINE, kind="incident", subject="champion", body={}, previous_hash=NO_HASH)
    (olga,) = approvals_of(world, waiting, "olga")
    (pavel,) = approvals_of(world, waiting, "pavel")

    assert words(judged(world, waiting, [olga, pavel])) == ["misplaced"]
    assert words(judged(world, waiting, [incident, olga])) == ["misplaced"]
    assert words(judged(world, waiting, [replace(incident, pipeline=("births", "volume")), olga])) == []


def test_records_on_other_partitions_are_passed_over() -> None:
    world = World()
    waiting, other = world.waiting(), world.waiting(partition="2013-04")

    found = judged(world, waiting, approvals_of(world, other, "olga"))

    assert (found.approvals, found.not_counted) == ((), ())


def test_a_name_in_a_bad_record_is_shown_and_never_believed() -> None:
    world = World()
    waiting = world.waiting()
    record = Record(
        pipeline=PIPELINE,
        kind="approval",
        subject="nonsense",
        body={"person": "olga", "partition": waiting.partition, "reason": "trust me"},
        recorded_at=NOW,
    )

    (refused,) = judged(world, waiting, [record]).not_counted

    assert (refused.person, refused.kind, refused.word, refused.recorded_at) == ("olga", "approval", "malformed", NOW)
    assert refused.sentence.startswith("The statement cannot be read: it lacks action, expires_at, ")


def test_a_policy_without_roles_lets_nobody_approve() -> None:
    world = World(settings={"approval.roles": []})
    waiting = world.waiting()

    assert words(judged(world, waiting, approvals_of(world, waiting, "olga", "pavel"))) == ["wrong_role"] * 2


def test_a_policy_that_says_nothing_of_approvals_is_an_error() -> None:
    world = World()
    policy = replace(world.policy, settings={})

    with pytest.raises(PolicyError, match=r"has no approval\.roles"):
        standing(world.waiting(), [], policy, world.people, at=NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
WORLD = World()
WAITING = WORLD.waiting()
BODY = WORLD.sign(SessionSigner("olga"), WAITING, previous=NO_HASH).to_body()


@given(field=st.sampled_from(sorted(BODY)), value=JSON, drop=st.booleans(), extra=st.booleans())
def test_whatever_a_body_holds_it_does_not_raise_and_only_the_signed_one_counts(
    field: str, value: Any, drop: bool, extra: bool
) -> None:
    body = {**BODY, field: value}
    if drop:
        del body[field]
    if extra:
        body["extra"] = value
    good = recorded(Statement.from_body(BODY))

    found = judged(WORLD, WAITING, [replace(good, body=body)])

    assert len(found.approvals) == (body == BODY)
    assert found.complete == (body == BODY)


@given(
    subject=st.sampled_from(["", "x", *sorted(subject_of(WAITING).values())]),
    kind=st.sampled_from(["approval", "rejection", "waiver", "alias", "incident", "automation", "pause"]),
    previous=st.sampled_from([NO_HASH, "", "f" * 64]),
    pipeline=st.sampled_from([PIPELINE, ("flights", "other")]),
)
def test_a_good_statement_counts_only_in_the_record_it_was_signed_for(
    subject: str, kind: Any, previous: str, pipeline: tuple[str, str]
) -> None:
    good = recorded(Statement.from_body(BODY))
    moved = replace(good, subject=subject, kind=kind, previous_hash=previous, pipeline=pipeline)

    found = judged(WORLD, WAITING, [moved])

    assert (found.approvals, found.rejected_by, found.complete) == ((), None, False)


@given(order=st.permutations(["olga", "pavel", "dora", "tim", "lena"]))
def test_the_order_of_the_statements_changes_no_count(order: list[str]) -> None:
    found = judged(WORLD, WAITING, approvals_of(WORLD, WAITING, *order))

    assert {approval.person for approval in found.approvals} == {"olga", "pavel"}
    assert {(refused.person, refused.word) for refused in found.not_counted} == {
        ("dora", "wrong_role"),
        ("tim", "wrong_team"),
        ("lena", "self_approval"),
    }


def test_instants_of_other_zones_are_compared_as_instants() -> None:
    at = NOW.astimezone(timezone(timedelta(hours=9)))

    assert judged(WORLD, WAITING, [recorded(Statement.from_body(BODY))], at=at).complete
    assert at.tzinfo is not UTC
