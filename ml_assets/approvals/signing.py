"""Signing a statement, and verifying that its person signed it with a key that was in force."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from ml_assets.approvals.statements import Action, Statement, written
from ml_assets.errors import ApprovalError
from ml_assets.interfaces import Person, PipelinePath, PublicKey

CLOCK_SKEW = timedelta(minutes=2)
"""How far the clock of whoever signs may run ahead of the clock of whoever verifies."""


class Signer(Protocol):
    """A person who can sign: the only thing that is asked of an identity, wherever its key is kept."""

    @property
    def person(self) -> str:
        """Return the person's name, as in the people file."""
        ...

    @property
    def key(self) -> str:
        """Return the public key: 64 hexadecimal digits."""
        ...

    def sign(self, payload: bytes) -> bytes:
        """Return the 64 bytes of the Ed25519 signature of a payload."""
        ...


def sign_statement(
    signer: Signer,
    *,
    action: Action,
    pipeline: PipelinePath,
    partition: str,
    subject: Mapping[str, str],
    reason: str,
    issued_at: datetime,
    valid_for: timedelta,
    previous: str,
) -> Statement:
    """Return a signed statement of the signer.

    Args:
        signer: Who says it.
        action: See `Statement`.
        pipeline: (team, pipeline).
        partition: Dagster's partition key.
        subject: From `subject_of` or `subject_of_gate`.
        reason: Why; not blank.
        issued_at: Now, with a time zone.
        valid_for: After which time it no longer counts.
        previous: Hash of the last record of the pipeline's stream "records" (`NO_HASH` when there is none).

    Raises:
        ApprovalError: "malformed" when a value is outside of what a statement may hold.
    """
    draft = Statement(
        action=action,
        person=signer.person,
        pipeline=pipeline,
        partition=partition,
        subject=subject,
        reason=reason.strip(),
        issued_at=issued_at,
        expires_at=issued_at + valid_for,
        previous=previous,
        key=signer.key,
    )
    return replace(draft, signature=signer.sign(draft.payload()).hex())


def verify_statement(statement: Statement, people: Mapping[str, Person], *, at: datetime) -> Person:
    """Return the person who said it, when the signature is theirs and it counts at an instant.

    Raises:
        ApprovalError: "unknown_person", "forged" and "wrong_key" as `verify_signature`; "expired" or "not_yet_valid"
            when it does not count at that instant.
    """
    person = verify_signature(statement, people)
    require_begun(statement, at=at)
    require_not_expired(statement, at=at)
    return person


def require_begun(statement: Statement, *, at: datetime) -> None:
    """Return when a statement was signed by an instant; raises ApprovalError "not_yet_valid" otherwise."""
    if statement.issued_at > at + CLOCK_SKEW:
        raise ApprovalError(
            "not_yet_valid",
            f"{statement.person}'s statement on {statement.place} was signed at {written(statement.issued_at)}, which "
            f"is after {written(at)}. Set the clock of the machine where it was signed.",
        )


def require_not_expired(statement: Statement, *, at: datetime) -> None:
    """Return when a statement still counts at an instant; raises ApprovalError "expired" otherwise."""
    if statement.expires_at <= at:
        raise ApprovalError(
            "expired",
            f"{statement.person}'s statement on {statement.place} counted until {written(statement.expires_at)}. "
            "Sign a new one.",
        )


def verify_signature(statement: Statement, people: Mapping[str, Person]) -> Person:
    """Return the person whose key signed a statement, whether or not it has expired.

    Raises:
        ApprovalError: "unknown_person" when nobody has this name; "forged" when no key of that person made the
            signature; "wrong_key" when the key was not in force when the statement was signed.
    """
    person = people.get(statement.person)
    if person is None:
        known = ", ".join(sorted(people)[:20]) or "nobody"
        raise ApprovalError(
            "unknown_person",
            f"{statement.person!r} is not among the people of the policy ({known}). Add the person to "
            "policies/people.yaml; `ml-assets access new-key NAME` prints what to add.",
        )
    keys = [key for key in person.keys if key.value.lower() == statement.key]
    if not keys or not _is_signed(statement):
        made_with = "the signature does not fit what it says" if keys else f"no key of theirs is {statement.key[:12]}…"
        raise ApprovalError(
            "forged",
            f"The statement on {statement.place} in the name of {statement.person} is not signed by a key of "
            f"{statement.person} ({person.file}:{person.line}): {made_with}.",
        )
    require_key_in_force(statement, person, at=statement.issued_at)
    return person


def require_key_in_force(statement: Statement, person: Person, *, at: datetime) -> None:
    """Return when the key of a statement is one of the person's that is in force at an instant.

    Raises:
        ApprovalError: "wrong_key" when it is not.
    """
    keys = [key for key in person.keys if key.value.lower() == statement.key]
    if not any(_in_force(key, at) for key in keys):
        spans = ", ".join(f"from {written(k.effective_from)} to {_end(k)}" for k in keys) or "never"
        raise ApprovalError(
            "wrong_key",
            f"{statement.person}'s key {statement.key[:12]}… ({person.file}:{person.line}) is in force {spans}; the "
            f"statement on {statement.place} needs it at {written(at)}. Sign with a key that is in force.",
        )


def _in_force(key: PublicKey, at: datetime) -> bool:
    return key.effective_from <= at and (key.expires is None or at < key.expires)


def _end(key: PublicKey) -> str:
    return "now on" if key.expires is None else written(key.expires)


def _is_signed(statement: Statement) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(statement.key))
        key.verify(bytes.fromhex(statement.signature), statement.payload())
    except (InvalidSignature, ValueError):  # ValueError: 32 bytes that are no point of the curve
        return False
    return True
