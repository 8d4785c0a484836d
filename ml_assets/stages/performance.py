"""The `performance` stage: how well a partition was scored, estimated at once and measured when labels are known."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.digest import document_digest
from ml_assets.errors import EvaluationError
from ml_assets.gates import CALIBRATION, PERFORMANCE, Judgement, thresholds_version
from ml_assets.interfaces import Decision
from ml_assets.metrics import Floats, validated
from ml_assets.quality.plots import calibration_picture, performance_picture
from ml_assets.quality.settings import settings_of
from ml_assets.quality.verdict import Quality, assess
from ml_assets.stages.columns import EVENT_TIME, LABEL_TIME, ROW_ID, local_days
from ml_assets.stages.predictions import NoChampionYet
from ml_assets.stages.reference import Reference, reference_of
from ml_assets.stages.step import StageResult, Step
from ml_assets.stages.trust import trusted_champion

if TYPE_CHECKING:
    import pandas as pd


def run(step: Step) -> StageResult:
    """Judge the champion by one partition that it scored, with the labels that are known now.

    Raises:
        NoChampionYet: If no version was promoted before this period, or the partition has no predictions.
        EvaluationError: If another version scored the partition, or the champion's evaluation is gone.
        UnservableError: If the reference is built and the champion does not serve as when it was promoted.
    """
    champion = _champion(step)
    reference = reference_of(step, champion)
    rows = scored_rows(step, reference, now=datetime.now(UTC))
    spec = step.spec
    quality = assess(
        task=spec.label.task,
        score=rows.score,
        days=rows.days,
        y=rows.y,
        known=rows.known,
        reference=reference.part(step.group),
        metrics=list(dict.fromkeys([spec.selection.metric, *spec.evaluation.metrics])),
        settings=settings_of(step.policy, groups=len(step.group_partitions(step.time))),
        classes=reference.classes,
    )
    document = quality.to_document()
    document["champion"] = reference.version
    document["reference"] |= {
        "version": reference.version,
        "partition": reference.partition,
        "group": step.group if step.group in reference.parts else None,
    }
    document["inputs"] = dict(step.upstream)
    stored = step.services.data_store.write_document(
        step.asset("performance"), step.partition, document, data_version=document_digest(document)
    )
    settings = [
        s for name, s in step.policy.settings.items() if name.startswith("performance.") or name in _margins(step)
    ]
    pictures = {"performance": performance_picture(quality, partition=step.partition)}
    if quality.calibration is not None:
        pictures["calibration"] = calibration_picture(quality, task=spec.label.task, partition=step.partition)
    return StageResult(
        stored=stored,
        judgements=(_performance(quality), _calibration(quality)),
        policy_version=thresholds_version(settings),
        facts=_facts(quality, reference) | ({"notes": list(step.notes)} if step.notes else {}),
        pictures=pictures,
        tables=_tables(document),
    )


@dataclass(frozen=True, kw_only=True)
class PartitionRows:
    """Rows of a partition that the champion scored, and the labels that are known.

    Attributes:
        score: Shape (n,), or (n, n_classes).
        days: Local day of each row, datetime64[D], shape (n,).
        known: Whether a row's label is known, shape (n,).
        y: Labels of the known rows, shape (n_known,); see `metrics.validated`.
    """

    score: Floats
    days: NDArray[np.datetime64]
    known: NDArray[np.bool_]
    y: NDArray[Any]


def scored_rows(step: Step, reference: Reference, *, now: datetime) -> PartitionRows:
    """Return the rows that the champion scored; where another model had an arm, its rows are left out.

    A label counts when it is there and its time has come. Labels of a day count only when all that are still to come
    lie in later days: of a day that is known in part, rows that were settled early are not like the others.
    """
    task = step.spec.label.task
    columns = [f"score_{name}" for name in reference.classes] or ["score"]
    scored = step.read(("predictions",), step.partition, columns=[ROW_ID, EVENT_TIME, *columns, "model_version"])
    local = local_days(scored, step.periods.timezone)
    frame = scored.to_pandas()
    versions = sorted(set(frame["model_version"]))
    own = (frame["model_version"] == reference.version).to_numpy()
    if not own.any():
        raise EvaluationError(
            f"{'/'.join(step.asset('predictions'))} [{step.partition}] was scored by version "
            f"{', '.join(versions) or 'none'}, and version {reference.version} is champion of its time now. "
            "Materialize `predictions` of the partition again."
        )
    label = step.spec.label.column
    truth = step.read(("features",), step.partition, columns=[ROW_ID, LABEL_TIME, label]).to_pandas()
    frame, days = frame[own], local[own]
    joined = frame[[ROW_ID]].merge(truth, on=ROW_ID, how="left", validate="one_to_one")
    known = known_labels(joined, label, days, now)
    score = frame[columns].to_numpy(dtype=np.float64)
    score = score if task == "multiclass" else np.ascontiguousarray(score[:, 0])
    y = _labels(joined[label][known], task)
    if y.size:
        y, _ = validated(task, y, score[known], reference.classes or None)
    return PartitionRows(score=score, days=days, known=known, y=y)


def known_labels(rows: "pd.DataFrame", label: str, days: NDArray[np.datetime64], now: datetime) -> NDArray[np.bool_]:
    """Return which rows' labels count now, shape (n,); see `scored_rows`."""
    import pandas as pd

    due = pd.to_datetime(rows[LABEL_TIME], utc=True)
    pending = (due > pd.Timestamp(now)).to_numpy()
    complete = days < days[pending].min() if pending.any() else np.ones(len(rows), dtype=np.bool_)
    return rows[label].notna().to_numpy() & ~pending & complete


def _labels(values: "pd.Series", task: str) -> NDArray[Any]:
    if task != "multiclass":
        return values.to_numpy(dtype=np.float64)
    # Classes as whole numbers became fractions where labels are missing beside them.
    whole = values.astype("Int64") if values.dtype.kind == "f" else values
    return whole.astype(str).to_numpy(dtype=object)


def _champion(step: Step) -> Decision:
    trusted = trusted_champion(step.services, step.path, step.time)
    step.notes.extend(trusted.refused)
    if trusted.champion is None:
        raise NoChampionYet(
            f"No version of {'/'.join(step.path)} was promoted before {step.time}, so [{step.partition}] has no "
            "performance. Materialize `promotion` of an earlier period, and then `predictions`."
        )
    if step.services.data_store.describe(step.asset("predictions"), step.partition) is None:
        raise NoChampionYet(
            f"{'/'.join(step.path)} [{step.partition}] was not scored, so it has no performance. Materialize "
            "`predictions` of the partition first."
        )
    return trusted.champion


def _margins(step: Step) -> set[str]:
    spec = step.spec
    return {f"{metric}.margin" for metric in (spec.selection.metric, *spec.evaluation.metrics)}


def _performance(quality: Quality) -> Judgement:
    """Return the check of the metrics: realised where labels decided, else estimated."""
    lost = quality.lost
    by_basis = quality.realised if quality.basis == "realised" else quality.estimated
    tested = () if by_basis is None else by_basis.losses
    names = ", ".join(loss.metric for loss in lost)
    if lost:
        reason = f"{quality.basis} {names} lost more than the margin. {quality.reasons[0]}"
    elif tested:
        reason = f"no sure loss of {', '.join(loss.metric for loss in tested)} ({quality.basis})"
    else:
        reason = f"no metric could be compared. {quality.reasons[-1] if quality.reasons else ''}".rstrip()
    evidence: dict[str, Any] = {"verdict": quality.verdict, "basis": quality.basis, "n_labelled": quality.n_labelled}
    found = {"reference": quality.reference.gains, "estimated": quality.estimated.gains}
    found |= {} if quality.realised is None else {"realised": quality.realised.gains}
    for kind, gains in found.items():
        evidence |= {f"{metric}_{kind}": gain.value.estimate for metric, gain in gains.items()}
    evidence |= {f"{loss.metric}_p_value": loss.adjusted for loss in tested}
    return Judgement(check=PERFORMANCE, passed=not lost, severity="warning", reason=reason, evidence=evidence)


def _calibration(quality: Quality) -> Judgement:
    """Return the check of the calibration; it holds while too few labels are known, and says so."""
    calibration, allowed = quality.calibration, quality.settings.calibration_gap
    if calibration is None:
        reason = f"not judged: labels of {quality.n_labelled} of {quality.estimated.n_rows} rows are known"
        evidence: dict[str, Any] = {"n_labelled": quality.n_labelled, "calibration_gap": allowed}
        return Judgement(check=CALIBRATION, passed=True, severity="warning", reason=reason, evidence=evidence)
    worst = calibration.worst
    lower, upper = worst.gap.interval(quality.settings.confidence)
    whose = f" of class {worst.label}" if worst.label else ""
    reason = (
        f"labels{whose} lie {worst.gap.estimate:+.4f} [{lower:+.4f}, {upper:+.4f}] from the predictions on average "
        f"(p = {worst.adjusted:.2g}); the policy allows {allowed:g}"
    )
    evidence = {
        "gap": worst.gap.estimate,
        "lower": lower,
        "upper": upper,
        "p_value": worst.adjusted,
        "calibration_gap": allowed,
        "n_labelled": quality.n_labelled,
    }
    passed = not quality.miscalibrated
    return Judgement(check=CALIBRATION, passed=passed, severity="warning", reason=reason, evidence=evidence)


def _facts(quality: Quality, reference: Reference) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "verdict": quality.verdict,
        "basis": quality.basis,
        "reasons": list(quality.reasons),
        "champion_version": reference.version,
        "scored_rows": quality.estimated.n_rows,
        "labelled_rows": quality.n_labelled,
    }
    if quality.calibration is not None:
        facts["calibration_gap"] = quality.calibration.worst.gap.estimate
    for kind, found in (("estimated", quality.estimated), ("realised", quality.realised)):
        if found is not None:
            facts |= {f"{metric}_{kind}": gain.value.estimate for metric, gain in found.gains.items()}
    return facts


def _tables(document: dict[str, Any]) -> "dict[str, pd.DataFrame]":
    import pandas as pd

    lines = []
    for kind in ("reference", "estimated", "realised"):
        found = document[kind] or {"metrics": {}}
        tested = {loss["metric"]: loss for loss in found.get("losses", [])}
        for metric, value in found["metrics"].items():
            loss = tested.get(metric, {})
            lines.append(
                {"metric": metric, "rows": kind}
                | {key: value[key] for key in ("value", "lower", "upper", "gain")}
                | {key: loss.get(key) for key in ("loss", "margin", "adjusted")}
            )
    frame = pd.DataFrame(lines).sort_values("metric", kind="stable", ignore_index=True)
    tables = {"performance": frame.rename(columns={"adjusted": "p-value"})}
    if document["calibration"] is not None:
        tables["calibration"] = pd.DataFrame(document["calibration"]["bins"])
    return tables
