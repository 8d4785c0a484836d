"""The policy a decision was made by, as the decision recorded it; believed when a person signed for its digest."""

from collections.abc import Mapping
from typing import Any

from ml_assets.approvals.signing import verify_signature
from ml_assets.approvals.statements import Statement
from ml_assets.errors import ApprovalError
from ml_assets.interfaces import Decision, EffectivePolicy, LedgerView, Person, PipelinePath, Setting
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


def attested_digests(view: LedgerView, path: PipelinePath, people: Mapping[str, Person]) -> frozenset[str]:
    """Return the policy digests that somebody has signed in an approval: those policies existed."""
    found: set[str] = set()
    for record in view.records(path, kind="approval"):
        try:
            statement = Statement.from_body(record.body)
            verify_signature(statement, people)
        except ApprovalError:
            continue  # in somebody's name, but not said by them
        found.add(statement.subject.get("policy_digest", ""))
    return frozenset(found)
