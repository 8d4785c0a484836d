"""How a decision that waits stands: which approvals count, which do not and why, and how many are still needed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from ml_assets.approvals.rules import (
    Rules,
    copies,
    read_statement,
    require_allowed,
    require_no_copy,
    require_signed,
    require_subject,
    rules_of,
)
from ml_assets.approvals.signing import require_begun, require_not_expired
from ml_assets.approvals.statements import Statement, subject_digest, subject_of, unbound_fields
from ml_assets.errors import ApprovalError
from ml_assets.interfaces import Decision, EffectivePolicy, Person, Record, RecordKind

_OPEN_OUTCOMES = ("awaiting_approval", "promoted")


@dataclass(frozen=True, kw_only=True)
class Approval:
    """One approval that counts.

    Attributes:
        person: Who gave it.
        reason: Why, in the person's words.
        given_at: When it was signed.
        expires_at: From when it no longer counts.
    """

    person: str
    reason: str
    given_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class NotCounted:
    """One recorded statement that does not count.

    Attributes:
        person: In whose name it is; nobody knows whether they said it.
        kind: Kind of the record.
        word: Why not, for programs: such as "forged" or "expired".
        sentence: Why not, for a reader.
        recorded_at: When it was recorded.
    """

    person: str
    kind: RecordKind
    word: str
    sentence: str
    recorded_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a decision stands at an instant.

    Attributes:
        needed: How many people must approve.
        approvals: Approvals that count, oldest first.
        not_counted: Statements that do not, oldest first.
        rejected_by: Who rejected it, or None.
        expires_at: From when the request itself is closed.
        closed: Whether it is closed by then.
        complete: Whether it may be promoted.
    """

    needed: int
    approvals: tuple[Approval, ...]
    not_counted: tuple[NotCounted, ...]
    rejected_by: str | None
    expires_at: datetime
    closed: bool
    complete: bool

    @property
    def missing(self) -> int:
        """Return how many approvals are still needed."""
        return max(0, self.needed - len(self.approvals))


def standing(
    decision: Decision,
    records: Sequence[Record],
    policy: EffectivePolicy,
    people: Mapping[str, Person],
    *,
    at: datetime,
    after_promotion: bool = False,
) -> Standing:
    """Return how a decision stands, verified from the records alone; a bad record never counts and never raises.

    Args:
        decision: The last decision on its partition.
        records: The pipeline's records, oldest first; those on other partitions are passed over.
        policy: What holds for the pipeline at that instant.
        people: Who may decide, by name.
        at: The instant; time zone aware.
        after_promotion: Whether the decision has been carried out already, at `at`. Then the policy of today need
            not be the one that the approvals are bound to, and the request may have closed since.

    Raises:
        PolicyError: If the policy lacks one of `approval.needed`, `approval.roles` and `approval.valid_days`.
    """
    case = _Case(
        decision=decision,
        subject=subject_of(decision),
        policy=policy,
        rules=rules_of(policy, "approval", decision.launched_by),
        people=people,
        at=at,
        after_promotion=after_promotion,
    )
    found = _Found()
    for record, is_copy in case.about(records):
        try:
            statement = read_statement(record)
            require_no_copy(statement, is_copy=is_copy)
            case.require(statement, record)
            found.add(statement)
        except ApprovalError as error:
            found.not_counted.append(_not_counted(record, error))
    needed = needed_approvals(decision, policy)
    expires_at = request_expires(decision, policy, at)
    closed = not after_promotion and expires_at <= at
    enough = len(found.approvals) >= needed and decision.outcome in _OPEN_OUTCOMES
    return Standing(
        needed=needed,
        approvals=tuple(found.approvals),
        not_counted=tuple(found.not_counted),
        rejected_by=found.rejected_by,
        expires_at=expires_at,
        closed=closed,
        complete=enough and not closed and found.rejected_by is None,
    )


def with_launchers(decision: Decision, decisions: Sequence[Decision]) -> Decision:
    """Return the decision with everybody who launched a run that led to any decision on the same model and evaluation.

    The waiting row can be written again with other launchers; who stands in any of them may not approve.
    """
    subject = (decision.model_digest, decision.evaluation_digest)
    names = [
        name
        for other in (*decisions, decision)
        if (other.model_digest, other.evaluation_digest) == subject
        for name in other.launched_by
    ]
    return replace(decision, launched_by=tuple(dict.fromkeys(names)))


def needed_approvals(decision: Decision, policy: EffectivePolicy) -> int:
    """Return how many people must approve: one more when an unknown launcher may be one of them."""
    unknown = not decision.launched_by or any(not name.strip() for name in decision.launched_by)
    return max(1, int(policy.number("approval.needed"))) + unknown


def request_expires(decision: Decision, policy: EffectivePolicy, at: datetime) -> datetime:
    """Return from when a waiting decision is closed; one that is not recorded yet waits from `at` on."""
    try:
        return (decision.recorded_at or at) + timedelta(days=policy.number("approval.valid_days"))
    except OverflowError:  # a row that is dated at the end of the calendar
        return datetime.max.replace(tzinfo=UTC)


def require_bound(statement: Statement, subject: Mapping[str, str]) -> None:
    """Return when a decision's subject has every digest; raises ApprovalError "unbound" otherwise."""
    missing = unbound_fields(subject)
    if missing:
        raise ApprovalError(
            "unbound",
            f"The decision on {statement.place} records no {', '.join(missing)}, so that an approval would be bound "
            "to nothing. Materialize promotion again.",
        )


def require_same_policy(statement: Statement, decision: Decision, policy: EffectivePolicy) -> None:
    """Return when the policy is still the decision's; raises ApprovalError "policy_changed" otherwise."""
    if policy.digest != decision.policy_digest:
        time = decision.partition
        raise ApprovalError(
            "policy_changed",
            f"The policy has changed since {statement.place} was decided ({decision.policy_digest[:12]}…, now "
            f"{policy.digest[:12]}…). Decide again: `ml-assets backfill {'/'.join(decision.pipeline)} --from {time} "
            f"--to {time}`.",
        )


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One decision, and all that its statements are measured by."""

    decision: Decision
    subject: Mapping[str, str]
    policy: EffectivePolicy
    rules: Rules
    people: Mapping[str, Person]
    at: datetime
    after_promotion: bool

    def about(self, records: Sequence[Record]) -> Iterator[tuple[Record, bool]]:
        """Yield the records that claim to be about the decision's partition, and whether each is a copy."""
        digest = subject_digest(self.subject)
        for record, is_copy in zip(records, copies(records), strict=True):
            if record.kind in {"approval", "rejection"} and (
                record.subject == digest or record.body.get("partition") == self.decision.partition
            ):
                yield record, is_copy

    def require(self, statement: Statement, record: Record) -> None:
        """Return when a statement counts; raises ApprovalError otherwise.

        A rejection holds however old it is and whatever the policy says since: it only closes.
        """
        require_subject(statement, self.subject)
        require_bound(statement, self.subject)
        person = require_signed(record, statement, self.people)
        require_begun(statement, at=self.at)
        if statement.action == "approve":
            require_not_expired(statement, at=self.at)
            if not self.after_promotion:
                require_same_policy(statement, self.decision, self.policy)
        require_allowed(statement, person, self.rules)


class _Found:
    """What the statements that count add up to."""

    def __init__(self) -> None:
        self.approvals: list[Approval] = []
        self.not_counted: list[NotCounted] = []
        self.rejected_by: str | None = None
        self._keys: set[str] = set()

    def add(self, statement: Statement) -> None:
        if statement.action == "reject":
            self.rejected_by = self.rejected_by or statement.person
            return
        if statement.key in self._keys or any(a.person == statement.person for a in self.approvals):
            raise ApprovalError(
                "repeated",
                f"{statement.person} (key {statement.key[:12]}…) has approved {statement.place} already; every person "
                "and every key counts once.",
            )
        self._keys.add(statement.key)
        self.approvals.append(
            Approval(
                person=statement.person,
                reason=statement.reason,
                given_at=statement.issued_at,
                expires_at=statement.expires_at,
            )
        )


def _not_counted(record: Record, error: ApprovalError) -> NotCounted:
    person = record.body.get("person")
    return NotCounted(
        person=person[:100] if isinstance(person, str) else "nobody",
        kind=record.kind,
        word=error.reason,
        sentence=str(error),
        recorded_at=record.recorded_at,
    )
