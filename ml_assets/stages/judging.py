"""What becomes of a candidate by a policy: a pure function of what was measured, so that it can be made again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_assets.challenge import challenge
from ml_assets.challenge_result import ChallengeResult, ChallengeRules
from ml_assets.errors import PolicyError
from ml_assets.interfaces import DecisionOutcome, EffectivePolicy, ServingLimits, ServingReport
from ml_assets.material import MaterialTest, material_tests, needs_approval
from ml_assets.spec import PipelineSpec
from ml_assets.stages.scored_rows import ScoredRows


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a policy says of a candidate.

    Attributes:
        outcome: "promoted" when nothing stands in the way, "awaiting_approval" when people must agree first.
        reason: Sentences for a reader.
        challenge: The comparison as a document, or None when the champion could not be measured.
        tests: Every test of material change; empty when the comparison was not won.
        approval_reasons: Why people must approve; empty when they need not.
    """

    outcome: DecisionOutcome
    reason: str
    challenge: Mapping[str, Any] | None = None
    tests: tuple[MaterialTest, ...] = ()
    approval_reasons: tuple[str, ...] = field(default=())


def compare(spec: PipelineSpec, rows: ScoredRows, policy: EffectivePolicy) -> ChallengeResult:
    """Compare the candidate with the champion, or with the baseline when there is none, as the policy says.

    Raises:
        PolicyError: If the policy lacks the margin, or guards a slice that the evaluation does not have.
    """
    guarded = policy.names("slices.guarded")
    missing = sorted({name.partition("=")[0] for name in guarded} - set(rows.columns))
    if missing:
        raise PolicyError(
            f"The policy guards the slices {', '.join(missing)}, but the evaluation of {spec.team}/{spec.name} has "
            f"{', '.join(map(str, rows.columns)) or 'none'}. Add them to evaluation.slices in the pipeline's YAML."
        )
    return challenge(
        task=spec.label.task,
        y_true=rows.y_true,
        scores=rows.scores,
        days=rows.days,
        columns=rows.columns if rows.columns.shape[1] else None,
        rules=rules_of(spec, policy),
        classes=rows.classes,
    )


def rules_of(spec: PipelineSpec, policy: EffectivePolicy) -> ChallengeRules:
    """Return the rules of a comparison; a slice may lose as much as the whole where the policy sets no other margin."""
    metric = spec.selection.metric
    margin = policy.number(f"{metric}.margin")
    own = f"{metric}.slice_margin"
    return ChallengeRules(
        metric=metric,
        margin=margin,
        confidence=policy.number("comparison.confidence"),
        replicates=int(policy.number("comparison.replicates")),
        block_days=int(policy.number("comparison.block_days")),
        slice_margin=policy.number(own) if own in policy.settings else margin,
        calibration_guard=policy.flag("comparison.calibration_guard"),
        seed=spec.training.seed,
    )


def limits_of(policy: EffectivePolicy) -> ServingLimits:
    """Return what serving may take."""
    return ServingLimits(
        latency_ms=policy.number("serving.latency_ms"),
        model_mb=policy.number("serving.model_mb"),
        score_tolerance=policy.number("serving.score_tolerance"),
    )


def judge(
    compared: ChallengeResult,
    candidate: Mapping[str, Any],
    champion: Mapping[str, Any] | None,
    policy: EffectivePolicy,
    serving: ServingReport | None,
    further_reasons: Sequence[str] = (),
) -> Judged:
    """Return what becomes of a candidate whose gates are open.

    Args:
        compared: The comparison with champion or baseline.
        candidate: Fingerprint of the candidate.
        champion: Fingerprint of the champion, None when there is none.
        policy: What holds.
        serving: How the registered model did in a clean process; None when the comparison was not won.
        further_reasons: Why people must approve beside what changed.
    """
    document = compared.to_document()
    tests = material_tests(candidate, champion, document, policy)
    reasons = (*needs_approval(tests, policy), *further_reasons)
    if compared.outcome != "promote":
        outcome: DecisionOutcome = "undecided" if compared.outcome == "undecided" else _kept(champion)
        return Judged(
            outcome=outcome, reason=compared.reason, challenge=document, tests=tests, approval_reasons=reasons
        )
    if serving is not None and serving.problems:
        reason = f"it cannot be served: {'; '.join(serving.problems)}"
        return Judged(outcome="refused", reason=reason, challenge=document, tests=tests, approval_reasons=reasons)
    if reasons:
        reason = f"{compared.reason} People must approve it: {'; '.join(reasons)}."
        return Judged(
            outcome="awaiting_approval", reason=reason, challenge=document, tests=tests, approval_reasons=reasons
        )
    reason = f"{compared.reason} Nothing is materially different from the champion."
    return Judged(outcome="promoted", reason=reason, challenge=document, tests=tests)


def _kept(champion: Mapping[str, Any] | None) -> DecisionOutcome:
    """Return the outcome of a lost comparison: against the baseline there is nothing to keep."""
    return "refused" if champion is None else "kept"
