"""Decides again, by another policy, what was decided before: from what was recorded, and changing nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ml_assets.errors import MlAssetsError, StoreError
from ml_assets.evaluation_report import EvaluationReport
from ml_assets.gates import judge_report
from ml_assets.interfaces import Decision, DecisionOutcome, EffectivePolicy, ServingReport
from ml_assets.spec import PipelineSpec
from ml_assets.stages.judging import compare, judge, limits_of
from ml_assets.stages.scored_rows import read_rows
from ml_assets.stages.step import Services

REPLAYED = ("promoted", "kept", "undecided", "refused", "awaiting_approval")
"""Outcomes that a policy decides; what people did, and what time closed, is not replayed."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """One decision, and what another policy would have made of it.

    Attributes:
        decision: As it was recorded.
        outcome: By the other policy, before anybody was asked; None when it cannot be said.
        reason: By the other policy, or why it cannot be said.
        approved: Whether people approved the decision then, so that "awaiting_approval" is no difference.
    """

    decision: Decision
    outcome: DecisionOutcome | None
    reason: str
    approved: bool

    @property
    def differs(self) -> bool:
        """Return whether the outcome would be another one."""
        if self.approved and self.outcome == "awaiting_approval":
            return False
        return self.outcome is not None and self.outcome != self.decision.outcome


def replay(
    services: Services, spec: PipelineSpec, decisions: Sequence[Decision], policy: EffectivePolicy
) -> list[Replayed]:
    """Return what the policy would have made of the decisions, each against the champion that it was compared with."""
    known = services.ledger.decisions((spec.team, spec.name))
    found: list[Replayed] = []
    for decision in decisions:
        closed = decision.outcome == "refused" and decision.decided_by != "pipeline"
        if decision.outcome not in REPLAYED or closed:
            continue
        approved = decision.outcome == "promoted" and bool(decision.evidence.get("approval_reasons"))
        try:
            outcome, reason = _again(services, spec, decision, known, policy)
        except MlAssetsError as error:
            outcome, reason = None, str(error)
        found.append(Replayed(decision=decision, outcome=outcome, reason=reason, approved=approved))
    return found


def _again(
    services: Services,
    spec: PipelineSpec,
    decision: Decision,
    known: Sequence[Decision],
    policy: EffectivePolicy,
) -> tuple[DecisionOutcome, str]:
    path = (spec.team, spec.name)
    evaluation = services.data_store.read_document(
        (*path, "evaluation"), decision.partition, data_version=decision.data_version
    )
    report = EvaluationReport.from_document(evaluation["report"])
    judgements = judge_report(report, spec.gates, policy)
    waived = {f"{'/'.join((*path, 'evaluation'))} [{decision.partition}] {gate}": gate for gate in spec.gates}
    passed = {waived[name] for name in decision.evidence.get("waivers", {}) if name in waived}
    passed = {gate for gate in passed if not policy.settings[gate].unwaivable}
    closed = [j for j in judgements if not j.passed and j.severity == "error" and j.check not in passed]
    if closed:
        return "refused", "; ".join(f"{j.check}: {j.reason}" for j in closed)
    problem = (evaluation["champion"] or {}).get("problem")
    if problem:
        return "undecided", f"the champion could not be measured: {problem}"
    compared = compare(spec, read_rows(services, path, decision.partition, evaluation), policy)
    own, before = _fingerprints(services, spec, decision, evaluation, known)
    judged = judge(compared, own, before, policy, _serving(decision, policy))
    return judged.outcome, judged.reason


def _fingerprints(
    services: Services,
    spec: PipelineSpec,
    decision: Decision,
    evaluation: dict[str, Any],
    known: Sequence[Decision],
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    own = decision.evidence.get("fingerprint")
    if own is None:  # refused by a gate before it was recorded: it stands in the candidate's document
        own = services.data_store.read_document((spec.team, spec.name, "candidate"), decision.partition)["fingerprint"]
    if evaluation["champion"] is None:
        return dict(own), None
    version = evaluation["champion"]["version"]
    champions = [d for d in known if d.model_version == version and d.evidence.get("fingerprint")]
    if not champions:
        raise StoreError(f"no decision records what champion version {version} was made of")
    return dict(own), dict(champions[-1].evidence["fingerprint"])


def _serving(decision: Decision, policy: EffectivePolicy) -> ServingReport | None:
    """Return the serving check as it was measured then, by the limits of now."""
    recorded = decision.evidence.get("serving")
    if recorded is None:
        return None
    report = ServingReport(**{**recorded, "problems": (), "example_scores": tuple(recorded.get("example_scores", ()))})
    limits = limits_of(policy)
    # What the limits of then said is judged by those of now; all else that was wrong with it stays wrong.
    by_limits = ("The model's file has", "Scoring ", "The served scores differ")
    problems = [p for p in recorded["problems"] if not p.startswith(by_limits)]
    if report.latency_ms > limits.latency_ms:
        problems.append(f"scoring took {report.latency_ms:.0f} ms for 1,000 rows; at most {limits.latency_ms:g}")
    if report.n_bytes > limits.model_mb * 1e6:
        problems.append(f"the model has {report.n_bytes / 1e6:.1f} MB; at most {limits.model_mb:g}")
    if report.largest_difference > limits.score_tolerance:
        problems.append(f"scores differ by {report.largest_difference:g}; at most {limits.score_tolerance:g}")
    return ServingReport(
        **{**recorded, "problems": tuple(problems), "example_scores": tuple(recorded.get("example_scores", ()))}
    )
