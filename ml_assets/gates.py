"""Gates: judge a data version, and refuse to read one that has no passing verdict."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from ml_assets.digest import document_digest
from ml_assets.errors import GateClosedError, PolicyError
from ml_assets.evaluation_report import EvaluationReport
from ml_assets.interfaces import (
    AssetPath,
    EffectivePolicy,
    Expectation,
    ExpectationResult,
    Ledger,
    Setting,
    Severity,
    Verdict,
)
from ml_assets.metrics import METRICS

if TYPE_CHECKING:
    import pandas as pd

SHOWN_FAILURES, SHOWN_ROWS = 5, 10
Rule = Literal["floor", "ceiling", "beats_baseline"]
EXPECTATIONS, EXPECTATION_WARNINGS = "expectations", "expectation_warnings"
APPROVAL = "approval"
"""Check of a promotion: fails, as a warning, while its candidate waits for people."""
DRIFT, PERFORMANCE, CALIBRATION = "drift", "performance", "calibration"
"""Checks of new partitions: they fail as warnings, since what to do about it is the retraining's decision."""
_GATE = re.compile(rf"^(?P<metric>[a-z0-9_]+)\.(?P<rule>{'|'.join(get_args(Rule))})$")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one gate says of one data version, before it is bound to it as a verdict.

    Attributes:
        check: Name of the gate.
        passed: Whether it holds.
        severity: Only a failed "error" closes the gate.
        reason: One sentence with the measured value and what was asked.
        evidence: JSON-ready numbers, for the ledger.
        tables: What failed and sample rows, to show; never recorded, since rows may be confidential.
    """

    check: str
    passed: bool
    severity: Severity
    reason: str
    evidence: Mapping[str, Any]
    tables: "Mapping[str, pd.DataFrame]" = field(default_factory=dict, compare=False)


def parse_gate(name: str) -> tuple[str, Rule]:
    """Return (metric, rule) of a gate's name.

    >>> parse_gate("roc_auc.floor")
    ('roc_auc', 'floor')

    Raises:
        PolicyError: If the name has another form or an unknown metric.
    """
    match = _GATE.match(name)
    if match is None or match["metric"] not in METRICS:
        raise PolicyError(
            f"Gate {name!r} is not <metric>.<rule> with a known metric and a rule of {', '.join(get_args(Rule))}."
        )
    return match["metric"], match["rule"]  # pyright: ignore[reportReturnType]


def expectations_version(expectations: Sequence[Expectation]) -> str:
    """Return the policy version of data gates: a digest of everything that is expected."""
    return document_digest([{"type": e.type, "kwargs": dict(e.kwargs), "severity": e.severity} for e in expectations])


def thresholds_version(thresholds: Sequence[Setting]) -> str:
    """Return the policy version of metric gates: a digest of names, values and severities."""
    return document_digest(sorted([t.name, t.value, t.severity] for t in thresholds))


def select_thresholds(names: Sequence[str], policy: EffectivePolicy) -> list[Setting]:
    """Return the settings that a pipeline names, such as its gates.

    Raises:
        PolicyError: If the policy sets one for the pipeline on no level.
    """
    missing = [name for name in names if name not in policy.settings]
    if missing:
        pipeline = "/".join(policy.pipeline)
        rules = {name.rpartition(".")[2] for name in missing}
        alike = sorted(name for name in policy.settings if name.rpartition(".")[2] in rules)
        raise PolicyError(
            f"The policy of {pipeline} sets no {', '.join(missing)}; it sets {', '.join(alike) or 'none alike'}. "
            f"Add it to a policy file (`ml-assets policy explain {pipeline}` lists what holds), or correct `gates` "
            "(for a margin: `selection.metric`) in the pipeline's YAML."
        )
    return [policy.settings[name] for name in names]


def judge_expectations(results: Sequence[ExpectationResult]) -> list[Judgement]:
    """Return two judgements: one of the error-level expectations, one of the warnings."""
    return [
        _judge_suite(EXPECTATIONS, "error", [r for r in results if r.expectation.severity == "error"]),
        _judge_suite(EXPECTATION_WARNINGS, "warning", [r for r in results if r.expectation.severity == "warning"]),
    ]


def _judge_suite(check: str, severity: Severity, results: Sequence[ExpectationResult]) -> Judgement:
    failed = [r for r in results if not r.success]
    names = ", ".join(r.expectation.label for r in failed[:5]) + (f" and {len(failed) - 5} more" if failed[5:] else "")
    reason = (
        f"{len(failed)} of {len(results)} expectations failed: {names}"
        if failed
        else f"all {len(results)} expectations hold"
    )
    evidence = {
        "n_expectations": len(results),
        "failed": [
            {
                "expectation": r.expectation.label,
                "kwargs": dict(r.expectation.kwargs),
                "n_failing": r.n_failing,
                "n_rows": r.n_rows,
                "observed": r.observed,
            }
            for r in failed
        ],
    }
    tables = failure_tables(failed)
    return Judgement(check=check, passed=not failed, severity=severity, reason=reason, evidence=evidence, tables=tables)


def failure_tables(failed: Sequence[ExpectationResult]) -> "dict[str, pd.DataFrame]":
    """Return what failed as a table, and sample rows of the first failed expectations."""
    import pandas as pd

    if not failed:
        return {}
    summary = pd.DataFrame(
        {
            "expectation": [r.expectation.label for r in failed],
            "failing rows": ["" if r.n_failing is None else str(r.n_failing) for r in failed],
            "rows": [r.n_rows for r in failed],
            "observed": ["" if r.observed is None else str(r.observed) for r in failed],
            "expected": [_arguments(r.expectation) for r in failed],
        }
    )
    samples = {
        f"failing rows of {r.expectation.label}": pd.DataFrame(list(r.sample)).head(SHOWN_ROWS)
        for r in failed[:SHOWN_FAILURES]
        if r.sample
    }
    return {"failed expectations": summary, **samples}


def _arguments(expectation: Expectation) -> str:
    return ", ".join(f"{key}={value}" for key, value in expectation.kwargs.items() if key != "column")


def judge_metrics(
    thresholds: Sequence[Setting], intervals: Mapping[str, Any], improvements: Mapping[str, Any]
) -> list[Judgement]:
    """Judge an evaluation by the policy's thresholds, each with the end of the interval that argues against it.

    Args:
        thresholds: The named settings, each a gate.
        intervals: Metric → candidate's interval (with `estimate`, `lower`, `upper`).
        improvements: Metric → interval of the paired improvement over the baseline, positive is better.
    """
    return [_judge_metric(t, intervals, improvements) for t in thresholds]


def judge_report(report: EvaluationReport, gates: Sequence[str], policy: EffectivePolicy) -> list[Judgement]:
    """Judge an evaluation's report by the settings that a pipeline names as its gates."""
    intervals = {m: report.interval("candidate", m) for m in report.metrics}
    improvements = {m: report.difference(m, "baseline").improvement for m in report.metrics}
    return judge_metrics(select_thresholds(gates, policy), intervals, improvements)


def _judge_metric(threshold: Setting, intervals: Mapping[str, Any], improvements: Mapping[str, Any]) -> Judgement:
    metric, rule = parse_gate(threshold.name)
    interval = (improvements if rule == "beats_baseline" else intervals)[metric]
    value = _number(threshold)
    end = interval.upper if rule == "ceiling" else interval.lower
    passed = {"floor": end >= value, "ceiling": end <= value, "beats_baseline": end > value}[rule]
    what = f"improvement of {metric} over the baseline" if rule == "beats_baseline" else metric
    asked = {"floor": "at least", "ceiling": "at most", "beats_baseline": "more than"}[rule]
    reason = (
        f"{what} is {interval.estimate:.4f} [{interval.lower:.4f}, {interval.upper:.4f}]; its "
        f"{'upper' if rule == 'ceiling' else 'lower'} end must be {asked} {value:g}"
    )
    evidence = {
        "estimate": interval.estimate,
        "lower": interval.lower,
        "upper": interval.upper,
        "threshold": value,
        "policy": f"{threshold.file}:{threshold.line}",
    }
    return Judgement(
        check=threshold.name,
        passed=bool(passed),
        severity=threshold.severity,
        reason=reason,
        evidence=evidence,
    )


def _number(threshold: Setting) -> float:
    value = threshold.value
    if isinstance(value, bool | tuple):
        raise PolicyError(f"The gate {threshold.name} ({threshold.file}:{threshold.line}) is {value!r}, not a number.")
    return 0.0 if value is None else value


def to_verdicts(
    judgements: Sequence[Judgement],
    *,
    asset: AssetPath,
    partition: str,
    data_version: str,
    policy_version: str,
    run_id: str,
    policy_digest: str = "",
) -> list[Verdict]:
    """Bind judgements to the data version and policy version that they are about."""
    return [
        Verdict(
            asset=asset,
            partition=partition,
            data_version=data_version,
            policy_version=policy_version,
            check=j.check,
            outcome="passed" if j.passed else "failed",
            severity=j.severity,
            reason=j.reason,
            run_id=run_id,
            evidence=j.evidence,
            policy_digest=policy_digest,
        )
        for j in judgements
    ]


def require_open(
    ledger: Ledger,
    *,
    asset: AssetPath,
    partition: str,
    data_version: str,
    policy_version: str,
    checks: Sequence[str],
    waived: Callable[[Verdict], bool] = lambda _: False,
) -> None:
    """Return when every named gate has a verdict on exactly this data version that does not close it.

    Args:
        ledger: Where the verdicts are.
        asset: The asset's path.
        partition: Dagster's partition key.
        data_version: The version that is to be read.
        policy_version: Digest of what it must have been judged by.
        checks: Names of the gates.
        waived: Whether somebody lets a failed gate pass.

    Raises:
        GateClosedError: If a gate failed at error level, or has no verdict under the current policy version.
    """
    if not checks:
        return
    found = ledger.verdicts(asset, partition, data_version=data_version, policy_version=policy_version)
    latest = {v.check: v for v in found}
    place = f"{'/'.join(asset)} [{partition}] (data version {data_version[:12]}, policy version {policy_version[:12]})"
    for check in checks:
        verdict = latest.get(check)
        if verdict is None:
            raise GateClosedError(
                asset,
                partition,
                data_version,
                f"Gate {check!r} has no verdict on {place}, and no verdict means closed. "
                f"Materialize {'/'.join(asset)} [{partition}] again, with its checks.",
            )
        if verdict.outcome == "failed" and verdict.severity == "error" and not waived(verdict):
            raise GateClosedError(
                asset,
                partition,
                data_version,
                f"Gate {check!r} failed on {place}: {verdict.reason}. "
                "Correct the data (or the model) and materialize it again; nothing downstream may use it.",
            )
