"""The `models/<variant>` and `candidate` stages: fit each variant, choose the best, fit it again on all rows."""

import hashlib
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from ml_assets.arrow import compute_functions
from ml_assets.bootstrap import block_bootstrap
from ml_assets.digest import document_digest
from ml_assets.interfaces import LoggedModel, ModelRun
from ml_assets.metrics import METRICS
from ml_assets.spec import VariantSpec
from ml_assets.stages.execution import execution, execution_facts
from ml_assets.stages.fingerprints import fingerprint
from ml_assets.stages.fitting import Fitting, fit_for
from ml_assets.stages.rows import Rows, load_rows
from ml_assets.stages.search import RECORD, Searched, help_search, search_variant, tuned
from ml_assets.stages.step import StageResult, Step
from ml_assets.training import predict, prepare, trusted_types

INPUT_EXAMPLE_ROWS = 5


def run_variant(step: Step, variant: str) -> StageResult:
    """Fit one variant on the training split and score it on the validation split."""
    references = step.read(("training_set",), step.partition)
    columns = step.spec.features.columns
    training = _split(references, "training")
    train = load_rows(step, training, columns=columns, context="training")
    name = f"{step.time} {variant}"
    searched = search_variant(step, variant, training, train, _tags(step))
    declared = searched.variant
    held_out = load_rows(step, _split(references, "validation"), columns=columns, context="validation")
    fitting = fit_for(step, ("models", variant), variant, declared, train)
    model = fitting.fitted.model
    scores = predict(model, held_out.frame, task=step.spec.label.task)
    metrics = validation_metrics(step, held_out, scores, model)
    inputs = (*train.inputs, *held_out.inputs)
    # Of two runs of this stage that end at once, only one may have the tracker's run with the trials.
    with nullcontext() if searched.plan is None else step.services.studies.one_at_a_time(searched.plan):
        run_id = _open_run(step, name, searched)
        logged = _log(step, model, declared, train, inputs, name, metrics, run_id=run_id)
    document = {
        "variant": variant,
        "run_id": logged.run_id,
        "model_uri": logged.model_uri,
        "validation": metrics,
        "training_rows": len(train.y),
        "validation_rows": len(held_out.y),
        "prediction_digest": prediction_digest(scores),
        "training": dict(fitting.fitted.facts),
        **searched.document,
    }
    result = _store(step, ("models", variant), document, seconds=fitting.seconds)
    fitting.clear()
    tables = {**result.tables, **searched.tables}
    return replace(result, facts={**result.facts, **searched.facts}, pictures=searched.pictures, tables=tables)


def help_variant(step: Step, variant: str) -> str:
    """Take part in a variant's search until it has ended, and return what came of it, in a sentence."""
    training = _split(step.read(("training_set",), step.partition), "training")
    train = load_rows(step, training, columns=step.spec.features.columns, context="training")
    return help_search(step, variant, training, train, _tags(step))


def run_candidate(step: Step) -> StageResult:
    """Choose the best variant on the validation split, and fit it again on every row of the training set."""
    variants = {name: step.read_document(("models", name), step.partition) for name in step.spec.variants}
    best = choose(step.spec.selection.metric, {n: d["validation"] for n, d in variants.items()})
    chosen, columns = variants[best], step.spec.features.columns
    declared = tuned(step.spec.variants[best], chosen)
    references = step.read(("training_set",), step.partition)
    rows = load_rows(step, references, columns=columns, context="training")
    logged, digest = LoggedModel(run_id=chosen["run_id"], model_uri=chosen["model_uri"]), ""
    fitting: Fitting | None = None
    if step.spec.training.refit:
        fitting = fit_for(step, ("candidate",), best, declared, rows)
        model = fitting.fitted.model
        logged = _log(step, model, declared, rows, rows.inputs, f"{step.time} candidate", chosen["validation"])
        digest = prediction_digest(predict(model, rows.frame, task=step.spec.label.task))
    document = {
        "variant": best,
        "run_id": logged.run_id,
        "model_uri": logged.model_uri,
        "validation": {name: d["validation"] for name, d in sorted(variants.items())},
        "training_rows": len(rows.y),
        "prior": prior(rows.y, step.spec.label.task),
        "prediction_digest": digest or chosen["prediction_digest"],
        "inputs": {i.name: i.digest for i in rows.inputs},
        "fingerprint": fingerprint(step, declared),
        "launched_by": step.launched_by,
        "training": chosen.get("training", {}) if fitting is None else dict(fitting.fitted.facts),
    }
    result = _store(step, ("candidate",), document, seconds=0.0 if fitting is None else fitting.seconds)
    if fitting is not None:
        fitting.clear()
    return result


def choose(metric: str, validation: dict[str, dict[str, Any]]) -> str:
    """Return the variant with the best estimate; of equals the one declared first."""
    sign = 1.0 if METRICS[metric].greater_is_better else -1.0
    if METRICS[metric].zero_is_best:
        return min(validation, key=lambda name: abs(validation[name][metric]["estimate"]))
    return max(validation, key=lambda name: sign * validation[name][metric]["estimate"])


def prior(y: np.ndarray, task: str) -> dict[str, float]:
    """Return what a model without features would predict: the mean, or each class's share."""
    if task == "multiclass":
        classes, counts = np.unique(y, return_counts=True)
        return {str(c): float(n / len(y)) for c, n in zip(classes, counts, strict=True)}
    return {"mean": float(np.mean(y))}


def prediction_digest(scores: np.ndarray) -> str:
    """Return the SHA-256 of scores: two models with the same digest score these rows bit for bit alike."""
    return hashlib.sha256(np.ascontiguousarray(scores, dtype="<f8").tobytes()).hexdigest()


def validation_metrics(step: Step, rows: Rows, scores: np.ndarray, model: Any) -> dict[str, dict[str, float]]:
    """Return the selection metric and the evaluation metrics on the validation split, with day-block intervals."""
    evaluation, task = step.spec.evaluation, step.spec.label.task
    names = list(dict.fromkeys([step.spec.selection.metric, *evaluation.metrics]))
    result = block_bootstrap(
        task=task,
        y_true=rows.y,
        scores={"model": scores},
        blocks=rows.day,
        metrics=names,
        classes=list(model.classes_) if task == "multiclass" else None,
        replicates=evaluation.replicates,
        seed=step.spec.training.seed,
    )
    intervals = {name: result.interval("model", name, confidence=evaluation.confidence) for name in names}
    return {name: {"estimate": i.estimate, "lower": i.lower, "upper": i.upper} for name, i in intervals.items()}


def _split(references: Any, name: str) -> Any:
    pc = compute_functions()

    return references.filter(pc.equal(references["split"], name))


def _tags(step: Step) -> dict[str, str]:
    spec = step.spec
    return {
        "team": spec.team,
        "pipeline": spec.name,
        "partition": step.partition,
        "dagster_run_id": step.run_id,
        "code_version": step.pipeline.features.digest,
        "training_set_version": step.upstream[f"{'/'.join(step.asset('training_set'))} [{step.partition}]"],
    }


def _open_run(step: Step, name: str, searched: Searched) -> str:
    """Return the tracker's run of a search, or a new one if another run of the stage, which did the same, ended it."""
    if not searched.run_id:
        return ""
    tags = _tags(step) | {"search_study": searched.document["search"]["study"]}
    return step.services.model_registry.start_run("/".join(step.path), name, tags=tags, continues=searched.run_id)


def _log(
    step: Step,
    model: Any,
    variant: VariantSpec,
    rows: Rows,
    inputs: Any,
    name: str,
    metrics: dict[str, Any],
    *,
    run_id: str = "",
) -> LoggedModel:
    spec = step.spec
    example = prepare(rows.frame.head(INPUT_EXAMPLE_ROWS))
    return step.services.model_registry.log_model(
        ModelRun(
            experiment=f"{spec.team}/{spec.name}",
            name=name,
            model=model,
            input_example=example,
            output_example=predict(model, example, task=spec.label.task),
            params={
                "estimator": variant.estimator,
                "seed": spec.training.seed,
                "window": str(spec.training.window),
                **{f"estimator.{k}": v for k, v in variant.params.items()},
                **{f"preprocessing.{k}": v for k, v in variant.preprocessing.model_dump().items()},
            },
            metrics={f"validation.{metric}": values["estimate"] for metric, values in metrics.items()},
            tags=_tags(step),
            inputs=inputs,
            trusted_types=trusted_types([variant]),
            run_id=run_id,
        )
    )


def _store(step: Step, stage: tuple[str, ...], document: dict[str, Any], *, seconds: float) -> StageResult:
    # Run ids, addresses, launchers, where a training was resumed and what it ran on differ; what the model predicts
    # does not.
    content = {k: v for k, v in document.items() if k not in {"run_id", "model_uri", "launched_by", "training", RECORD}}
    used = execution(step, device=document["training"].get("device", "cpu"))
    document = document | {"compute": used}
    stored = step.services.data_store.write_document(
        step.asset(*stage), step.partition, document, data_version=document_digest(content)
    )
    metric = step.spec.selection.metric
    validation = document["validation"]
    best = validation[document["variant"]] if stage == ("candidate",) else validation
    facts = {
        "variant": document["variant"],
        "mlflow_run_id": document["run_id"],
        "model_uri": document["model_uri"],
        "fit_seconds": round(seconds, 3),
        "training_rows": document["training_rows"],
        "seed": step.spec.training.seed,
        f"validation_{metric}": best[metric]["estimate"],
        **document["training"],
        **execution_facts(used),
        **({"notes": list(step.notes)} if step.notes else {}),
    }
    tables = {"validation": _comparison(metric, validation)} if stage == ("candidate",) else {}
    return StageResult(stored=stored, facts=facts, tables=tables)


def _comparison(metric: str, validation: dict[str, Any]) -> Any:
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "variant": name,
                metric: v[metric]["estimate"],
                "lower": v[metric]["lower"],
                "upper": v[metric]["upper"],
            }
            for name, v in validation.items()
        ]
    )
