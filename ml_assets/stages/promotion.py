"""The `promotion` stage: registers the candidate, compares it with the champion, and sets the aliases."""

from dataclasses import replace
from typing import Any

from ml_assets.bootstrap import Interval
from ml_assets.comparison import decide
from ml_assets.digest import document_digest
from ml_assets.gates import select_thresholds, thresholds_version
from ml_assets.interfaces import Decision, DecisionOutcome, LoggedModel, ModelVersion
from ml_assets.stages.champions import champion_before, latest_by_partition
from ml_assets.stages.step import StageResult, Step

CHAMPION, CHALLENGER = "champion", "challenger"


def model_name(step: Step) -> str:
    """Return the registered model's name; registries do not take a slash in it."""
    return f"{step.spec.team}.{step.spec.name}"


def run(step: Step) -> StageResult:
    """Decide what becomes of the candidate, record it, and point the registry's aliases accordingly."""
    evaluation = step.read_document(("evaluation",), step.partition)
    candidate = step.read_document(("candidate",), step.partition)
    version = step.services.model_registry.register(
        model_name(step),
        LoggedModel(run_id=candidate["run_id"], model_uri=candidate["model_uri"]),
        tags={"partition": step.partition, "variant": candidate["variant"], "dagster_run_id": step.run_id},
    )
    decision = plan_promotion(step, evaluation, version)
    record_once(step, decision)
    _set_aliases(step, version)
    document = {
        "outcome": decision.outcome,
        "reason": decision.reason,
        "model_name": decision.model_name,
        "model_version": decision.model_version,
        "champion_version": decision.champion_version,
        "variant": candidate["variant"],
        "evidence": dict(decision.evidence),
    }
    # A version number and a run differ from run to run; the decision on these data does not.
    content = {k: document[k] for k in ("outcome", "variant")} | {"evaluation": decision.data_version}
    stored = step.services.data_store.write_document(
        step.asset("promotion"), step.partition, document, data_version=document_digest(content)
    )
    facts = {k: v for k, v in document.items() if k != "evidence" and v is not None}
    return StageResult(stored=stored, policy_version=decision.policy_version, facts=facts)


def plan_promotion(step: Step, evaluation: dict[str, Any], version: ModelVersion) -> Decision:
    """Return the decision on a candidate whose gates are open; nothing is changed yet."""
    metric = step.spec.selection.metric
    margin = select_thresholds([f"{metric}.margin"], step.services.policy.thresholds())
    key = f"{'/'.join(step.asset('evaluation'))} [{step.partition}]"
    champion = evaluation["champion"]
    outcome, reason, evidence = _compare(evaluation, metric, margin[0].value or 0.0)
    return Decision(
        pipeline=(step.spec.team, step.spec.name),
        partition=step.partition,
        outcome=outcome,
        reason=reason,
        model_name=version.name,
        model_version=version.version,
        champion_version=None if champion is None else champion["version"],
        data_version=step.upstream[key],
        policy_version=thresholds_version(margin),
        run_id=step.run_id,
        evidence=evidence,
    )


def _compare(evaluation: dict[str, Any], metric: str, margin: float) -> tuple[DecisionOutcome, str, dict[str, Any]]:
    champion = evaluation["champion"]
    if champion is None:
        return "promoted", "first champion: no earlier version, and every gate of the policy is open", {}
    improvement = evaluation["improvement_over_champion"]
    if improvement is None:
        return (
            "undecided",
            f"champion version {champion['version']} cannot score these rows: {champion['problem']}",
            {},
        )
    comparison = decide(Interval(**improvement[metric]), margin=margin)
    outcome: dict[str, DecisionOutcome] = {
        "better": "promoted",
        "not_worse": "promoted",
        "worse": "kept",
        "undecided": "undecided",
    }
    evidence = {
        "metric": metric,
        "margin": margin,
        "improvement": improvement[metric],
        "result": comparison.outcome,
    }
    return (
        outcome[comparison.outcome],
        f"{metric} against champion {champion['version']}: {comparison.reason}",
        evidence,
    )


def record_once(step: Step, decision: Decision) -> None:
    """Record a decision unless the partition's last one says exactly the same; a retried step adds nothing."""
    last = latest_by_partition(step.services.ledger.decisions(decision.pipeline)).get(decision.partition)
    if last is not None and replace(last, recorded_at=None, run_id=decision.run_id) == decision:
        return
    step.services.ledger.record_decision(decision)


def _set_aliases(step: Step, version: ModelVersion) -> None:
    """Point the aliases at what the ledger says; after a crash the next run repairs them the same way."""
    registry = step.services.model_registry
    decisions = step.services.ledger.decisions((step.spec.team, step.spec.name))
    newest = max(d.partition for d in decisions if d.model_version is not None)
    if step.partition == newest:
        registry.set_alias(version.name, CHALLENGER, version.version)
    champion = champion_before(decisions, None)
    if champion is not None and champion.model_version is not None:
        registry.set_alias(version.name, CHAMPION, champion.model_version)
