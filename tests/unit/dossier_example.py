"""A believable decision on late flights, around any evaluation: what tests of the dossier render."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_assets.challenge import challenge
from ml_assets.challenge_result import ChallengeRules
from ml_assets.digest import document_digest
from ml_assets.dossier import ChampionFacts, DossierFacts, SpecFacts
from ml_assets.evaluation import evaluate
from ml_assets.evaluation_report import EvaluationReport
from ml_assets.interfaces import Decision, EffectivePolicy, Setting, Verdict

PIPELINE = ("flights", "arrival_delay")
FEATURES = ["carrier", "dest", "origin", "distance", "departure_minute", "weekday", "wind_speed", "visibility"]
FINGERPRINT: dict[str, Any] = {
    "sources": {"partitions": "flights/flights_{time}_{group}.csv", "weather": "flights/weather.csv"},
    "columns": {"carrier": "string", "dest": "string", "distance": "float64", "weather_wind_speed": "float64"},
    "features": FEATURES,
    "estimator": "sklearn.ensemble.HistGradientBoostingClassifier",
    "preprocessing": {"numeric": "keep", "missing": "keep", "categorical": "ordinal", "min_frequency": 20},
    "params": {"max_iter": "150", "max_leaf_nodes": "15", "min_samples_leaf": "200"},
    "feature_code": document_digest("features"),
    "classification": "public",
    "label": "late",
}
SPEC = SpecFacts(
    description="Will a flight out of New York arrive more than 15 minutes late? Asked when it is scheduled to leave.",
    owners=("team:flights", "flights@example.com"),
    business_unit="Network operations",
    product="Connection desk",
    classification="public",
    regulations=(),
    label="late",
    task="binary",
    unit="",
    seed=20130101,
    training_window="expanding",
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one period's rows said of a candidate: the evaluation's report and the challenge's document."""

    report: EvaluationReport
    challenge: Mapping[str, Any]


def measure(
    y: NDArray[np.int64],
    scores: Mapping[str, NDArray[np.float64]],
    days: NDArray[np.datetime64],
    columns: pd.DataFrame,
    *,
    replicates: int = 100,
) -> Measured:
    """Evaluate and challenge a candidate on rows, as a pipeline does."""
    rules = ChallengeRules(
        metric="roc_auc",
        margin=0.02,
        confidence=0.95,
        replicates=replicates,
        block_days=1,
        slice_margin=0.05,
        calibration_guard=True,
        seed=20130101,
    )
    report = evaluate(
        task="binary",
        y_true=y,
        scores=scores,
        blocks=days,
        metrics=["roc_auc", "log_loss", "brier_score"],
        slice_columns=columns,
        replicates=replicates,
        seed=20130101,
        event_time=days,
    )
    compared = challenge(task="binary", y_true=y, scores=scores, days=days, columns=columns, rules=rules)
    return Measured(report=report, challenge=compared.to_document())


@lru_cache
def made_up(*, champion: bool = True, seed: int = 5) -> Measured:
    """Return what made-up rows say: the candidate knows their chances, the champion only in part."""
    rng = np.random.default_rng(seed)
    day = np.repeat(np.arange(14), 90)
    logit = rng.normal(-1, 1, day.size)
    chance = 1 / (1 + np.exp(-logit))
    scores = {"candidate": chance, "baseline": np.full(day.size, 0.3)}
    if champion:
        scores["champion"] = 1 / (1 + np.exp(1 - 0.6 * (logit + 1 + rng.normal(0, 1, day.size))))
    carriers = rng.choice([*"ABCDEFGHIJKL"], day.size)
    carriers[:3] = "OO"
    columns = pd.DataFrame({"origin": rng.choice(["EWR", "JFK", "LGA"], day.size), "carrier": carriers})
    days = np.datetime64("2013-04-01") + day.astype("timedelta64[D]")
    return measure((rng.random(day.size) < chance).astype(int), scores, days, columns)


def evaluation(report: EvaluationReport) -> dict[str, Any]:
    """Return the `evaluation` document around a report."""
    return {
        "candidate": {"variant": "boosting", "run_id": "0f3c5c1be3f04a4c9a52b8a3f7e9d6c1"},
        "champion": {"version": "1", "partition": "2013-03", "problem": ""},
        "report": report.to_document(),
    }


def candidate(*, training_rows: int = 78_215, mean: float = 0.2281) -> dict[str, Any]:
    """Return a `candidate` document."""
    return {
        "variant": "boosting",
        "run_id": "0f3c5c1be3f04a4c9a52b8a3f7e9d6c1",
        "model_uri": "runs:/0f3c5c1be3f04a4c9a52b8a3f7e9d6c1/model",
        "validation": {},
        "training_rows": training_rows,
        "prior": {"mean": mean},
        "prediction_digest": document_digest(training_rows),
    }


def evidence(measured: Measured) -> dict[str, Any]:
    """Return a promotion's evidence: every part of it is there."""
    moved = measured.challenge["improvement"]["estimate"]
    return {
        "challenge": measured.challenge,
        "material": _material(moved),
        "approval_reasons": ["data sources: new weather", "features: new visibility, wind_speed"],
        "serving": {
            "problems": [],
            "n_rows": 1000,
            "load_seconds": 0.84,
            "latency_ms": 21.4,
            "n_bytes": 412_633,
            "model_digest": document_digest("model"),
            "largest_difference": 0.0,
            "example_scores": [0.1834, 0.2209, 0.0951, 0.3127, 0.2616],
        },
        "fingerprint": FINGERPRINT,
        "waivers": {},
        "approval": {"needed": 2.0, "roles": ["model_reviewer"], "expires_at": "2026-12-02T14:05:09+00:00"},
    }


def _material(moved: float) -> list[dict[str, Any]]:
    found = {
        "first_model": (False, "there is a champion before it", {}),
        "data_source": (
            True,
            "data sources: new weather",
            {"added": ["weather"], "removed": [], "changed": {}},
        ),
        "columns": (True, "source columns: new weather_wind_speed", {"added": ["weather_wind_speed"], "removed": []}),
        "features": (True, "features: new visibility, wind_speed", {"added": ["visibility", "wind_speed"]}),
        "estimator": (False, "the same estimator", {"was": FINGERPRINT["estimator"], "is": FINGERPRINT["estimator"]}),
        "feature_code": (
            True,
            "another feature code: was 5b0f1e2a9c33, is 91d4c7aa02fe",
            {"was": "5b0f", "is": "91d4"},
        ),
        "classification": (False, "the same data classification", {"was": "public", "is": "public"}),
        "metric": (
            abs(moved) > 0.05,
            f"roc_auc moved by {moved:+.4f}, {'more' if abs(moved) > 0.05 else 'no more'} than 0.05",
            {"moved": moved, "band": 0.05},
        ),
        "protected_slice": (False, "no protected slice moved (origin)", {"protected": ["origin"]}),
    }
    return [
        {"name": name, "changed": changed, "counts": True, "sentence": sentence, "evidence": values}
        for name, (changed, sentence, values) in found.items()
    ]


def setting(name: str, value: Any, kind: Any, reason: str, **changes: Any) -> Setting:
    """Return a setting of the organization's file."""
    parts: dict[str, Any] = {
        "owner": "ml-platform",
        "file": "policies/organization.yaml",
        "line": 4,
        "effective_from": datetime(2013, 1, 1, tzinfo=UTC),
    }
    return Setting(name=name, value=value, kind=kind, reason=reason, **{**parts, **changes})


def policy(**changes: float) -> EffectivePolicy:
    """Return what holds for the pipeline, some of it with another value."""
    built_in = {"level": "built-in", "file": "built-in", "line": 0, "owner": "", "effective_from": None}
    settings = [
        setting("roc_auc.floor", 0.55, "floor", "Better than chance, by the interval's lower end.", locked=True),
        setting("log_loss.beats_baseline", 0.0, "floor", "Probabilities must be worth more than the rate.", line=8),
        setting("roc_auc.margin", 0.02, "ceiling", "Loss that no desk would notice.", line=12),
        setting("roc_auc.slice_margin", 0.05, "ceiling", "Slices are small.", line=15),
        setting("roc_auc.material_band", 0.05, "ceiling", "A jump of this size wants an explanation.", line=18),
        setting("comparison.confidence", 0.95, "floor", "One wrong promotion in forty.", **built_in),
        setting("comparison.replicates", 2000.0, "floor", "Enough for the third digit.", **built_in),
        setting("slices.guarded", ("carrier", "origin"), "required", "No airport pays.", level="team", line=6,
                file="policies/teams/flights.yaml", owner="flights"),
        setting("material.protected_slices", ("origin",), "required", "Slots differ by airport.", level="pipeline",
                file="policies/pipelines/flights/arrival_delay.yaml", line=5, owner="flights"),
        setting("approval.needed", 2.0, "floor", "Four eyes beside the launcher's.", level="domain", line=9,
                file="policies/domains/operations.yaml", owner="operations-risk"),
        setting("approval.roles", ("model_reviewer",), "allowed", "Who is trained for it.", line=24),
        setting("serving.latency_ms", 2000.0, "ceiling", "The desk refreshes every five seconds.", **built_in),
        setting("wape.ceiling", 0.15, "ceiling", "Planning tolerates 15 % of the volume.", line=30),
        setting("rollback.automatic", True, "flag", "A champion that cannot be loaded scores nothing.", **built_in),
    ]  # fmt: skip
    held = {s.name: s for s in settings}
    for name, value in changes.items():
        held[name] = setting(name, value, held[name].kind, held[name].reason)
    lower = setting("approval.needed", 1.0, "floor", "At least one other person.", **built_in)
    chains: dict[str, tuple[Setting, ...]] = {name: (s,) for name, s in held.items()}
    chains["approval.needed"] = (lower, held["approval.needed"])
    digest = document_digest({name: s.value for name, s in held.items()})
    return EffectivePolicy(pipeline=PIPELINE, settings=held, chains=chains, digest=digest)


def decision(found: Mapping[str, Any], **changes: Any) -> Decision:
    """Return a promotion with some evidence, and with other changes."""
    parts: dict[str, Any] = {
        "pipeline": PIPELINE,
        "partition": "2013-04",
        "outcome": "promoted",
        "reason": "Not worse than the champion by the margin of roc_auc, and on no guarded slice; materially different "
        "in its data and features, and approved by olga and ravi.",
        "model_name": "flights.arrival_delay",
        "model_version": "2",
        "champion_version": "1",
        "data_version": document_digest("evaluation"),
        "policy_version": document_digest("thresholds"),
        "run_id": "5d8f4f5e-0d6a-4f0e-9d5e-2a8f5b7c1e90",
        "evidence": found,
        "model_digest": document_digest("model"),
        "evaluation_digest": document_digest("evaluation document"),
        "policy_digest": policy().digest,
        "decided_by": "promotion sensor",
        "launched_by": ("tomas",),
        "recorded_at": datetime(2026, 11, 25, 14, 5, 9, tzinfo=UTC),
    }
    return Decision(**{**parts, **changes})


def verdicts(report: EvaluationReport) -> tuple[Verdict, ...]:
    """Return the verdicts of a month's raw data, features and evaluation."""
    rows = [
        (stage, f"{group}|2013-04", check, severity, f"all {n} expectations hold", {"n_expectations": n, "failed": []})
        for stage, n in (("raw_data", 14), ("features", 5))
        for group in ("EWR", "JFK", "LGA")
        for check, severity in (("expectations", "error"),)
    ]
    failed = [{"expectation": "expect_column_values_to_not_be_null(temperature)", "n_failing": 31, "n_rows": 9_200}]
    warning = (
        "features",
        "LGA|2013-04",
        "expectation_warnings",
        "warning",
        "1 of 1 expectations failed: temperature",
        {"n_expectations": 1, "failed": failed},
    )
    auc = report.interval("candidate", "roc_auc")
    gate = (
        "evaluation",
        "2013-04",
        "roc_auc.floor",
        "error",
        f"roc_auc is {auc.estimate:.4f} [{auc.lower:.4f}, {auc.upper:.4f}]; its lower end must be at least 0.55",
        {
            "estimate": auc.estimate,
            "lower": auc.lower,
            "upper": auc.upper,
            "threshold": 0.55,
            "policy": "policies/organization.yaml:4",
        },
    )
    return tuple(
        Verdict(
            asset=(*PIPELINE, stage),
            partition=partition,
            data_version=document_digest([stage, partition]),
            policy_version=document_digest(check),
            check=check,
            outcome="failed" if severity == "warning" else "passed",
            severity=severity,  # pyright: ignore[reportArgumentType]
            reason=reason,
            run_id="5d8f4f5e-0d6a-4f0e-9d5e-2a8f5b7c1e90",
            evidence=numbers,
            recorded_at=datetime(2026, 11, 25, 13, 58, 40, tzinfo=UTC),
        )
        for stage, partition, check, severity, reason, numbers in (*rows, warning, gate)
    )


def upstream(months: tuple[str, ...]) -> dict[str, str]:
    """Return the data versions that a model of these months is made from."""
    return {
        f"flights/arrival_delay/{stage} [{group}|{month}]": document_digest([stage, group, month])
        for month in months
        for group in ("EWR", "JFK", "LGA")
        for stage in ("raw_data", "features")
    }


def approvals() -> tuple[dict[str, Any], ...]:
    """Return two approvals that count, and one that does not."""
    said = [
        ("olga", "2026-11-25T14:01:12+00:00", "Weather was asked for by the desk; slices hold at all airports.", ""),
        ("tomas", "2026-11-25T14:02:40+00:00", "Looks right to me.", "self_approval: tomas launched the training"),
        ("ravi", "2026-11-25T14:05:03+00:00", "Checked the calibration table and the new source's licence.", ""),
    ]
    return tuple(
        {"person": person, "action": "approve", "at": at, "reason": reason, "counts": not why, "why": why}
        for person, at, reason, why in said
    )


def champion_facts(report: EvaluationReport) -> ChampionFacts:
    """Return a champion without the weather, of a policy with a smaller margin."""
    older = {**FINGERPRINT, "features": FEATURES[:-2], "sources": {"partitions": FINGERPRINT["sources"]["partitions"]}}
    older |= {"feature_code": document_digest("older features"), "params": {**FINGERPRINT["params"], "max_iter": "100"}}
    older |= {"columns": {k: v for k, v in FINGERPRINT["columns"].items() if not k.startswith("weather")}}
    return ChampionFacts(
        decision=decision({"fingerprint": older}, partition="2013-03", model_version="1", champion_version=None),
        candidate=candidate(training_rows=51_955, mean=0.2276),
        evaluation=evaluation(report),
        upstream=upstream(("2013-01", "2013-02")),
        policy=policy(**{"roc_auc.margin": 0.01}),
    )


def example(measured: Measured | None = None, *, earlier: Measured | None = None, **changes: Any) -> DossierFacts:
    """Return a promotion that people approved, with everything recorded, and with some parts replaced."""
    now, before = measured or made_up(), earlier or made_up(champion=False, seed=2)
    parts: dict[str, Any] = {
        "decision": decision(evidence(now)),
        "spec": SPEC,
        "candidate": candidate(),
        "evaluation": evaluation(now.report),
        "verdicts": verdicts(now.report),
        "policy": policy(),
        "approvals": approvals(),
        "upstream": upstream(("2013-01", "2013-02", "2013-03")),
        "champion": champion_facts(before.report),
    }
    return DossierFacts(**{**parts, **changes})
