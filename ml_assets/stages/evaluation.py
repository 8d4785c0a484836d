"""The `evaluation` stage: candidate, champion and baseline on a period's untouched rows."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.arrow import compute_functions
from ml_assets.digest import document_digest
from ml_assets.errors import EvaluationError, RegistryError, RegistryUnavailableError
from ml_assets.evaluation import evaluate
from ml_assets.evaluation_report import EvaluationReport
from ml_assets.gates import Judgement, judge_report, select_thresholds, thresholds_version, to_verdicts
from ml_assets.interfaces import Decision, Verdict
from ml_assets.periods import split_partition
from ml_assets.plots import figures, overview
from ml_assets.stages.decisions import model_name, record_once
from ml_assets.stages.dossiers import write_dossier
from ml_assets.stages.rows import Rows, load_rows
from ml_assets.stages.scored_rows import ScoredRows, store_pictures, store_probe, store_rows
from ml_assets.stages.step import StageResult, Step
from ml_assets.stages.trust import trusted_champion
from ml_assets.training import TrainingError, predict, trusted_types

if TYPE_CHECKING:
    import pandas as pd

SHOWN_SLICES = 40


def run(step: Step) -> StageResult:
    """Evaluate one period, judge the result by the policy, and record a refusal when a gate closes."""
    candidate = step.read_document(("candidate",), step.partition)
    trusted = trusted_champion(step.services, step.path, step.time)
    champion = trusted.champion
    measured = measure(step, candidate, champion)
    report, problem = measured.report, measured.problem
    thresholds = select_thresholds(step.spec.gates, step.policy)
    judgements = judge_report(report, step.spec.gates, step.policy)
    document = {
        "candidate": {"variant": candidate["variant"]},  # not its run: the same model measures the same
        "rows": store_rows(step, measured.scored),
        "probe": store_probe(step, measured.rows, measured.scored.scores["candidate"]),
        "classes": measured.scored.classes,
        "champion": None
        if champion is None
        else {"version": champion.model_version, "partition": champion.partition, "problem": problem},
        "improvement_over_champion": _improvements(report, "champion"),
        "report": report.to_document(),
    }
    content = {k: v for k, v in document.items() if k != "candidate"} | {"prediction": candidate["prediction_digest"]}
    stored = step.services.data_store.write_document(
        step.asset("evaluation"), step.partition, document, data_version=document_digest(content)
    )
    pictures, shown = figures(report, partition=step.partition), tables(report)
    store_pictures(step, stored.data_version, pictures)
    step.services.model_registry.log_results(
        candidate["run_id"],
        metrics=_tracker_metrics(report),
        files={f"evaluation/{name}.png": png for name, png in pictures.items()}
        | {f"evaluation/{name}.csv": frame.to_csv(index=False).encode() for name, frame in shown.items()},
    )
    version = thresholds_version(thresholds)
    verdicts = _verdicts(step, judgements, stored.data_version, version)
    if any(v.outcome == "failed" and v.severity == "error" and not step.waived(v) for v in verdicts):
        _refuse(step, _refusal(step, champion, judgements, stored.data_version, version), verdicts, candidate)
    return StageResult(
        stored=stored,
        judgements=tuple(judgements),
        policy_version=version,
        facts=_facts(report, candidate, champion, problem)
        | ({"champions_refused": list(trusted.refused)} if trusted.refused else {}),
        pictures={"overview": overview(report, partition=step.partition), **pictures},
        tables=shown,
    )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What an evaluation measured.

    Attributes:
        report: Metrics with intervals, slices, calibration.
        problem: Why the champion could not be measured; empty when it was, or there is none.
        rows: The labelled rows.
        scored: Labels, days, slice columns and every model's scores.
    """

    report: EvaluationReport
    problem: str
    rows: Rows
    scored: ScoredRows


def measure(step: Step, candidate: dict[str, Any], champion: Decision | None) -> Measured:
    """Score candidate, champion and baseline on the period's labelled rows, and measure them."""
    spec = step.spec
    model = step.services.model_registry.load(
        candidate["model_uri"], trusted_types=trusted_types(spec.variants.values())
    )
    rows, groups = _labelled_rows(step)
    classes = model.classes_.tolist() if spec.label.task == "multiclass" else None
    scores = {
        "candidate": predict(model, rows.frame, task=spec.label.task),
        "baseline": _baseline(step, candidate, rows, classes),
    }
    champion_scores, problem = _champion_scores(step, champion, rows, classes)
    if champion_scores is not None:
        scores["champion"] = champion_scores
    slices = rows.frame[list(spec.evaluation.slices)]
    report = evaluate(
        task=spec.label.task,
        y_true=rows.y,
        scores=scores,
        blocks=rows.day,
        metrics=list(dict.fromkeys([spec.selection.metric, *spec.evaluation.metrics])),
        slice_columns=slices if spec.evaluation.slices else None,
        classes=classes,
        confidence=spec.evaluation.confidence,
        replicates=spec.evaluation.replicates,
        seed=spec.training.seed,
        event_time=rows.event_time,
    )
    group = spec.partitions.group
    if group is not None and group.column not in slices:
        slices = slices.assign(**{group.column: np.array(groups, dtype=object)})
    scored = ScoredRows(y_true=rows.y, days=rows.day, scores=scores, columns=slices, classes=classes)
    return Measured(report=report, problem=problem, rows=rows, scored=scored)


def _labelled_rows(step: Step) -> tuple[Rows, list[str | None]]:
    """Return the period's labelled rows, and the group of each."""
    pc = compute_functions()
    spec = step.spec
    index = step.read(("row_index",), step.partition)
    labelled = index.filter(pc.equal(index["labelled"], True))
    naive = [] if spec.evaluation.baseline == "prior" else [spec.evaluation.baseline]
    columns = list(dict.fromkeys([*spec.features.columns, *spec.evaluation.slices, *naive]))
    rows = load_rows(step, labelled, columns=columns, context="testing")
    return rows, [split_partition(partition)[0] for partition in labelled["partition"].to_pylist()]


def _champion_scores(
    step: Step, champion: Decision | None, rows: Rows, classes: list[Any] | None
) -> tuple[NDArray[np.float64] | None, str]:
    """Return the champion's scores, or None and the reason why it cannot score these rows (empty without one)."""
    if champion is None or champion.model_version is None:
        return None, ""
    registry = step.services.model_registry
    try:
        version = registry.version(champion.model_name, champion.model_version)
        model = registry.load(
            version.model_uri,
            trusted_types=trusted_types(step.spec.variants.values()),
            digest=champion.model_digest,
        )
        if classes is not None and model.classes_.tolist() != classes:
            return None, f"it knows the classes {model.classes_.tolist()}, the candidate {classes}"
        return predict(model, rows.frame, task=step.spec.label.task), ""
    except RegistryUnavailableError:
        raise  # an outage is no problem of the champion
    except (TrainingError, RegistryError) as error:
        return None, str(error)


def _baseline(step: Step, candidate: dict[str, Any], rows: Rows, classes: list[Any] | None) -> NDArray[np.float64]:
    name = step.spec.evaluation.baseline
    if name != "prior":
        naive = rows.frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
        missing = int(np.isnan(naive).sum())
        if missing:
            raise EvaluationError(
                f"The naive baseline {name!r} is missing in {missing} of {len(naive)} rows of {step.partition}; "
                "use a column that is always known, or evaluation.baseline: prior."
            )
        return naive
    prior = candidate["prior"]
    if classes is None:
        return np.full(len(rows.y), prior["mean"])
    return np.tile([prior.get(str(c), 0.0) for c in classes], (len(rows.y), 1))


def _improvements(report: EvaluationReport, reference: str) -> dict[str, Any] | None:
    if reference not in report.models:
        return None
    return {m: asdict(report.difference(m, reference).improvement) for m in report.metrics}


def _tracker_metrics(report: EvaluationReport) -> dict[str, float]:
    found: dict[str, float] = {}
    for estimate in report.estimates:
        prefix = "test" if estimate.model == "candidate" else f"test.{estimate.model}"
        found[f"{prefix}.{estimate.metric}"] = estimate.interval.estimate
        if estimate.model == "candidate":
            found[f"{prefix}.{estimate.metric}.lower"] = estimate.interval.lower
            found[f"{prefix}.{estimate.metric}.upper"] = estimate.interval.upper
    return found


def _facts(
    report: EvaluationReport, candidate: dict[str, Any], champion: Decision | None, problem: str
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "variant": candidate["variant"],
        "test_rows": report.n_rows,
        "test_days": report.n_blocks,
    }
    for metric in report.metrics:
        interval = report.interval("candidate", metric)
        facts |= {
            metric: interval.estimate,
            f"{metric}_lower": interval.lower,
            f"{metric}_upper": interval.upper,
        }
    if champion is not None and champion.model_version is not None:
        facts["champion_version"] = champion.model_version
    return facts | ({"champion_problem": problem} if problem else {})


def tables(report: EvaluationReport) -> "dict[str, pd.DataFrame]":
    """Return metrics, paired improvements (positive is better), confusion, calibration and slices as frames."""
    import pandas as pd

    def row(interval: Any) -> dict[str, float]:
        return {"estimate": interval.estimate, "lower": interval.lower, "upper": interval.upper}

    found = {
        "metrics": pd.DataFrame([{"model": e.model, "metric": e.metric, **row(e.interval)} for e in report.estimates]),
        "improvement": pd.DataFrame(
            [{"over": d.reference, "metric": d.metric, **row(d.improvement)} for d in report.differences]
        ),
    }
    for table in report.confusion:
        at = "" if table.threshold is None else f" at {table.threshold:.3g}"
        frame = pd.DataFrame(table.counts, columns=[f"predicted {label}" for label in table.labels])
        frame.insert(0, "true class", list(table.labels))
        found[f"confusion{at}"] = frame
    for calibration in report.calibration:
        if calibration.model == "candidate":
            found["calibration"] = pd.DataFrame([asdict(b) for b in calibration.bins])
    if report.slices is not None:
        found["slices"] = _slice_frame(report)
    return found


def _slice_frame(report: EvaluationReport) -> "pd.DataFrame":
    import pandas as pd

    assert report.slices is not None  # noqa: S101 - the caller asked
    lines = []
    for s in report.slices.slices[:SHOWN_SLICES]:
        value = s.reason if s.interval is None else f"{s.interval.estimate:.4f}"
        ends = ("", "") if s.interval is None else (f"{s.interval.lower:.4f}", f"{s.interval.upper:.4f}")
        lines.append(
            {
                "column": s.column,
                "value": s.value,
                "rows": s.n_rows,
                "metric": value,
                "lower": ends[0],
                "upper": ends[1],
            }
        )
    return pd.DataFrame(lines)


def _refusal(
    step: Step, champion: Decision | None, judgements: list[Judgement], data_version: str, policy_version: str
) -> Decision:
    failed = [j for j in judgements if not j.passed and j.severity == "error"]
    return Decision(
        pipeline=step.path,
        partition=step.partition,
        outcome="refused",
        reason="; ".join(f"{j.check}: {j.reason}" for j in failed),
        model_name=model_name(step),
        model_version=None,
        champion_version=None if champion is None else champion.model_version,
        data_version=data_version,
        policy_version=policy_version,
        run_id=step.run_id,
        evidence={"gates": {j.check: dict(j.evidence) for j in failed}},
        policy_digest=step.policy.digest,
        launched_by=(step.launched_by,),
    )


def _verdicts(step: Step, judgements: list[Judgement], data_version: str, policy_version: str) -> list[Verdict]:
    return to_verdicts(
        judgements,
        asset=step.asset("evaluation"),
        partition=step.partition,
        data_version=data_version,
        policy_version=policy_version,
        run_id=step.run_id,
        policy_digest=step.policy.digest,
    )


def _refuse(step: Step, decision: Decision, verdicts: list[Verdict], candidate: dict[str, Any]) -> None:
    """Record a refusal and write its dossier; the verdicts are not in the ledger yet, so they are handed on."""
    recorded = record_once(step, decision)
    asset = step.asset("evaluation")
    evaluation = step.services.data_store.read_document(asset, step.partition, data_version=decision.data_version)
    write_dossier(step, recorded, candidate, evaluation, verdicts)
