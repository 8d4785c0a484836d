"""Every way to get a promotion without the approvals it needs that was tried; nothing is gained by any."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from ml_assets.approvals.giving import give_with_retry, record_of
from ml_assets.approvals.statements import Statement, subject_digest, subject_of
from ml_assets.interfaces import Decision, PublicKey, Record
from tests.unit.test_approvals_world import (
    DAY,
    HOUR,
    KEYS_FROM,
    NOT_TRIED,
    NOW,
    PIPELINE,
    Attack,
    Outcome,
    SessionSigner,
    World,
    public_key,
    refusal,
    reviewer,
)


def smuggle(world: World, statement: Statement, **changes: Any) -> None:
    """Append a statement with the database's own credentials, round every check."""
    world.ledger.append(replace(record_of(statement, NOW), **changes))


def looked_at(world: World, about: Decision, given: str, *, at: Any = NOW) -> Outcome:
    found = world.standing(about, at=at)
    words = dict.fromkeys(f"`{refused.word}`" for refused in found.not_counted)
    later = ", ".join(words) or f"{len(found.approvals)} of {found.needed}"
    return Outcome(given=given, later=later, stopped=not found.complete)


def tried_both(world: World, waiting: Decision, statement: Statement) -> Outcome:
    """Give a statement; then put it into the ledger all the same."""
    given = refusal(lambda: world.give(statement, waiting))
    smuggle(world, statement)
    return looked_at(world, waiting, given)


# The signature


def in_the_name_of_another() -> Outcome:
    world = World()
    waiting = world.wait()
    return tried_both(world, waiting, world.sign(SessionSigner("olga", holder="mallory"), waiting))


def nobody_we_know() -> Outcome:
    world = World()
    waiting = world.wait()
    return tried_both(world, waiting, world.sign(SessionSigner("mallory"), waiting))


def changed_afterwards() -> Outcome:
    world = World()
    waiting = world.wait()
    statement = world.sign(SessionSigner("olga"), waiting, action="reject")
    return tried_both(world, waiting, replace(statement, action="approve"))


def without_signature() -> Outcome:
    world = World()
    waiting = world.wait()
    return tried_both(world, waiting, replace(world.sign(SessionSigner("olga"), waiting), signature=""))


def an_invented_row() -> Outcome:
    world = World()
    waiting = world.wait()
    body = {"person": "olga", "partition": waiting.partition, "action": "approve", "approved": True}
    subject = subject_digest(subject_of(waiting))
    world.ledger.append(Record(pipeline=PIPELINE, kind="approval", subject=subject, body=body, recorded_at=NOW))
    return looked_at(world, waiting, NOT_TRIED)


def with_a_revoked_key() -> Outcome:
    world = World()
    keys = (PublicKey(value=public_key("olga"), effective_from=KEYS_FROM, expires=NOW - DAY),)
    world.people["olga"] = reviewer("olga", keys=keys)
    waiting = world.wait()
    return tried_both(world, waiting, world.sign(SessionSigner("olga"), waiting))


def with_a_revoked_key_and_an_earlier_date() -> Outcome:
    world = World()
    keys = (PublicKey(value=public_key("olga"), effective_from=KEYS_FROM, expires=NOW - DAY),)
    world.people["olga"] = reviewer("olga", keys=keys)
    waiting = world.wait()
    return tried_both(world, waiting, world.sign(SessionSigner("olga"), waiting, at=NOW - 2 * DAY))


def by_somebody_who_was_removed() -> Outcome:
    world = World()
    waiting = world.wait()
    given = refusal(lambda: world.approve("olga", waiting))
    assert given == "accepted"
    del world.people["olga"]
    return looked_at(world, waiting, "accepted: was a reviewer")


# The person


def ones_own_by_name() -> Outcome:
    world = World()
    waiting = world.wait(launched_by=("somebody", "lena"))
    return tried_both(world, waiting, world.sign(SessionSigner("lena"), waiting))


def ones_own_by_login() -> Outcome:
    world = World()
    waiting = world.wait(launched_by=("Lena@Laptop",))
    return tried_both(world, waiting, world.sign(SessionSigner("lena"), waiting))


def ones_own_by_hiding_the_launcher() -> Outcome:
    world = World()
    waiting = world.wait(launched_by=("",))
    given = refusal(lambda: world.approve("lena", waiting))
    return looked_at(world, waiting, given)


def without_the_role() -> Outcome:
    world = World()
    waiting = world.wait()
    return tried_both(world, waiting, world.sign(SessionSigner("dora"), waiting))


def of_another_team() -> Outcome:
    world = World()
    waiting = world.wait()
    return tried_both(world, waiting, world.sign(SessionSigner("tim"), waiting))


def twice_by_the_same_person() -> Outcome:
    world = World(settings={"approval.needed": 2})
    waiting = world.wait()
    world.approve("olga", waiting)
    return tried_both(world, waiting, world.sign(SessionSigner("olga"), waiting))


def under_a_second_name() -> Outcome:
    world = World(settings={"approval.needed": 2})
    key = PublicKey(value=public_key("olga"), effective_from=KEYS_FROM)
    world.people["anna"] = reviewer("anna", keys=(key,))
    waiting = world.wait()
    world.approve("olga", waiting)
    return tried_both(world, waiting, world.sign(SessionSigner("anna", holder="olga"), waiting))


# Replay


def the_same_statement_twice() -> Outcome:
    world = World(settings={"approval.needed": 2})
    waiting = world.wait()
    statement = world.sign(SessionSigner("olga"), waiting)
    world.give(statement, waiting)
    return tried_both(world, waiting, statement)


def a_row_copied_further_down() -> Outcome:
    world = World()
    waiting = world.wait()
    statement = world.sign(SessionSigner("olga"), waiting)
    world.ledger.append(Record(pipeline=PIPELINE, kind="incident", subject="champion", body={}, recorded_at=NOW))
    return tried_both(world, waiting, statement)


def a_row_copied_to_another_decision() -> Outcome:
    world = World()
    first, second = world.wait(), world.wait(partition="2013-04", model_version="5", model_digest="c" * 64)
    statement = world.sign(SessionSigner("olga"), first)
    world.give(statement, first)
    given = refusal(lambda: world.give(replace(statement, partition=second.partition), second))
    smuggle(world, statement, subject=subject_digest(subject_of(second)))
    return looked_at(world, second, given)


def a_rejection_filed_as_approval() -> Outcome:
    world = World()
    waiting = world.wait()
    smuggle(world, world.sign(SessionSigner("olga"), waiting, action="reject"), kind="approval")
    return looked_at(world, waiting, NOT_TRIED)


def a_waiver_filed_as_approval() -> Outcome:
    world = World()
    waiting = world.wait()
    statement = world.sign(SessionSigner("olga"), waiting, action="waive")
    given = refusal(lambda: world.give(statement, waiting))
    smuggle(world, statement, kind="approval")
    return looked_at(world, waiting, given)


# Time


def expired_meanwhile() -> Outcome:
    world = World()
    waiting = world.wait()
    world.approve("olga", waiting, valid_for=HOUR)
    return looked_at(world, waiting, "accepted: counted then", at=NOW + HOUR)


def given_after_it_expired() -> Outcome:
    world = World()
    waiting = world.wait()
    return tried_both(world, waiting, world.sign(SessionSigner("olga"), waiting, at=NOW - DAY, valid_for=HOUR))


def for_a_year() -> Outcome:
    world = World()
    waiting = world.wait()
    return tried_both(world, waiting, world.sign(SessionSigner("olga"), waiting, valid_for=365 * DAY))


def from_the_future() -> Outcome:
    world = World()
    waiting = world.wait()
    return tried_both(world, waiting, world.sign(SessionSigner("olga"), waiting, at=NOW + DAY))


def after_the_request_closed() -> Outcome:
    world = World()
    waiting = world.wait(recorded_at=NOW - 8 * DAY)
    statement = world.sign(SessionSigner("olga"), waiting)
    given = refusal(lambda: world.give(statement, waiting))
    smuggle(world, statement)
    found = world.standing(waiting)
    assert len(found.approvals) == 1
    return Outcome(given=given, later="closed" if found.closed else "open", stopped=not found.complete)


# What was approved is something else now


def decided_again(**changes: Any) -> Callable[[], Outcome]:
    def attack() -> Outcome:
        world = World()
        first = world.wait()
        statement = world.sign(SessionSigner("olga"), first)
        world.give(statement, first)
        second = world.wait(**changes)
        given = refusal(lambda: world.approve("pavel", first))
        return looked_at(world, second, given)

    return attack


def under_a_changed_policy() -> Outcome:
    world = World()
    waiting = world.wait()
    world.approve("olga", waiting)
    world.settings = {"roc_auc.floor": 0.5}
    given = refusal(lambda: world.approve("pavel", waiting))
    return looked_at(world, waiting, given)


def after_a_rejection() -> Outcome:
    world = World()
    waiting = world.wait()
    world.give(world.sign(SessionSigner("pavel"), waiting, action="reject"), waiting)
    statement = world.sign(SessionSigner("olga"), waiting)
    given = refusal(lambda: world.give(statement, waiting))
    smuggle(world, statement)
    found = world.standing(waiting)
    return Outcome(given=given, later=f"rejected by {found.rejected_by}", stopped=not found.complete)


def a_row_that_says_promoted() -> Outcome:
    world = World()
    waiting = world.wait()
    world.ledger.record_decision(replace(waiting, outcome="promoted", decided_by="olga", recorded_at=NOW))
    promoted = world.ledger.decisions(PIPELINE)[-1]
    found = world.standing(promoted, after_promotion=True)
    later = f"{len(found.approvals)} of {found.needed}"
    return Outcome(given=NOT_TRIED, later=later, stopped=not found.complete)


# At the same time


def two_for_one_place() -> Outcome:
    world = World(settings={"approval.needed": 2})
    waiting = world.wait()
    first, second = (world.sign(SessionSigner(name), waiting) for name in ("olga", "pavel"))
    world.give(first, waiting)
    return tried_both(world, waiting, second)


def one_person_in_eight_threads() -> Outcome:
    world = World(settings={"approval.needed": 2})
    waiting = world.wait()

    def speak(_: int) -> str:
        return refusal(
            lambda: give_with_retry(
                world.ledger,
                PIPELINE,
                lambda previous: world.sign(SessionSigner("olga"), waiting, previous=previous),
                lambda statement: world.give(statement, waiting),
            )
        )

    with ThreadPoolExecutor(8) as pool:
        words = sorted(pool.map(speak, range(8)))
    assert words.count("accepted") == 1
    assert len(world.ledger.records(PIPELINE)) == 1
    return looked_at(world, waiting, f"{words[0]}, but for one")


APPROVALS = [
    Attack("forged signature", "signs with a key of their own in a reviewer's name", in_the_name_of_another),
    Attack("own key", "signs in a name that is not in the people file", nobody_we_know),
    Attack("changed statement", "turns a signed rejection into an approval", changed_afterwards),
    Attack("no signature", "leaves the signature out", without_signature),
    Attack("invented row", "writes a row that says a reviewer approved", an_invented_row),
    Attack("revoked key", "signs with a reviewer's key after it has expired", with_a_revoked_key),
    Attack("revoked key, dated back", "the same, dated before the key expired", with_a_revoked_key_and_an_earlier_date),
    Attack("removed person", "approves, and is taken out of the people file before the promotion",
           by_somebody_who_was_removed),
    Attack("self-approval", "launched the training under their own name", ones_own_by_name),
    Attack("self-approval by login", "launched the training under a login, written differently", ones_own_by_login),
    Attack("unknown launcher", "hides who launched the training, and approves alone", ones_own_by_hiding_the_launcher),
    Attack("wrong role", "has a key but no role that may approve", without_the_role),
    Attack("wrong team", "has the role for another team", of_another_team),
    Attack("twice by one person", "approves twice where two people are needed", twice_by_the_same_person),
    Attack("second name", "has the same key under two names where two people are needed", under_a_second_name),
    Attack("same statement twice", "gives one statement a second time", the_same_statement_twice),
    Attack("copied row", "puts a signed statement at another place of the chain", a_row_copied_further_down),
    Attack("row of another decision", "files an approval under another month's candidate",
           a_row_copied_to_another_decision),
    Attack("rejection as approval", "files a signed rejection as an approval", a_rejection_filed_as_approval),
    Attack("waiver as approval", "files a signed waiver as an approval", a_waiver_filed_as_approval),
    Attack("expired", "promotes after the approval has expired", expired_meanwhile),
    Attack("given late", "gives a statement that has expired", given_after_it_expired),
    Attack("too long", "approves for a year", for_a_year),
    Attack("from the future", "signs with tomorrow's date", from_the_future),
    Attack("closed request", "approves after the request has closed", after_the_request_closed),
    Attack("another model", "has another model decided on after the approval", decided_again(model_digest="c" * 64)),
    Attack("another evaluation", "has another evaluation decided on after the approval",
           decided_again(evaluation_digest="c" * 64)),
    Attack("another policy", "decides again under a changed policy", decided_again(policy_digest="c" * 64)),
    Attack("policy changed since", "changes a threshold after the approval", under_a_changed_policy),
    Attack("superseded decision", "approves a candidate that was replaced by another version",
           decided_again(model_version="5", model_digest="c" * 64)),
    Attack("after a rejection", "approves what somebody has rejected", after_a_rejection),
    Attack("row that says promoted", "writes the decision `promoted` without any approval", a_row_that_says_promoted),
    Attack("two at once", "two people sign for the same place of the chain", two_for_one_place),
    Attack("one person at once", "one person approves in eight threads where two people are needed",
           one_person_in_eight_threads),
]  # fmt: skip


@pytest.mark.parametrize("attempt", APPROVALS, ids=lambda attempt: attempt.name)
def test_nothing_is_gained_by(attempt: Attack) -> None:
    assert attempt.run().stopped
