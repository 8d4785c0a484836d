"""Metrics, slices and calibration as the page shows them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_assets.calibration import CalibrationBin
from ml_assets.dossier.bars import Bar, Scale, common_scale, symmetric_scale
from ml_assets.dossier.facts import DossierFacts, evidence_of, report_of
from ml_assets.dossier.headline import CHALLENGES, Badge, badge
from ml_assets.dossier.words import NOTHING, count, estimate_and_ends, percent, plain, signed
from ml_assets.evaluation_report import EvaluationReport
from ml_assets.metrics import METRICS

GUARDS: Mapping[str, Badge] = {
    "held": Badge(word="held", kind="good", sign="✓"),
    "worse": Badge(word="worse", kind="bad", sign="✕"),
    "not_measured": Badge(word="not measured", kind="calm", sign="–"),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """An interval in words, and where it is drawn; `zero` is where the drawing's reference line stands."""

    estimate: str
    ends: str
    bar: Bar | None = None
    zero: float | None = None


def metrics(facts: DossierFacts) -> dict[str, Any]:
    """Return the models' metrics, the candidate's improvements, and the challenge's rules and reason."""
    report, challenge = report_of(facts.evaluation), evidence_of(facts.decision, "challenge")
    problem = (facts.evaluation.get("champion") or {}).get("problem", "")
    return {
        "models": () if report is None else report.models,
        "rows": [] if report is None else [_metric_row(report, metric) for metric in report.metrics],
        "improvements": [] if report is None else list(_improvements(report)),
        "confidence": None if report is None else percent(report.confidence),
        "champion_problem": problem or "",
        "challenge": _challenge(challenge) if challenge else None,
    }


def _metric_row(report: EvaluationReport, metric: str) -> dict[str, Any]:
    known = METRICS.get(metric)
    better = "" if known is None else "higher is better" if known.greater_is_better else "lower is better"
    if known is not None and known.zero_is_best:
        better = "zero is best"
    cells = [_cell(report.interval(model, metric)) for model in report.models]
    return {"metric": metric, "better": better, "cells": cells}


def _cell(measured: Any, *, sign: str = "", bar: Bar | None = None, zero: float | None = None) -> Cell:
    estimate, ends = estimate_and_ends(measured, sign=sign)
    return Cell(estimate=estimate, ends=ends, bar=bar, zero=zero)


def _improvements(report: EvaluationReport) -> Iterable[dict[str, Any]]:
    """Yield each metric over each reference; the references of one metric share a scale."""
    references = [model for model in report.models if model != "candidate"]
    for metric in report.metrics:
        found = {name: report.difference(metric, name).improvement for name in references}
        scale = symmetric_scale(found.values())
        for name, interval in found.items():
            cell = _cell(interval, sign="+", bar=scale.bar(interval), zero=scale.at(0.0))
            yield {"metric": metric, "reference": name, "cell": cell}


def _challenge(challenge: Mapping[str, Any]) -> dict[str, Any]:
    rules = [
        ("Metric", plain(challenge.get("metric"))),
        ("Against", plain(challenge.get("reference"))),
        ("Loss that does not matter", plain(challenge.get("margin"))),
        ("Confidence", percent(challenge.get("confidence"))),
        ("Resampled in blocks of", count(challenge.get("block_days"), "day")),
        ("Resamplings", f"{count(challenge.get('replicates'))}, seed {plain(challenge.get('seed'))}"),
    ]
    more = [count(challenge.get(name), thing) for name, thing in (("more_days", "day"), ("more_rows", "row"))]
    if more != [NOTHING, NOTHING]:
        rules.append(("Would be decided by about", f"{more[0]} or {more[1]} more"))
    return {
        "badge": badge(CHALLENGES, challenge.get("outcome")),
        "reason": plain(challenge.get("reason")),
        "rules": rules,
    }


def slices(facts: DossierFacts) -> dict[str, Any]:
    """Return the guarded slices of the challenge, and the candidate's metric on every slice."""
    report, challenge = report_of(facts.evaluation), evidence_of(facts.decision, "challenge")
    guards = list(challenge.get("slices") or ())
    scale = common_scale([guard.get("improvement") for guard in guards], 0.0)
    table = None if report is None else report.slices
    return {
        "metric": plain(challenge.get("metric")),
        "level": _level(guards),
        "guards": [_guard(guard, scale) for guard in guards],
        "notes": [_sentence(guard) for guard in guards if guard.get("outcome") != "held"],
        "held": [_sentence(guard) for guard in guards if guard.get("outcome") == "held"],
        "table": None if report is None or table is None else _slice_table(report),
    }


def _guard(guard: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    improvement = guard.get("improvement")
    return {
        "column": plain(guard.get("column")),
        "value": plain(guard.get("value")),
        "rows": count(guard.get("n_rows")),
        "badge": badge(GUARDS, guard.get("outcome")),
        "cell": _cell(improvement, sign="+", bar=scale.bar(improvement), zero=scale.at(0.0)),
    }


def _sentence(guard: Mapping[str, Any]) -> tuple[str, str]:
    return f"{plain(guard.get('column'))} = {plain(guard.get('value'))}", plain(guard.get("reason"))


def _level(guards: Sequence[Mapping[str, Any]]) -> str:
    """Return the level of the guards' intervals where they have one in common; empty otherwise."""
    levels = {percent((guard.get("improvement") or {}).get("confidence")) for guard in guards} - {NOTHING}
    return levels.pop() if len(levels) == 1 else ""


def _slice_table(report: EvaluationReport) -> dict[str, Any]:
    assert report.slices is not None  # noqa: S101 - the caller asked
    table = report.slices
    overall = report.interval("candidate", table.metric).estimate
    scale = common_scale([s.interval for s in table.slices], overall)
    return {
        "metric": table.metric,
        "overall": signed(overall, 4),
        "family": percent(table.family_confidence),
        "rows": [
            {
                "column": s.column,
                "value": s.value,
                "rows": count(s.n_rows),
                "mean_true": signed(s.mean_true, 3),
                "mean_predicted": signed(s.mean_predicted, 3),
                "cell": _cell(s.interval, bar=scale.bar(s.interval), zero=scale.at(overall)),
                "reason": s.reason,
            }
            for s in table.slices
        ],
    }


def calibration(facts: DossierFacts) -> dict[str, Any]:
    """Return the guard of the challenge, and a table for each model that has one."""
    report, challenge = report_of(facts.evaluation), evidence_of(facts.decision, "challenge")
    guard = challenge.get("calibration")
    return {
        "task": None if report is None else report.task,
        "guard": None if not guard else _calibration_guard(guard),
        "tables": []
        if report is None
        else [{"model": c.model, "bins": [_bin(b) for b in c.bins]} for c in report.calibration],
    }


def _calibration_guard(guard: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "badge": badge(GUARDS, guard.get("outcome")),
        "metric": plain(guard.get("metric")),
        "cell": _cell(guard.get("improvement"), sign="+"),
        "reason": guard.get("reason") or "",
    }


def _bin(row: CalibrationBin) -> dict[str, str]:
    error = NOTHING if row.standard_error is None else f"± {1.96 * row.standard_error:.3f}"
    return {
        "range": f"{row.lower:.3f} – {row.upper:.3f}",
        "rows": count(row.n_rows),
        "predicted": f"{row.mean_predicted:.3f}",
        "observed": f"{row.observed_rate:.3f}",
        "error": error,
        "gap": signed(row.observed_rate - row.mean_predicted, 3, sign="+"),
    }
