"""The `drift` stage: a partition against what the champion of its time learned from, by profiles alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ml_assets.digest import document_digest
from ml_assets.drift.compare import compare
from ml_assets.drift.pictures import distributions, effects, shown_columns
from ml_assets.drift.report import ColumnDrift, DriftReport
from ml_assets.drift.settings import DriftSettings, settings_of
from ml_assets.drift.verdicts import DriftVerdict, final_verdict
from ml_assets.errors import StoreError
from ml_assets.gates import DRIFT, Judgement
from ml_assets.interfaces import Decision
from ml_assets.periods import join_partition
from ml_assets.profiles.profile import Profile
from ml_assets.stages.drift_sides import (
    ReferenceSide,
    current_profiles,
    reference_side,
    scores_of_reference,
    stride,
)
from ml_assets.stages.predictions import NoChampionYet
from ml_assets.stages.reference import Reference, reference_of
from ml_assets.stages.step import StageResult, Step
from ml_assets.stages.trust import trusted_champion

if TYPE_CHECKING:
    import pandas as pd

STAGE = "drift"
NAMED = 5
"""Columns that a sentence names."""


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """What was compared.

    Attributes:
        features: The champion's features; they alone make the verdict.
        label: The label, of the rows that have one; None when none has.
        predictions: The champion's scores against those on its evaluation; None without either.
    """

    features: DriftReport
    label: DriftReport | None
    predictions: DriftReport | None


def run(step: Step) -> StageResult:
    """Compare one partition with its reference.

    Raises:
        NoChampionYet: If no version was promoted before this period.
        StoreError: If the partition was not materialized, or what the champion was trained on is gone.
    """
    champion = _champion(step)
    reference = reference_of(step, champion)
    group = step.spec.partitions.group
    settings = settings_of(step.policy, 1 if group is None else len(group.values))
    current, partitions = current_profiles(step, settings, "features")
    against = reference_side(step, reference, partitions)
    found = _compared(step, reference, against.profile, current, settings)
    history = _history(step, settings, reference, against)
    verdict = final_verdict(found.features.verdict, [moved for _, moved in history], k=settings.k, n=settings.n)
    document = _document(found, verdict, reference, against, settings, history)
    stored = step.services.data_store.write_document(
        step.asset(STAGE), step.partition, document, data_version=document_digest(document)
    )
    return StageResult(
        stored=stored,
        judgements=(_judgement(found, verdict, reference, against),),
        policy_version=document_digest(asdict(settings)),
        facts=_facts(found, verdict, reference, against, partitions, step.notes),
        pictures=_pictures(found, f"{step.partition} against {_span(against)}"),
        tables={"columns": column_table(found.features)},
    )


def _champion(step: Step) -> Decision:
    trusted = trusted_champion(step.services, step.path, step.time)
    if trusted.champion is None:
        refused = f" ({'; '.join(trusted.refused)})" if trusted.refused else ""
        raise NoChampionYet(
            f"No version of {'/'.join(step.path)} was promoted before {step.time}{refused}, so there is nothing to "
            f"compare [{step.partition}] with. Materialize `promotion` of an earlier period first."
        )
    return trusted.champion


def _compared(step: Step, reference: Reference, then: Profile, now: Profile, settings: DriftSettings) -> Comparisons:
    columns, label = sorted(reference.importance), step.spec.label.column
    features = compare(then, now, importance=reference.importance, settings=settings, columns=columns)
    # A label that is not known yet is no drift.
    patient = replace(settings, null_rate_change=2.0)
    known = all(label in p.columns and _has_values(p, label) for p in (then, now))
    return Comparisons(
        features=features,
        label=compare(then, now, importance={}, settings=patient, columns=[label]) if known else None,
        predictions=_predictions(step, reference, settings),
    )


def _has_values(profile: Profile, column: str) -> bool:
    return profile.columns[column].n_values > 0


def _predictions(step: Step, reference: Reference, settings: DriftSettings) -> DriftReport | None:
    if step.services.data_store.describe(step.asset("predictions"), step.partition) is None:
        step.notes.append(f"prediction drift is not known: [{step.partition}] has no predictions")
        return None
    then = scores_of_reference(step, reference)
    if then is None:
        return None
    now = current_profiles(step, settings, "predictions")[0]
    return compare(then, now, importance={}, settings=settings, columns=sorted(then.columns))


def _history(
    step: Step, settings: DriftSettings, reference: Reference, against: ReferenceSide
) -> list[tuple[str, bool]]:
    """Return the comparisons that persistence counts, oldest first: those before this one, against the same reference.

    A promotion moves the reference, and so begins a new count: what had moved against an older champion's rows may be
    what the new one learned. Comparisons with last year's season do not depend on the champion. Short periods that
    are compared several at a time count once for their days.
    """
    found: list[tuple[str, bool]] = []
    for back in range(settings.n - 1, 0, -1):
        partition = join_partition(step.group, step.periods.shift(step.time, -back * stride(step, settings)))
        try:
            document = step.services.data_store.read_document(step.asset(STAGE), partition)
        except StoreError:
            continue  # not compared: no evidence for either side
        then = document["reference"]
        same = then["kind"] == against.kind and (against.kind == "season" or then["version"] == reference.version)
        if same and document["verdict"] != "unknown":
            found.append((partition, document["verdict"] in ("suspected", "drift")))
    return found


def _document(
    found: Comparisons,
    verdict: DriftVerdict,
    reference: Reference,
    against: ReferenceSide,
    settings: DriftSettings,
    history: Sequence[tuple[str, bool]],
) -> dict[str, Any]:
    features = found.features
    return {
        "verdict": verdict,
        "moved": list(features.moved),
        "importance_moved": features.importance_moved,
        "reference": {
            "version": reference.version,
            "partition": reference.partition,
            "kind": against.kind,
            "partitions": [list(pair) for pair in against.partitions],
        },
        **features.to_document(),
        "label": None if found.label is None else found.label.to_document(),
        "prediction": None if found.predictions is None else found.predictions.to_document(),
        "persistence": {"k": settings.k, "n": settings.n, "history": [list(entry) for entry in history]},
        "settings": asdict(settings),
    }


def _judgement(found: Comparisons, verdict: DriftVerdict, reference: Reference, against: ReferenceSide) -> Judgement:
    features = found.features
    return Judgement(
        check=DRIFT,
        passed=verdict != "drift",
        severity="warning",
        reason=_sentence(found, verdict, reference, against),
        evidence={
            "verdict": verdict,
            "moved": list(features.moved),
            "n_moved": len(features.moved),
            "importance_moved": features.importance_moved,
            "reference": f"{against.kind} {reference.version}",
        }
        | _numbers(features),
        tables={"columns": column_table(features)},
    )


def _numbers(report: DriftReport) -> dict[str, Any]:
    """Return what the UI plots over partitions: the column that moved most."""
    worst = report.worst
    if worst is None:
        return {}
    p = {} if worst.p_adjusted is None else {"worst_p_adjusted": worst.p_adjusted}
    return {"worst_column": worst.name, "worst_psi": worst.psi, "worst_distance": worst.distance} | p


def _sentence(found: Comparisons, verdict: DriftVerdict, reference: Reference, against: ReferenceSide) -> str:
    report = found.features
    if verdict == "unknown":
        return report.problem
    whom = f"champion {reference.version}" if against.kind == "champion" else "a year earlier"
    shown = ", ".join(report.moved[:NAMED]) + (f" and {len(report.moved) - NAMED} more" if report.moved[NAMED:] else "")
    share = f"{100 * report.importance_moved:.3g} % of the model's importance"
    if not report.moved:
        return f"none of {len(report.columns)} columns moved against {whom}."
    if verdict == "stable":
        limit = f"{100 * report.importance_limit:.3g} %"
        return f"{shown} moved against {whom}, but that is {share}, below the policy's {limit}."
    if verdict == "suspected":
        return f"{shown} moved against {whom}: {share}; not yet in enough partitions to be called drift."
    return f"{shown} moved against {whom} and stay so: {share}."


def _facts(
    found: Comparisons,
    verdict: DriftVerdict,
    reference: Reference,
    against: ReferenceSide,
    partitions: Sequence[str],
    notes: Sequence[str],
) -> dict[str, Any]:
    features = found.features
    facts: dict[str, Any] = {
        "verdict": verdict,
        "moved_columns": list(features.moved),
        "importance_moved": features.importance_moved,
        "model_version": reference.version,
        "reference": _span(against),
        "reference_days": features.days[0],
        "days": features.days[1],
    } | _numbers(features)
    if len(partitions) > 1:
        facts["compared_together"] = list(partitions)
    for name, report in (("label", found.label), ("prediction", found.predictions)):
        if report is not None and report.worst is not None:
            facts |= {f"{name}_psi": report.worst.psi, f"{name}_moved": bool(report.moved)}
    if features.not_compared:
        facts["not_compared"] = dict(features.not_compared)
    return facts | ({"notes": list(notes)} if notes else {})


def _span(against: ReferenceSide) -> str:
    keys = [key for key, _ in against.partitions]
    return keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}"


def _pictures(found: Comparisons, title: str) -> dict[str, bytes]:
    features, pictures = found.features, {}
    if features.columns:
        pictures["distributions"] = distributions(shown_columns(features), title=title)
        pictures["effects"] = effects(features, title=title)
    others = [r.columns for r in (found.predictions, found.label) if r is not None]
    shown = [column for columns in others for column in columns]
    if shown:
        pictures["prediction_and_label"] = distributions(shown[:6], title=title)
    return pictures


def column_table(report: DriftReport) -> "pd.DataFrame":
    """Return a report as a frame, columns that moved first and then those with the largest effects."""
    import pandas as pd

    columns = sorted(report.columns, key=lambda c: (not c.moved, -c.strength, c.name))
    return pd.DataFrame([_row(column) for column in columns])


def _row(column: ColumnDrift) -> Mapping[str, Any]:
    p = column.p_adjusted
    named = [a.name for a in column.aspects if a.moved]
    values = [f"new: {', '.join(column.unseen)}"] * bool(column.unseen)
    values += [f"vanished: {', '.join(column.vanished)}"] * bool(column.vanished)
    return {
        "column": column.name,
        "moved": ", ".join(named) or "no",
        "importance": column.importance,
        "PSI": column.psi,
        "distance": column.distance,
        "Wasserstein": "" if column.wasserstein is None else column.wasserstein,
        "missing before": column.null_rates[0],
        "missing now": column.null_rates[1],
        "p (corrected)": "not tested" if p is None else p,
        "values": "; ".join(values),
    }
