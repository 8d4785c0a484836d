"""Gathers what stood behind a decision and writes its dossier, linked from the asset and from the model's version."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_assets.approvals.standing import standing, with_launchers
from ml_assets.dossier import ChampionFacts, DossierFacts, SpecFacts, render
from ml_assets.errors import PolicyError, StoreError
from ml_assets.interfaces import Decision, EffectivePolicy, Verdict
from ml_assets.periods import join_partition
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.stages.scored_rows import read_pictures
from ml_assets.stages.step import Services, Step

DOSSIER_TAG = "ml_assets.dossier"


def dossier_of(services: Services, pipeline: LoadedPipeline, decision: Decision) -> str:
    """Write the page of a recorded decision from what is stored, and return its address.

    Raises:
        StoreError: If the evaluation that was decided on is gone.
    """
    step = Step(pipeline=pipeline, services=services, partition=decision.partition, run_id=decision.run_id)
    store = services.data_store
    evaluation = store.read_document(step.asset("evaluation"), step.partition, data_version=decision.data_version)
    candidate = store.read_document(step.asset("candidate"), step.partition)
    return write_dossier(step, decision, candidate, evaluation)


def write_dossier(
    step: Step,
    decision: Decision,
    candidate: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    verdicts: Sequence[Verdict] = (),
) -> str:
    """Write the decision's page and return its address.

    A later decision on the same partition writes a page of its own, so that what was known then stays readable.

    Args:
        step: The step that decided.
        decision: As it was recorded.
        candidate: The candidate's document.
        evaluation: The evaluation's document.
        verdicts: Of the evaluation's gates, when they are not in the ledger yet.
    """
    html = render(dossier_facts(step, decision, candidate, evaluation, verdicts))
    bound_to = decision.evaluation_digest or decision.data_version
    name = f"{step.time}-{decision.outcome}-{bound_to[:8]}-{decision.policy_digest[:8]}"
    address = step.services.dossiers.write(step.path, name, html)
    if decision.model_version is not None:
        tags = {DOSSIER_TAG: address, "ml_assets.decision": decision.outcome}
        step.services.model_registry.set_version_tags(decision.model_name, decision.model_version, tags)
    return address


def dossier_facts(
    step: Step,
    decision: Decision,
    candidate: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    verdicts: Sequence[Verdict] = (),
) -> DossierFacts:
    """Return everything that the decision's page tells; see `write_dossier`."""
    return DossierFacts(
        decision=decision,
        spec=SpecFacts.of(step.spec),
        candidate=candidate,
        evaluation=evaluation,
        verdicts=(*_verdicts(step, decision), *verdicts),
        policy=step.policy,
        approvals=_approvals(step, decision),
        upstream=dict(sorted(step.upstream.items())) | _inputs(candidate),
        champion=_champion(step, decision),
        pictures=read_pictures(step, decision.data_version),
    )


def _verdicts(step: Step, decision: Decision) -> tuple[Verdict, ...]:
    """Return the last verdict of every gate on the period's data and on the evaluation that was decided on."""
    found: list[Verdict] = []
    group = step.spec.partitions.group
    for stage in ("raw_data", "features"):
        for value in [None] if group is None else group.values:
            partition = join_partition(value, step.time)
            stored = step.services.data_store.describe(step.asset(stage), partition)
            if stored is not None:
                found += _last(step, (stage,), partition, stored.data_version)
    return (*found, *_last(step, ("evaluation",), step.partition, decision.data_version))


def _last(step: Step, stage: tuple[str, ...], partition: str, data_version: str) -> list[Verdict]:
    verdicts = step.services.ledger.verdicts(step.asset(*stage), partition, data_version=data_version)
    return list({v.check: v for v in verdicts}.values())


def _approvals(step: Step, decision: Decision) -> tuple[dict[str, Any], ...]:
    if decision.recorded_at is None:
        return ()
    services = step.services
    given = standing(
        with_launchers(decision, services.ledger.decisions(step.path)),
        services.ledger.records(step.path),
        step.policy,
        services.policy.people(),
        at=decision.recorded_at,
        after_promotion=decision.outcome == "promoted",
    )
    counted = [
        {"person": a.person, "action": "approve", "at": a.given_at, "reason": a.reason, "counts": True, "why": ""}
        for a in given.approvals
    ]
    others = [
        {"person": n.person, "action": n.kind, "at": n.recorded_at, "reason": "", "counts": False, "why": n.sentence}
        for n in given.not_counted
    ]
    rejected = (
        []
        if given.rejected_by is None
        else [{"person": given.rejected_by, "action": "reject", "at": None, "reason": "", "counts": True, "why": ""}]
    )
    return (*counted, *rejected, *others)


def _champion(step: Step, decision: Decision) -> ChampionFacts | None:
    """Return the champion that the candidate was compared with, as of its own promotion."""
    if decision.champion_version is None:
        return None
    promoted = [
        d
        for d in step.services.ledger.decisions(step.path)
        if d.model_version == decision.champion_version and d.outcome == "promoted"
    ]
    if not promoted:
        return None
    champion = promoted[-1]
    candidate = _document(step, "candidate", champion.partition, None)
    return ChampionFacts(
        decision=champion,
        candidate=candidate,
        evaluation=_document(step, "evaluation", champion.partition, champion.data_version),
        upstream=_inputs(candidate),
        policy=_policy_at(step, champion),
    )


def _policy_at(step: Step, champion: Decision) -> EffectivePolicy | None:
    """Return what held when the champion was promoted; None when the tree cannot say: a page is no place to stop."""
    try:
        return step.services.policy.effective(step.path, champion.recorded_at)
    except PolicyError:
        return None


def _document(step: Step, stage: str, partition: str, data_version: str | None) -> dict[str, Any]:
    try:
        return step.services.data_store.read_document(step.asset(stage), partition, data_version=data_version)
    except StoreError:
        return {}


def _inputs(candidate: Mapping[str, Any]) -> dict[str, str]:
    """Return the feature partitions that a candidate learned from: asset [partition] → data version."""
    return dict(candidate.get("inputs", {}))
