"""The `promotion` stage: registers the candidate, compares it, asks people where it must, and moves the champion.

The order is what makes a crash harmless: the decision is committed to the ledger first, the registry's aliases follow
it. Repeating the stage repeats nothing that is settled and repairs what was left half done.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ml_assets.approvals.standing import Standing, standing, with_launchers
from ml_assets.digest import document_digest
from ml_assets.errors import GateClosedError, RegistryError, RegistryUnavailableError, StoreError
from ml_assets.evaluation_report import EvaluationReport
from ml_assets.gates import APPROVAL, Judgement, judge_report, to_verdicts
from ml_assets.interfaces import Decision, LedgerView, LoggedModel, ModelVersion, ServingReport
from ml_assets.stages.aliases import sync_aliases
from ml_assets.stages.champions import latest_by_partition
from ml_assets.stages.decisions import (
    SETTLED,
    SupersededError,
    conclude,
    disbelieved,
    model_name,
    overtaken_by,
    same_subject,
    superseded,
)
from ml_assets.stages.dossiers import write_dossier
from ml_assets.stages.judging import Judged, compare, judge, limits_of
from ml_assets.stages.recorded_policy import policy_document
from ml_assets.stages.scored_rows import read_probe, read_rows
from ml_assets.stages.step import StageResult, Step, gates_of
from ml_assets.stages.trust import Trusted, delegation_reasons, trusted_champion
from ml_assets.training import trusted_types


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A registered candidate and what is decided on.

    Attributes:
        evaluation: The evaluation's document.
        document: The candidate's document.
        version: Its registered version.
        decision: A decision about it without outcome: what it is bound to, and who launched it.
    """

    evaluation: Mapping[str, Any]
    document: Mapping[str, Any]
    version: ModelVersion
    decision: Decision


def run(step: Step) -> StageResult:
    """Decide what becomes of the candidate, record it, and let the registry's aliases follow.

    Raises:
        GateClosedError: If a gate of the evaluation is closed.
        SupersededError: If the champion it was compared with is not the champion of its time any more.
    """
    candidate = register(step)
    decision = settle(step, candidate)
    try:
        moves = sync_aliases(step.services, step.path, decision.model_name)
    except RegistryUnavailableError:
        raise
    except RegistryError as error:  # such as a champion's version that was deleted: scoring rolls it back
        moves = []
        step.notes.append(f"the registry's aliases could not follow: {error}")
    dossier = write_dossier(step, decision, candidate.document, candidate.evaluation)
    document = {
        "outcome": decision.outcome,
        "reason": decision.reason,
        "model_name": decision.model_name,
        "model_version": decision.model_version,
        "champion_version": decision.champion_version,
        "variant": candidate.document["variant"],
        "decided_by": decision.decided_by,
        "evidence": dict(decision.evidence),
    }
    # A version number and a run differ from run to run; the decision on these data does not.
    content = {k: document[k] for k in ("outcome", "variant")} | {"evaluation": decision.data_version}
    stored = step.services.data_store.write_document(
        step.asset("promotion"), step.partition, document, data_version=document_digest(content)
    )
    facts = {k: v for k, v in document.items() if k != "evidence" and v is not None} | {"dossier": dossier}
    incidents = [move.sentence for move in moves if move.foreign]
    return StageResult(
        stored=stored,
        judgements=(_approval(decision),),
        policy_version=decision.policy_version,
        facts=facts
        | ({"incidents": incidents} if incidents else {})
        | ({"notes": list(step.notes)} if step.notes else {}),
        tables=_tables(decision),
    )


def _approval(decision: Decision) -> Judgement:
    """Return what the UI shows of a decision as a check: a warning while the candidate waits for people."""
    waits = decision.outcome == "awaiting_approval"
    why = "; ".join(decision.evidence.get("approval_reasons", []))
    where = f"ml-assets approvals show {'/'.join(decision.pipeline)} {decision.partition}"
    reason = f"version {decision.model_version} waits for approval: {why}. Look: {where}" if waits else decision.reason
    evidence = {"outcome": decision.outcome, "decided_by": decision.decided_by}
    return Judgement(check=APPROVAL, passed=not waits, severity="warning", reason=reason, evidence=evidence)


def register(step: Step) -> Candidate:
    """Return the candidate as a registered version, with everything that a decision on it is bound to."""
    evaluation = step.read_document(("evaluation",), step.partition)
    document = step.read_document(("candidate",), step.partition)
    registry = step.services.model_registry
    version = registry.register(
        model_name(step),
        LoggedModel(run_id=document["run_id"], model_uri=document["model_uri"]),
        tags={"partition": step.partition, "variant": document["variant"], "dagster_run_id": step.run_id},
    )
    champion = evaluation["champion"]
    key = f"{'/'.join(step.asset('evaluation'))} [{step.partition}]"
    bound = Decision(
        pipeline=step.path,
        partition=step.partition,
        outcome="undecided",
        reason="",
        model_name=version.name,
        model_version=version.version,
        champion_version=None if champion is None else champion["version"],
        data_version=step.upstream[key],
        policy_version=step.policy.digest,
        run_id=step.run_id,
        model_digest=registry.digest(version.model_uri),
        evaluation_digest=document_digest(dict(evaluation)),
        policy_digest=step.policy.digest,
        launched_by=tuple(dict.fromkeys([document.get("launched_by", ""), step.launched_by])),
    )
    return Candidate(evaluation=evaluation, document=document, version=version, decision=bound)


def settle(step: Step, candidate: Candidate) -> Decision:
    """Return the decision that stands: the one there was when it is settled or still waits, else a new one."""
    last = latest_by_partition(step.services.ledger.decisions(step.path)).get(step.partition)
    if last is not None and same_subject(last, candidate.decision):
        if last.outcome in SETTLED and not disbelieved(step, last):
            return last
        if last.outcome == "awaiting_approval" and last.policy_digest == candidate.decision.policy_digest:
            given = approvals(step, step.services.ledger, last)
            if not given.complete and not given.closed:
                return last
    decision = plan_promotion(step, candidate)
    return conclude(step, decision, lambda view, newest: _final(step, view, newest, decision))


def plan_promotion(step: Step, candidate: Candidate) -> Decision:
    """Return the decision on a candidate whose gates are open; nothing is recorded yet."""
    _require_gates(step, candidate)
    trusted = trusted_champion(step.services, step.path, step.time)
    champion = trusted.champion
    version = None if champion is None else champion.model_version
    if version != candidate.decision.champion_version:
        raise SupersededError(
            f"{'/'.join(step.path)} [{step.partition}] was evaluated against "
            f"version {candidate.decision.champion_version or 'none'}, but version {version or 'none'} is champion of "
            "its time now. Materialize `evaluation` and `promotion` of the partition again."
        )
    rows = read_rows(step.services, step.path, step.partition, candidate.evaluation)
    compared = compare(step.spec, rows, step.policy)
    serving = check_serving(step, candidate) if _may_score(compared.outcome, step) else None
    before = None if champion is None else champion.evidence.get("fingerprint", {})
    further = _further_reasons(trusted, candidate)
    judged = judge(compared, _fingerprint(step, candidate), before, step.policy, serving, further)
    return replace(
        candidate.decision,
        outcome=judged.outcome,
        reason=judged.reason,
        evidence=_evidence(step, candidate, judged, serving),
    )


def _further_reasons(trusted: Trusted, candidate: Candidate) -> list[str]:
    """Return why people must approve a promotion whatever it is made of."""
    champion = trusted.champion
    problem = (candidate.evaluation["champion"] or {}).get("problem")
    reasons = [] if champion is None else delegation_reasons(trusted.automatic + 1)
    if champion is not None and problem:
        reasons.append(
            f"champion version {champion.model_version} cannot score these rows ({problem}), so that it was compared "
            "with the baseline"
        )
    return [*reasons, *trusted.refused]


def _require_gates(step: Step, candidate: Candidate) -> None:
    """Judge the evaluation once more, from its document: a verdict in the ledger is no signature.

    Raises:
        GateClosedError: If a gate fails at error level and nobody who may has waived it.
    """
    decision = candidate.decision
    verdicts = to_verdicts(
        judge_report(EvaluationReport.from_document(candidate.evaluation["report"]), step.spec.gates, step.policy),
        asset=step.asset("evaluation"),
        partition=step.partition,
        data_version=decision.data_version,
        policy_version=gates_of(step, "evaluation")[1],
        run_id=step.run_id,
    )
    for verdict in verdicts:
        if verdict.outcome == "failed" and verdict.severity == "error" and not step.waived(verdict):
            raise GateClosedError(
                verdict.asset,
                verdict.partition,
                verdict.data_version,
                f"Gate {verdict.check!r} fails on {'/'.join(verdict.asset)} [{verdict.partition}], whatever the ledger "
                f"says of it: {verdict.reason}. Materialize `evaluation` again.",
            )


def _may_score(outcome: str, step: Step) -> bool:
    """Whether a candidate with this outcome may score rows that somebody uses: as champion, or in an A/B arm."""
    return outcome == "promote" or (outcome == "undecided" and step.policy.number("ab.challenger_share") > 0)


def check_serving(step: Step, candidate: Candidate) -> ServingReport:
    """Serve the registered version in a clean process, against the scores that were evaluated."""
    rows, expected = read_probe(step.services, step.path, step.partition, candidate.evaluation)
    report = step.services.serving_check.check(
        candidate.version,
        rows,
        expected,
        task=step.spec.label.task,
        limits=limits_of(step.policy),
        trusted_types=trusted_types(step.spec.variants.values()),
    )
    decided_on = candidate.decision.model_digest
    if report.model_digest in ("", decided_on):
        return report
    changed = f"its file was changed while it was decided on: SHA-256 {report.model_digest[:12]}, was {decided_on[:12]}"
    return replace(report, problems=(*report.problems, changed))


def _fingerprint(step: Step, candidate: Candidate) -> Mapping[str, Any]:
    found = candidate.document.get("fingerprint")
    if found is None:
        raise StoreError(
            f"{'/'.join(step.asset('candidate'))} [{step.partition}] does not say what it was made of: an older "
            "release wrote it. Materialize `candidate`, `evaluation` and `promotion` of the partition again."
        )
    return found


def approvals(step: Step, view: LedgerView, decision: Decision) -> Standing:
    """Return who has approved a waiting decision by now."""
    people = step.services.policy.people()
    asked = with_launchers(decision, view.decisions(decision.pipeline))
    return standing(asked, view.records(decision.pipeline), step.policy, people, at=_now())


def _final(step: Step, view: LedgerView, last: Decision | None, proposed: Decision) -> Decision:
    """Return what to record: a waiting decision is promoted when its approvals are complete, closed when it expired."""
    if proposed.outcome != "awaiting_approval":
        return proposed
    overtaken = overtaken_by(step, view, proposed)
    if overtaken is not None:
        return superseded(proposed, overtaken)
    waiting = last is not None and last.outcome == "awaiting_approval" and same_subject(last, proposed)
    if last is None or not waiting or last.policy_digest != proposed.policy_digest:
        return proposed
    given = approvals(step, view, last)
    if given.complete:
        people = ", ".join(approval.person for approval in given.approvals)
        reason = f"{proposed.reason} Approved by {people}."
        # The launchers stay those of the request: whoever starts this run has no part in what is promoted.
        return replace(proposed, outcome="promoted", reason=reason, decided_by=people, launched_by=last.launched_by)
    if given.closed:
        reason = (
            f"it was not approved in time: {len(given.approvals)} of {given.needed} approvals until "
            f"{given.expires_at:%Y-%m-%d %H:%M} UTC. Materialize `promotion` again to ask once more."
        )
        return replace(proposed, outcome="refused", reason=reason, decided_by="expiry")
    return last


def _evidence(step: Step, candidate: Candidate, judged: Judged, serving: ServingReport | None) -> dict[str, Any]:
    policy = step.policy
    return {
        "challenge": None if judged.challenge is None else dict(judged.challenge),
        "material": [test.to_document() for test in judged.tests],
        "approval_reasons": list(judged.approval_reasons),
        "serving": None if serving is None else asdict(serving) | {"problems": list(serving.problems)},
        "fingerprint": dict(_fingerprint(step, candidate)),
        "waivers": dict(step.waivers),
        "policy": policy_document(policy),
        "approval": {
            "needed": policy.number("approval.needed"),
            "roles": list(policy.names("approval.roles")),
            "valid_days": policy.number("approval.valid_days"),
        },
    }


def _tables(decision: Decision) -> dict[str, Any]:
    import pandas as pd

    tests = decision.evidence.get("material")
    if not tests:
        return {}
    lines = [{"test": t["name"], "changed": "yes" if t["changed"] else "no", "found": t["sentence"]} for t in tests]
    return {"material change": pd.DataFrame(lines)}


def _now() -> datetime:
    return datetime.now(UTC)
