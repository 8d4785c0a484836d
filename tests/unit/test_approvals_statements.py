"""Signed statements: every change is refused, bodies and texts are read strictly, and keys have their time."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.approvals.signing import CLOCK_SKEW, sign_statement, verify_statement
from ml_assets.approvals.statements import MAX_REASON, Statement, subject_digest, subject_of, subject_of_gate
from ml_assets.errors import ApprovalError
from ml_assets.interfaces import NO_HASH, PublicKey
from ml_assets.testing.ledger import verdict
from tests.unit.test_approvals_world import DAY, KEYS_FROM, NOW, SessionSigner, World, people, public_key, reviewer


def signed(**changes: Any) -> Statement:
    waiting = World().waiting()
    given: dict[str, Any] = {
        "action": "approve",
        "pipeline": waiting.pipeline,
        "partition": waiting.partition,
        "subject": subject_of(waiting),
        "reason": "The slices look right.",
        "issued_at": NOW,
        "valid_for": 5 * DAY,
        "previous": NO_HASH,
    }
    return sign_statement(SessionSigner("olga"), **given | changes)


SIGNED = signed()
INSTANTS = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 the zone is given apart
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
CHANGES: Mapping[str, st.SearchStrategy[Any]] = {
    "action": st.sampled_from(["approve", "reject", "waive"]),
    "person": st.sampled_from(sorted(people())) | st.text(min_size=1, max_size=20),
    "pipeline": st.tuples(st.text(min_size=1, max_size=9), st.sampled_from(["arrival_delay", "other"])),
    "partition": st.text(min_size=1, max_size=20),
    "subject": st.dictionaries(st.sampled_from(sorted(SIGNED.subject)), st.text(max_size=64), min_size=1),
    "reason": st.text(max_size=50),
    "issued_at": INSTANTS,
    "expires_at": INSTANTS,
    "previous": HEX,
    "key": HEX | st.sampled_from([public_key(name) for name in people()]),
    "signature": st.text("0123456789abcdef", min_size=128, max_size=128),
}


def reason_of(statement: Statement, *, at: datetime = NOW) -> str:
    with pytest.raises(ApprovalError) as error:
        verify_statement(statement, people(), at=at)
    return error.value.reason


def test_a_signed_statement_is_its_persons() -> None:
    assert verify_statement(SIGNED, people(), at=NOW).name == "olga"


def test_every_field_is_changed_by_the_law_below() -> None:
    assert set(CHANGES) == {field.name for field in fields(Statement)}


@given(data=st.data(), field=st.sampled_from(sorted(CHANGES)))
def test_any_change_of_any_field_is_refused(data: st.DataObject, field: str) -> None:
    value = data.draw(CHANGES[field].filter(lambda value: value != getattr(SIGNED, field)))

    with pytest.raises(ApprovalError) as error:
        verify_statement(replace(SIGNED, **{field: value}), people(), at=NOW)

    assert error.value.reason in {"forged", "unknown_person", "malformed"}


@given(data=st.data(), key=st.sampled_from(sorted(SIGNED.subject)))
def test_any_change_of_any_entry_of_the_subject_is_refused(data: st.DataObject, key: str) -> None:
    value = data.draw(st.text(max_size=64).filter(lambda text: text != SIGNED.subject[key]))

    with pytest.raises(ApprovalError) as error:
        verify_statement(replace(SIGNED, subject={**SIGNED.subject, key: value}), people(), at=NOW)

    assert error.value.reason in {"forged", "malformed"}


@given(bit=st.integers(0, 64 * 8 - 1))
def test_any_bit_of_the_signature_counts(bit: int) -> None:
    flipped = bytearray.fromhex(SIGNED.signature)
    flipped[bit // 8] ^= 1 << bit % 8

    assert reason_of(replace(SIGNED, signature=flipped.hex())) == "forged"


@given(
    reason=st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).filter(str.strip),
    partition=st.sampled_from(["2013-03", "EWR|2013-03", "größe|2013"]),
    issued_at=INSTANTS,
    offset=st.integers(-12, 12),
    seconds=st.integers(1, 10**7),
)
def test_bodies_and_texts_give_the_same_statement_back(
    reason: str, partition: str, issued_at: datetime, offset: int, seconds: int
) -> None:
    statement = signed(
        reason=reason,
        partition=partition,
        issued_at=issued_at.astimezone(timezone(timedelta(hours=offset))),
        valid_for=timedelta(seconds=seconds),
    )

    assert Statement.from_body(json.loads(json.dumps(statement.to_body()))) == statement
    assert Statement.decode(f"  {statement.encode()}\n") == statement
    assert Statement.from_body(statement.to_body()).payload() == statement.payload()


def test_the_encoded_text_is_one_line_without_spaces() -> None:
    assert set(SIGNED.encode()) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def wrong_bodies() -> Iterator[tuple[str, Any]]:
    body = SIGNED.to_body()
    yield "no mapping", [body]
    yield "nothing", None
    yield "missing field", {name: value for name, value in body.items() if name != "expires_at"}
    yield "unknown field", {**body, "note": "x"}
    for name in body:
        yield f"{name} is a number", {**body, name: 1}
        yield f"{name} is nothing", {**body, name: None}
    yield "another format", {**body, "format": "ml-assets statement 2"}
    yield "another action", {**body, "action": "allow"}
    yield "blank reason", {**body, "reason": " \n"}
    yield "long reason", {**body, "reason": "x" * (MAX_REASON + 1)}
    yield "control characters", {**body, "reason": "fine\x1b[2J"}
    yield "null character", {**body, "person": "olga\x00"}
    yield "lone surrogate", {**body, "reason": "\ud800"}
    yield "two lines in a name", {**body, "person": "olga\npavel"}
    yield "long partition", {**body, "partition": "x" * 501}
    yield "no pipeline", {**body, "pipeline": "flights"}
    yield "deep pipeline", {**body, "pipeline": "a/b/c"}
    yield "half a pipeline", {**body, "pipeline": "flights/"}
    yield "empty subject", {**body, "subject": {}}
    yield "numbers in the subject", {**body, "subject": {"model_version": 4}}
    yield "large subject", {**body, "subject": {str(n): "x" for n in range(17)}}
    yield "long entry of the subject", {**body, "subject": {"asset": "x" * 501}}
    yield "no zone", {**body, "issued_at": "2026-11-25T12:00:00.000000"}
    yield "another way to write UTC", {**body, "issued_at": "2026-11-25T12:00:00.000000Z"}
    yield "another zone", {**body, "issued_at": "2026-11-25T13:00:00.000000+01:00"}
    yield "no instant", {**body, "expires_at": "tomorrow"}
    yield "before the calendar", {**body, "issued_at": "0001-01-01T00:00:00.000000+12:00"}
    yield "ends before it begins", {**body, "expires_at": "2026-11-25T11:00:00.000000+00:00"}
    yield "short hash", {**body, "previous": "ab"}
    yield "capital digits", {**body, "key": body["key"].upper()}
    yield "no signature", {**body, "signature": ""}
    yield "short signature", {**body, "signature": "ab"}


@pytest.mark.parametrize(
    ("case", "body"), list(wrong_bodies()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_body_that_is_not_as_the_library_writes_it_is_malformed(case: str, body: Any) -> None:
    with pytest.raises(ApprovalError, match="The statement cannot be read") as error:
        Statement.from_body(body)

    assert error.value.reason == "malformed", case


@pytest.mark.parametrize(
    "text",
    [
        "",
        "approve it",
        "ä" * 20,
        base64.urlsafe_b64encode(b"[" * 30_000).decode(),
        base64.urlsafe_b64encode(json.dumps(SIGNED.to_body()).encode()).decode(),
        SIGNED.encode() + "=",
        SIGNED.encode()[:-3],
        "A" * 200_000,
    ],
    ids=["nothing", "words", "umlauts", "deep", "spaces", "padded", "cut", "long"],
)
def test_a_text_that_is_no_encoded_statement_is_malformed(text: str) -> None:
    with pytest.raises(ApprovalError) as error:
        Statement.decode(text)

    assert error.value.reason == "malformed"


def test_a_long_reason_in_any_script_can_be_encoded() -> None:
    statement = signed(reason="🚀" * MAX_REASON, subject={f"{'𝔘' * 490}{n}": "𝔘" * 500 for n in range(16)})

    assert Statement.decode(statement.encode()) == statement


def test_it_counts_from_when_it_was_signed_until_it_expires() -> None:
    assert reason_of(SIGNED, at=NOW - CLOCK_SKEW - timedelta(seconds=1)) == "not_yet_valid"
    assert verify_statement(SIGNED, people(), at=NOW - CLOCK_SKEW)
    assert verify_statement(SIGNED, people(), at=NOW + 5 * DAY - timedelta(microseconds=1))
    assert reason_of(SIGNED, at=NOW + 5 * DAY) == "expired"


def test_a_key_counts_for_what_is_signed_while_it_is_in_force() -> None:
    def verify(*keys: PublicKey) -> str:
        try:
            return verify_statement(SIGNED, {"olga": reviewer("olga", keys=keys)}, at=NOW + DAY).name
        except ApprovalError as error:
            return error.reason

    own, other = public_key("olga"), public_key("pavel")
    assert verify(PublicKey(value=own, effective_from=NOW)) == "olga"
    assert verify(PublicKey(value=own, effective_from=NOW + timedelta(seconds=1))) == "wrong_key"
    assert verify(PublicKey(value=own, effective_from=KEYS_FROM, expires=NOW)) == "wrong_key"
    assert verify(PublicKey(value=own, effective_from=KEYS_FROM, expires=NOW + timedelta(seconds=1))) == "olga"
    assert verify(PublicKey(value=other, effective_from=KEYS_FROM)) == "forged"
    assert verify() == "forged"
    expired = PublicKey(value=own, effective_from=KEYS_FROM, expires=KEYS_FROM + DAY)
    assert verify(expired, PublicKey(value=own, effective_from=KEYS_FROM + 2 * DAY)) == "olga"
    assert verify(PublicKey(value=own.upper(), effective_from=KEYS_FROM)) == "olga"


def test_bytes_that_are_no_key_sign_nothing() -> None:
    nonsense = "f" * 64
    person = reviewer("olga", keys=(PublicKey(value=nonsense, effective_from=KEYS_FROM),))
    with pytest.raises(ApprovalError) as error:
        verify_statement(replace(SIGNED, key=nonsense), {"olga": person}, at=NOW)

    assert error.value.reason == "forged"


def test_messages_say_who_where_and_what_to_do() -> None:
    def message(statement: Statement, at: datetime = NOW) -> str:
        with pytest.raises(ApprovalError) as error:
            verify_statement(statement, people(), at=at)
        return str(error.value)

    assert message(replace(SIGNED, person="mallory")) == (
        "'mallory' is not among the people of the policy (dora, lena, olga, pavel, tim). Add the person to "
        "policies/people.yaml; `ml-assets access new-key NAME` prints what to add."
    )
    assert message(replace(SIGNED, partition="2013-04")) == (
        "The statement on flights/arrival_delay [2013-04] in the name of olga is not signed by a key of olga "
        "(policies/people.yaml:3): the signature does not fit what it says."
    )
    assert message(SIGNED, NOW + 9 * DAY) == (
        "olga's statement on flights/arrival_delay [2013-03] counted until 2026-11-30T12:00:00.000000+00:00. "
        "Sign a new one."
    )


def test_subjects_are_told_apart_by_every_value() -> None:
    waiting = World().waiting()
    gate = verdict(outcome="failed")

    digests = {
        subject_digest(subject_of(waiting)),
        subject_digest(subject_of(replace(waiting, model_version="5"))),
        subject_digest(subject_of(replace(waiting, partition="2013-04"))),
        subject_digest(subject_of(replace(waiting, policy_digest="c" * 64))),
        subject_digest(subject_of_gate(gate)),
        subject_digest(subject_of_gate(replace(gate, check="expectation_warnings"))),
        subject_digest(subject_of_gate(replace(gate, data_version="c" * 64))),
    }

    assert len(digests) == 7


def test_a_statement_does_not_change_with_the_mapping_it_was_made_of() -> None:
    subject = subject_of(World().waiting())
    statement = signed(subject=subject)
    subject["model_version"] = "5"

    assert verify_statement(statement, people(), at=NOW)
