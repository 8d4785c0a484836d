"""Waivers: a person lets one failed gate of one data version pass for a few days."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from ml_assets.approvals.giving import record_of
from ml_assets.approvals.rules import (
    copies,
    read_statement,
    require_allowed,
    require_no_copy,
    require_signed,
    require_subject,
    rules_of,
)
from ml_assets.approvals.signing import require_begun, require_key_in_force, require_not_expired, verify_statement
from ml_assets.approvals.statements import Statement, subject_digest, subject_of_gate, written
from ml_assets.errors import ApprovalError
from ml_assets.interfaces import EffectivePolicy, Ledger, LedgerView, Person, Record, Verdict


def grant_waiver(
    ledger: Ledger,
    statement: Statement,
    *,
    verdict: Verdict,
    policy: EffectivePolicy,
    people: Mapping[str, Person],
    now: datetime,
    launched_by: Sequence[str] = (),
) -> Statement:
    """Record a waiver of a failed gate and return it.

    Args:
        ledger: Where it is recorded.
        statement: What was said, signed.
        verdict: The verdict as whoever signed has seen it.
        policy: What holds for the pipeline now.
        people: Who may decide, by name.
        now: Time zone aware.
        launched_by: Who launched runs that led to the verdict, as far as is known; they may not waive it.

    Raises:
        ApprovalError: If the statement does not count, with one word why; nothing was recorded.
        LedgerConflictError: If another record came in since it was signed.
    """
    with ledger.exclusive(statement.pipeline) as view:
        if statement.action != "waive":
            raise ApprovalError("wrong_action", f"{statement.action!r} is nothing to say of a failed gate.")
        require_failed(view, verdict)
        require_subject(statement, subject_of_gate(verdict))
        require_waivable(verdict.check, policy)
        person = verify_statement(statement, people, at=now)
        require_key_in_force(statement, person, at=now)
        require_allowed(statement, person, rules_of(policy, "waiver", launched_by))
        live = live_waiver(verdict, view.records(statement.pipeline, kind="waiver"), policy, people, at=now)
        if live is not None and live.person == statement.person:
            raise ApprovalError(
                "already_spoken",
                f"{live.person} has waived {verdict.check} of {statement.place} already, until "
                f"{written(live.expires_at)}.",
            )
        view.append(record_of(statement, now), after=statement.previous)
        return statement


def live_waiver(
    verdict: Verdict,
    records: Sequence[Record],
    policy: EffectivePolicy,
    people: Mapping[str, Person],
    *,
    at: datetime,
    launched_by: Sequence[str] = (),
) -> Statement | None:
    """Return the waiver that lets a failed gate pass at an instant, or None; a bad record never counts nor raises.

    Args:
        verdict: The gate's verdict on the data version.
        records: The pipeline's records, oldest first.
        policy: What holds for the pipeline at that instant.
        people: Who may decide, by name.
        at: The instant; time zone aware.
        launched_by: See `grant_waiver`.
    """
    digest = subject_digest(subject_of_gate(verdict))
    for record, is_copy in zip(records, copies(records), strict=True):
        if record.kind == "waiver" and record.subject == digest:
            try:
                statement = check_waiver(record, policy, people, at=at, launched_by=launched_by)
                require_no_copy(statement, is_copy=is_copy)
            except ApprovalError:
                continue  # `ml-assets waivers list` tells why
            return statement
    return None


def check_waiver(
    record: Record,
    policy: EffectivePolicy,
    people: Mapping[str, Person],
    *,
    at: datetime,
    launched_by: Sequence[str] = (),
) -> Statement:
    """Return the waiver that a record holds, when it counts at an instant.

    Raises:
        ApprovalError: With one word why it does not.
    """
    statement = read_statement(record)
    require_waivable(statement.subject.get("check", ""), policy)
    person = require_signed(record, statement, people)
    require_begun(statement, at=at)
    require_not_expired(statement, at=at)
    require_allowed(statement, person, rules_of(policy, "waiver", launched_by))
    return statement


def require_waivable(check: str, policy: EffectivePolicy) -> None:
    """Return when the policy lets people waive a gate; raises ApprovalError "unwaivable" otherwise."""
    setting = policy.settings.get(check)
    if setting is not None and setting.unwaivable:
        raise ApprovalError(
            "unwaivable",
            f"The gate {check} is marked unwaivable ({setting.file}:{setting.line}): {setting.reason} "
            "Correct the data or the model.",
        )


def require_failed(view: LedgerView, verdict: Verdict) -> None:
    """Return when a gate's last verdict on the data version is failed at error level.

    Raises:
        ApprovalError: "not_failed" when there is nothing to waive.
    """
    found = view.verdicts(verdict.asset, verdict.partition, data_version=verdict.data_version)
    last = [each for each in found if each.check == verdict.check][-1:]
    if not last or last[0].outcome != "failed" or last[0].severity != "error":
        said = f"the last verdict is {last[0].outcome} ({last[0].severity})" if last else "there is no verdict"
        raise ApprovalError(
            "not_failed",
            f"The gate {verdict.check} of {'/'.join(verdict.asset)} [{verdict.partition}] closes nothing on data "
            f"version {verdict.data_version[:12]}: {said}.",
        )
