"""The rules that every statement must keep, whether it is given now or found in the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from ml_assets.approvals.signing import require_key_in_force, verify_signature
from ml_assets.approvals.statements import Statement, subject_digest
from ml_assets.errors import ApprovalError
from ml_assets.interfaces import EffectivePolicy, Person, Record, RecordKind

RECORD_KINDS: Mapping[str, RecordKind] = {"approve": "approval", "reject": "rejection", "waive": "waiver"}
"""Action of a statement → kind of the record that holds it."""

EVERY_TEAM = "*"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Who may make one kind of statement on one pipeline, and for how long.

    Attributes:
        what: Prefix of the policy's settings: "approval" or "waiver".
        roles: One of these roles is needed.
        place: Policy file and line of the roles.
        max_days: For how many days a statement may count.
        team: The pipeline's team, which the person's roles must hold for.
        launched_by: Who launched a run that led here, and may therefore not speak.
    """

    what: str
    roles: tuple[str, ...]
    place: str
    max_days: float
    team: str
    launched_by: tuple[str, ...]


def rules_of(policy: EffectivePolicy, what: str, launched_by: Sequence[str]) -> Rules:
    """Return the rules of approvals or waivers that a policy sets.

    Args:
        policy: What holds for the pipeline.
        what: "approval" or "waiver".
        launched_by: See `Rules`.

    Raises:
        PolicyError: If the policy lacks the roles or the number of days.
    """
    roles = policy.names(f"{what}.roles")
    setting = policy.settings[f"{what}.roles"]
    return Rules(
        what=what,
        roles=roles,
        place=f"{setting.file}:{setting.line}",
        max_days=policy.number(f"{what}.valid_days"),
        team=policy.pipeline[0],
        launched_by=tuple(launched_by),
    )


def require_allowed(statement: Statement, person: Person, rules: Rules) -> None:
    """Return when the person may make the statement.

    Raises:
        ApprovalError: "wrong_role", "wrong_team", "self_approval" or "too_long".
    """
    if not set(person.roles) & set(rules.roles):
        raise ApprovalError(
            "wrong_role",
            f"{person.name} has the roles {', '.join(person.roles) or 'none'} ({person.file}:{person.line}); the "
            f"policy's {rules.what}.roles ({rules.place}) wants one of {', '.join(rules.roles) or 'no roles at all'}.",
        )
    if rules.team not in person.teams and EVERY_TEAM not in person.teams:
        raise ApprovalError(
            "wrong_team",
            f"{person.name}'s roles hold for the teams {', '.join(person.teams) or 'none'} "
            f"({person.file}:{person.line}); {statement.place} belongs to {rules.team}.",
        )
    launcher = launched_as(person, rules.launched_by)
    if launcher is not None:
        raise ApprovalError(
            "self_approval",
            f"{person.name} launched a run that led to {statement.place} (as {launcher!r}); somebody else must decide.",
        )
    if statement.expires_at - statement.issued_at > timedelta(days=rules.max_days):
        days = (statement.expires_at - statement.issued_at) / timedelta(days=1)
        raise ApprovalError(
            "too_long",
            f"The statement on {statement.place} would count for {days:g} days; the policy's {rules.what}.valid_days "
            f"allows {rules.max_days:g}.",
        )


def launched_as(person: Person, launched_by: Sequence[str]) -> str | None:
    """Return the name under which a person is among the launchers, or None; capitals make no other person."""
    own = {name.strip().casefold() for name in (person.name, *person.logins)}
    return next((name for name in launched_by if name.strip() and name.strip().casefold() in own), None)


def read_statement(record: Record) -> Statement:
    """Return the statement that a record holds, when the record is the one it was signed for.

    Raises:
        ApprovalError: "malformed" when it cannot be read; "misplaced" when the record stands elsewhere, such as a
            copy; "wrong_action" when it is filed as something else; "other_subject" when it is filed under another
            subject than the one that was signed.
    """
    statement = Statement.from_body(record.body)
    if RECORD_KINDS[statement.action] != record.kind:
        raise ApprovalError(
            "wrong_action",
            f"A statement that says {statement.action!r} of {statement.place} is filed as {record.kind}.",
        )
    if record.subject != subject_digest(statement.subject):
        raise ApprovalError(
            "other_subject",
            f"{statement.person}'s statement on {statement.place} is filed under another subject than the one that "
            "was signed.",
        )
    if statement.pipeline != record.pipeline or statement.previous != record.previous_hash:
        raise ApprovalError(
            "misplaced",
            f"{statement.person}'s statement on {statement.place} was signed for another place in the chain "
            f"(after {statement.previous[:12]}…); this record, after {record.previous_hash[:12]}…, is a copy.",
        )
    return statement


def require_signed(record: Record, statement: Statement, people: Mapping[str, Person]) -> Person:
    """Return the person who signed a record's statement with a key in force then and when it was recorded.

    Raises:
        ApprovalError: As `verify_signature`.
    """
    person = verify_signature(statement, people)
    if record.recorded_at is not None:
        require_key_in_force(statement, person, at=record.recorded_at)
    return person


def copies(records: Sequence[Record]) -> list[bool]:
    """Return for each record whether an earlier one of its stream claims the same place in the chain.

    The first record of each stream follows the same `NO_HASH`, and is no copy of the other's.
    """
    seen: set[tuple[str, tuple[str, str], str]] = set()
    result: list[bool] = []
    for record in records:
        place = (record.stream, record.pipeline, record.previous_hash)
        result.append(place in seen)
        seen.add(place)
    return result


def require_no_copy(statement: Statement, *, is_copy: bool) -> None:
    """Return unless an earlier record claims the same place; raises ApprovalError "misplaced" otherwise."""
    if is_copy:
        raise ApprovalError(
            "misplaced",
            f"{statement.person}'s statement on {statement.place} stands at a place of the chain that another record "
            "has already. `ml-assets ledger verify` names the row.",
        )


def require_subject(statement: Statement, subject: Mapping[str, str]) -> None:
    """Return when a statement is on exactly this subject.

    Raises:
        ApprovalError: "other_subject", with what differs.
    """
    names = sorted({*subject, *statement.subject})
    other = [name for name in names if subject.get(name) != statement.subject.get(name)]
    if other:
        differences = "; ".join(
            f"{name} {_short(statement.subject.get(name))}, now {_short(subject.get(name))}" for name in other
        )
        raise ApprovalError(
            "other_subject",
            f"{statement.person}'s statement on {statement.place} is on something else: {differences}.",
        )


def _short(text: str | None) -> str:
    if text is None:
        return "nothing"
    return f"{text[:12]}…" if len(text) == 64 else repr(text[:80])
