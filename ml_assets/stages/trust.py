"""Whether a promotion may be believed: its chain, its digests, and the signatures it needed.

Pipeline code holds the database's and the registry's credentials, so neither a row that says "promoted" nor an alias
proves anything. A promotion is believed when the ledger's chain is unbroken, the evaluation still has the digest that
was decided on, and either enough people signed for exactly these digests, or nothing was material: that is found
again here, from what the decision and the champion before it recorded, and not read off.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ml_assets.approvals.standing import standing
from ml_assets.digest import document_digest
from ml_assets.errors import LedgerError, StoreError
from ml_assets.interfaces import Decision, EffectivePolicy, LedgerView, PipelinePath
from ml_assets.material import material_tests, needs_approval
from ml_assets.stages.champions import promotions_before
from ml_assets.stages.recorded_policy import attested_digests, recorded_policy
from ml_assets.stages.step import Services

LONGEST_DELEGATION = 100
"""Automatic promotions that are followed back to a signed one."""


@dataclass(frozen=True, kw_only=True)
class Trusted:
    """The champion that may score, and what may not.

    Attributes:
        champion: The newest promotion that is believed, or None.
        refused: A sentence for each newer promotion that is not.
    """

    champion: Decision | None
    refused: tuple[str, ...] = ()


def trusted_champion(services: Services, path: PipelinePath, time: str | None) -> Trusted:
    """Return the promotion in force before a period that may be believed.

    Raises:
        LedgerError: If the pipeline's chain is broken; nothing in it can be believed then.
    """
    problems = services.ledger.verify(path)
    if problems:
        first = problems[0]
        raise LedgerError(
            f"The ledger of {'/'.join(path)} was tampered with: {first.stream}, row {first.position}: "
            f"{first.problem}" + (f" (and {len(problems) - 1} more)" if problems[1:] else "") + ". Nothing is scored "
            f"or promoted until somebody has looked: `ml-assets ledger verify {'/'.join(path)}`."
        )
    return believed(services, services.ledger, path, time)


def believed(services: Services, view: LedgerView, path: PipelinePath, time: str | None) -> Trusted:
    """Return what `trusted_champion` does, of a chain that was verified."""
    decisions = view.decisions(path)
    refused: list[str] = []
    for decision in promotions_before(decisions, time):
        problem = problem_of(services, view, decision, decisions) or _document_problem(services, decision)
        if not problem:
            return Trusted(champion=decision, refused=tuple(refused))
        refused.append(f"version {decision.model_version} of {decision.partition} is not believed: {problem}")
    return Trusted(champion=None, refused=tuple(refused))


def problem_of(services: Services, view: LedgerView, decision: Decision, decisions: Sequence[Decision]) -> str:
    """Return why a promotion is not believed, or an empty text; automatic ones are followed back to a signed one."""
    attested: frozenset[str] | None = None
    for _ in range(LONGEST_DELEGATION):
        # The policy of its time, as the dated settings of today's files tell it.
        policy = services.policy.effective(decision.pipeline, decision.recorded_at)
        reference = _reference(decision, decisions)
        reasons = approval_reasons(decision, reference, policy)
        if reasons:
            problem = _approval_problem(services, view, decision, policy, reasons)
            if not problem:
                return ""
            # A file may have been edited in place since. What the decision recorded counts when people signed for it.
            if attested is None:
                attested = attested_digests(view, decision.pipeline, services.policy.people())
            recorded = recorded_policy(decision) if decision.policy_digest in attested else None
            if recorded is None or approval_reasons(decision, reference, recorded):
                return problem
        if reference is None:
            return ""  # a first model, where the policy of its time wanted no approval of first models
        decision = reference
    return f"more than {LONGEST_DELEGATION} automatic promotions followed the last approval"


def approval_reasons(decision: Decision, reference: Decision | None, policy: EffectivePolicy) -> list[str]:
    """Return why people had to approve a promotion, found again from what it and its reference recorded."""
    challenge, own = decision.evidence.get("challenge"), decision.evidence.get("fingerprint")
    if challenge is None or own is None or (decision.champion_version is not None and reference is None):
        return ["it does not record what it was decided on"]
    before = None if reference is None else reference.evidence.get("fingerprint")
    if reference is not None and before is None:
        return ["the champion before it does not record what it was made of"]
    return needs_approval(material_tests(own, before, challenge, policy), policy)


def _reference(decision: Decision, decisions: Sequence[Decision]) -> Decision | None:
    """Return the promotion of the champion that a decision was compared with: recorded before it, or None."""
    if decision.champion_version is None:
        return None
    found = None
    for earlier in decisions:
        if earlier == decision:
            break
        if earlier.model_version == decision.champion_version and earlier.outcome == "promoted":
            found = earlier
    return found


def _approval_problem(
    services: Services, view: LedgerView, decision: Decision, policy: EffectivePolicy, reasons: list[str]
) -> str:
    at = decision.recorded_at
    if at is None:
        return "it was never recorded"
    people = services.policy.people()
    given = standing(decision, view.records(decision.pipeline), policy, people, at=at, after_promotion=True)
    if given.complete:
        return ""
    why = "; ".join(dict.fromkeys(refusal.sentence for refusal in given.not_counted)) or "nobody signed for it"
    return (
        f"it needs {given.needed} approval{'s' if given.needed != 1 else ''} ({reasons[0]}) and has "
        f"{len(given.approvals)}: {why}"
    )


def _document_problem(services: Services, decision: Decision) -> str:
    """Return why the evaluation is not the one that was decided on, or an empty text."""
    asset = (*decision.pipeline, "evaluation")
    try:
        document = services.data_store.read_document(asset, decision.partition, data_version=decision.data_version)
    except StoreError as error:
        return f"its evaluation cannot be read: {error}"
    found = document_digest(document)
    if found != decision.evaluation_digest:
        return (
            f"its evaluation was changed: SHA-256 {found[:12]}, decided on {decision.evaluation_digest[:12] or 'none'}"
        )
    return ""
