"""The policy a decision was made by, as the decision recorded it; believed when a person signed for its digest."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ml_assets.approvals.rules import copies, read_statement, require_allowed, require_no_copy, require_signed, rules_of
from ml_assets.errors import ApprovalError
from ml_assets.interfaces import Decision, EffectivePolicy, Person, Record, Setting
from ml_assets.policy.merge import policy_digest

RECORDED = "recorded with the decision"


def policy_document(policy: EffectivePolicy) -> list[list[Any]]:
    """Return what the digest of a policy is made of: [name, value, severity, unwaivable, kind] of every setting."""
    return [
        [s.name, list(s.value) if isinstance(s.value, tuple) else s.value, s.severity, s.unwaivable, s.kind]
        for _, s in sorted(policy.settings.items())
    ]


def recorded_policy(decision: Decision) -> EffectivePolicy | None:
    """Return the policy that a decision recorded, when it has the decision's digest; None otherwise."""
    document = decision.evidence.get("policy")
    if not document:
        return None
    settings = {
        name: Setting(
            name=name,
            value=tuple(value) if isinstance(value, list) else value,
            kind=kind,
            severity=severity,
            unwaivable=unwaivable,
            reason=RECORDED,
            file=RECORDED,
            line=0,
        )
        for name, value, severity, unwaivable, kind in document
    }
    if policy_digest(settings.values()) != decision.policy_digest:
        return None
    return EffectivePolicy(pipeline=decision.pipeline, settings=settings, digest=decision.policy_digest)


def attested_digests(
    records: Sequence[Record], people: Mapping[str, Person], policy: EffectivePolicy, at: datetime
) -> frozenset[str]:
    """Return the policy digest of the newest approval that somebody who may approve signed for this pipeline."""
    found: frozenset[str] = frozenset()
    for record, is_copy in zip(records, copies(records), strict=True):
        if record.kind != "approval" or (record.recorded_at is not None and record.recorded_at > at):
            continue
        try:
            statement = read_statement(record)
            require_no_copy(statement, is_copy=is_copy)
            person = require_signed(record, statement, people)
            require_allowed(statement, person, rules_of(policy, "approval", ()))
        except ApprovalError:
            continue  # in somebody's name, but not said by them
        found = frozenset({statement.subject.get("policy_digest", "")})
    return found
