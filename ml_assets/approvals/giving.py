"""Giving an approval or a rejection: everything is verified in the transaction that records it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from ml_assets.approvals.rules import (
    RECORD_KINDS,
    read_statement,
    require_allowed,
    require_subject,
    rules_of,
)
from ml_assets.approvals.signing import require_key_in_force, verify_signature, verify_statement
from ml_assets.approvals.standing import (
    Standing,
    request_expires,
    require_bound,
    require_same_policy,
    standing,
    with_launchers,
)
from ml_assets.approvals.statements import Statement, subject_digest, subject_of, written
from ml_assets.errors import ApprovalError, LedgerConflictError
from ml_assets.interfaces import (
    NO_HASH,
    Decision,
    EffectivePolicy,
    Ledger,
    LedgerView,
    Person,
    PipelinePath,
    PolicySource,
    Record,
)

Given = TypeVar("Given")
ATTEMPTS = 5


def give(
    ledger: Ledger,
    statement: Statement,
    *,
    decision: Decision,
    policy: EffectivePolicy,
    people: Mapping[str, Person],
    now: datetime,
) -> Standing:
    """Record an approval or rejection of a waiting decision, and return how the decision stands with it.

    One rejection ends the waiting: a decision "rejected" is recorded in the same transaction.

    Args:
        ledger: Where it is recorded.
        statement: What was said, signed.
        decision: The decision as whoever signed has seen it.
        policy: What holds for the pipeline now.
        people: Who may decide, by name.
        now: Time zone aware.

    Raises:
        ApprovalError: If the statement does not count, with one word why; nothing was recorded.
        LedgerConflictError: If another record came in since it was signed: sign again (see `give_with_retry`).
    """
    with ledger.exclusive(statement.pipeline) as view:
        latest = require_acceptable(view, statement, decision=decision, policy=policy, people=people, now=now)
        view.append(record_of(statement, now), after=statement.previous)
        if statement.action == "reject":
            latest = replace(
                latest,
                outcome="rejected",
                reason=f"Rejected by {statement.person}: {statement.reason}",
                decided_by=statement.person,
                recorded_at=now,
            )
            view.record_decision(latest)
        asked = with_launchers(latest, view.decisions(statement.pipeline))
        return standing(asked, view.records(statement.pipeline), policy, people, at=now)


def require_acceptable(
    view: LedgerView,
    statement: Statement,
    *,
    decision: Decision,
    policy: EffectivePolicy,
    people: Mapping[str, Person],
    now: datetime,
) -> Decision:
    """Return the decision that an approval or rejection is about, when `give` would record it.

    Raises:
        ApprovalError: As `give`.
    """
    latest = waiting_decision(view, statement.pipeline, statement.partition)
    subject = subject_of(latest)
    if subject_of(decision) != subject:
        raise ApprovalError(
            "superseded",
            f"{statement.place} was decided again since it was looked at: version {decision.model_version}, now "
            f"version {latest.model_version}. Look again: `ml-assets approvals show {'/'.join(latest.pipeline)} "
            f"{latest.partition}`.",
        )
    if statement.action not in {"approve", "reject"}:
        raise ApprovalError("wrong_action", f"{statement.action!r} is nothing to say of a decision that waits.")
    require_bound(statement, subject)
    require_subject(statement, subject)
    person = verify_statement(statement, people, at=now)
    require_key_in_force(statement, person, at=now)
    launchers = with_launchers(latest, view.decisions(statement.pipeline)).launched_by
    require_allowed(statement, person, rules_of(policy, "approval", launchers))
    if statement.action == "approve":
        require_same_policy(statement, latest, policy)
        _require_open(latest, policy, now)
    _require_first_word(statement, view.records(statement.pipeline, subject=subject_digest(subject)), people, now)
    return latest


def waiting_decision(view: LedgerView, pipeline: PipelinePath, partition: str) -> Decision:
    """Return the last decision on a partition, when it awaits approval.

    Raises:
        ApprovalError: "no_decision" or "not_awaiting".
    """
    found = [decision for decision in view.decisions(pipeline) if decision.partition == partition]
    place = f"{'/'.join(pipeline)} [{partition}]"
    if not found:
        raise ApprovalError(
            "no_decision",
            f"Nothing was decided on {place} yet. `ml-assets approvals list {'/'.join(pipeline)}` shows what waits.",
        )
    if found[-1].outcome != "awaiting_approval":
        raise ApprovalError(
            "not_awaiting",
            f"{place} awaits no approval: it is {found[-1].outcome} ({found[-1].reason}). "
            f"`ml-assets approvals list {'/'.join(pipeline)}` shows what waits.",
        )
    return found[-1]


def submit(ledger: Ledger, policy: PolicySource, statement: Statement, *, now: datetime) -> Standing:
    """Record a statement that was signed elsewhere, under the policy and people of now.

    Raises:
        ApprovalError: As `give`.
        LedgerConflictError: As `give`.
        PolicyError: If the policy cannot be read.
    """
    return give(
        ledger,
        statement,
        decision=waiting_decision(ledger, statement.pipeline, statement.partition),
        policy=policy.effective(statement.pipeline),
        people=policy.people(),
        now=now,
    )


def give_with_retry(
    ledger: Ledger,
    pipeline: PipelinePath,
    make_statement: Callable[[str], Statement],
    give: Callable[[Statement], Given],
) -> Given:
    """Sign for the chain's head and give, again when another record came in between, at most five times.

    Args:
        ledger: Whose head is read.
        pipeline: (team, pipeline).
        make_statement: Signs a statement for the hash that `records_head` returns.
        give: Records it: `give`, `submit` or `grant_waiver` with the rest filled in.

    Raises:
        LedgerConflictError: If another record came in between each time.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return give(make_statement(records_head(ledger, pipeline)))
        except LedgerConflictError:
            continue
    return give(make_statement(records_head(ledger, pipeline)))


def records_head(view: LedgerView, pipeline: PipelinePath) -> str:
    """Return the hash of the pipeline's last record that automation did not write, `NO_HASH` when there is none."""
    head = view.heads(pipeline).get(f"records/{'/'.join(pipeline)}")
    return NO_HASH if head is None else head.row_hash


def record_of(statement: Statement, now: datetime) -> Record:
    """Return the record that holds a statement."""
    return Record(
        pipeline=statement.pipeline,
        kind=RECORD_KINDS[statement.action],
        subject=subject_digest(statement.subject),
        body=statement.to_body(),
        recorded_at=now,
    )


def _require_open(decision: Decision, policy: EffectivePolicy, now: datetime) -> None:
    closes = request_expires(decision, policy, now)
    if closes <= now:
        raise ApprovalError(
            "closed",
            f"{'/'.join(decision.pipeline)} [{decision.partition}] could be approved until {written(closes)} (the "
            f"policy's approval.valid_days). Decide again: `ml-assets backfill {'/'.join(decision.pipeline)} --from "
            f"{decision.partition} --to {decision.partition}`.",
        )


def _require_first_word(
    statement: Statement, records: Sequence[Record], people: Mapping[str, Person], now: datetime
) -> None:
    """Refuse a second statement of a person or key on a subject, as long as the first one counts."""
    for record in records:
        try:
            earlier = read_statement(record)
            verify_signature(earlier, people)
        except ApprovalError:
            continue  # in somebody's name, but not said by them
        if earlier.expires_at > now and (earlier.person == statement.person or earlier.key == statement.key):
            raise ApprovalError(
                "already_spoken",
                f"{earlier.person} has said {earlier.action!r} of {statement.place} already, at "
                f"{written(earlier.issued_at)}; that counts until {written(earlier.expires_at)}.",
            )
