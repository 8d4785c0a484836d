"""One month of flights as one plain script: `python -m tests.benchmarks.plain_month --help`.

What `bench_month` compares a governed run with: the same rows, expectations, features, splits, models, metrics,
pictures and MLflow runs, one after the other in one process. There is no orchestrator, no data store with versions,
no ledger, no metadata and no second process. It is written as its author would write it: pandas reads the CSV files,
Great Expectations runs one suite a batch in its default result format, `mlflow.sklearn.log_model` is called with its
requirements spelled out (left to MLflow, finding them costs seconds), and rows are kept as one Parquet file a month.
"""
# ruff: noqa: T201 - a script prints

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HAMILTON_AUTOLOAD_EXTENSIONS": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

import great_expectations as gx  # noqa: TID253 - a plain script imports what it uses
import mlflow  # noqa: TID253
import mlflow.sklearn  # noqa: TID253
import numpy as np
import pandas as pd
import yaml
from great_expectations.data_context.types.base import ProgressBarsConfig  # noqa: TID253
from great_expectations.expectations.registry import get_expectation_impl  # noqa: TID253
from mlflow.models import infer_signature  # noqa: TID253

from ml_assets.bootstrap import block_bootstrap
from ml_assets.comparison import decide
from ml_assets.evaluation import evaluate
from ml_assets.evaluation_report import EvaluationReport
from ml_assets.features.graph import FeatureGraph
from ml_assets.features.joins import join_side_table
from ml_assets.features.module import load_feature_module
from ml_assets.periods import Periods
from ml_assets.plots import figures, overview
from ml_assets.spec import PipelineSpec, VariantSpec
from ml_assets.splitting import TRAINING, VALIDATION, WindowRows, split_rows
from ml_assets.training import fit, predict, prepare
from ml_assets.yaml_positions import load_yaml

FOLDER = Path("deployments/flights/defs/arrival_delay")
SPEC = PipelineSpec.model_validate(
    load_yaml((FOLDER / "defs.yaml").read_text(encoding="utf-8"), file="").data["attributes"]
)
FEATURES = FeatureGraph(module=load_feature_module(FOLDER.resolve(), "features.py"))
PERIODS = Periods.of(SPEC.partitions, SPEC.source.event_time.timezone)
COLUMNS = list(dict.fromkeys([SPEC.label.column, *SPEC.features.columns, *SPEC.scoring.columns]))
MODEL_NAME, CHAMPION = "flights.arrival_delay", "champion"
REQUIREMENTS = ["mlflow==3.17.2", "numpy==2.4.6", "pandas==3.1.1", "scikit-learn==1.9.1", "skops==0.16.0"]
TRUSTED = [
    "numpy.dtype",
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
]
FLOOR, MARGIN = 0.55, 0.02


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Labelled rows for fitting or scoring: features, labels and the day of each row."""

    X: pd.DataFrame
    y: np.ndarray
    day: np.ndarray


def read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    frame = pd.read_csv(path, usecols=list(columns))[list(columns)]
    if "time_hour" in frame:
        frame["time_hour"] = pd.to_datetime(frame["time_hour"], utc=True).astype("datetime64[us, UTC]")
    return frame


def build_suite(name: str, expectations: Sequence[dict[str, Any]]) -> Any:
    built = [get_expectation_impl(e["type"])(**e["kwargs"], severity=_severity(e)) for e in expectations]
    return gx.ExpectationSuite(name=name, expectations=built)


def _severity(expectation: dict[str, Any]) -> str:
    return {"error": "critical", "warning": "warning"}[expectation.get("severity", "error")]


def check(frame: pd.DataFrame, suite: Any, batch_definition: Any) -> None:
    for found in batch_definition.get_batch({"dataframe": frame}).validate(suite).results:
        severity = found.expectation_config.severity
        if not found.success:
            print(f"{severity}: {found.expectation_config.type} {found.expectation_config.kwargs} {found.result}")
        if not found.success and severity == "critical":
            raise SystemExit("the data are not fit for use")


def features_of_month(month: str, landing: Path) -> pd.DataFrame:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("frames").add_dataframe_asset("frame")
    batches = asset.add_batch_definition_whole_dataframe("whole")
    raw_suite = build_suite("raw", yaml.safe_load((FOLDER / "expectations_raw_data.yaml").read_text(encoding="utf-8")))
    feature_suite = build_suite("features", [e.model_dump() for e in SPEC.expectations.features])
    sides = {name: read_csv(landing / side.url, list(side.columns)) for name, side in SPEC.source.side_tables.items()}
    start, end = PERIODS.bounds(month)
    parts = []
    for airport in SPEC.partitions.group.values:
        path = landing / SPEC.source.url.format(time=month, group=airport)
        rows = read_csv(path, list(SPEC.source.columns)).sort_values(list(SPEC.source.row_id), ignore_index=True)
        outside = (rows["time_hour"] < start) | (rows["time_hour"] >= end)
        if outside.any() or (rows["origin"] != airport).any() or rows.duplicated(list(SPEC.source.row_id)).any():
            raise SystemExit(f"{path} holds rows of another partition, or rows twice")
        check(rows, raw_suite, batches)
        needed = FEATURES.reads(COLUMNS)
        for name, side in sides.items():
            spec = SPEC.source.side_tables[name]
            rows = rows.join(join_side_table(rows, side, name=name, spec=spec, event_time="time_hour", wanted=needed))
        frame = FEATURES.compute(COLUMNS, rows)[COLUMNS]
        check(frame, feature_suite, batches)
        row_id = rows["time_hour"].astype(str) + "|" + rows["carrier"] + "|" + rows["flight"].astype(str)
        label_time = rows["time_hour"] + pd.Timedelta(SPEC.label.known_after)
        parts.append(frame.assign(row_id=row_id, event_time=rows["time_hour"], label_time=label_time))
    return pd.concat(parts, ignore_index=True)


def select(frame: pd.DataFrame, mask: np.ndarray | pd.Series) -> Rows:
    chosen = frame[mask]
    day = chosen["event_time"].dt.tz_convert(PERIODS.timezone).dt.tz_localize(None).to_numpy().astype("datetime64[D]")
    return Rows(X=chosen[list(SPEC.features.columns)], y=chosen[SPEC.label.column].to_numpy(), day=day)


def split(window: pd.DataFrame, months: Sequence[str], month: str) -> np.ndarray:
    def utc(column: str) -> np.ndarray:
        return window[column].dt.tz_localize(None).to_numpy().astype("datetime64[us]")

    local = window["event_time"].dt.tz_convert(PERIODS.timezone).dt.tz_localize(None)
    rows = WindowRows(
        period=window["period"].to_numpy(),
        day=local.to_numpy().astype("datetime64[D]"),
        event_time=utc("event_time"),
        label_time=utc("label_time"),
        labelled=window[SPEC.label.column].notna().to_numpy(),
    )
    return split_rows(rows, n_periods=len(months), cutoff=PERIODS.bounds(month)[0], training=SPEC.training)


def validate(model: Any, rows: Rows) -> dict[str, float]:
    names = list(SPEC.evaluation.metrics)
    drawn = block_bootstrap(
        task=SPEC.label.task,
        y_true=rows.y,
        scores={"model": predict(model, rows.X, task=SPEC.label.task)},
        blocks=rows.day,
        metrics=names,
        replicates=SPEC.evaluation.replicates,
        seed=SPEC.training.seed,
    )
    intervals = {name: drawn.interval("model", name) for name in names}
    return {f"validation.{n}.{end}": getattr(i, end) for n, i in intervals.items() for end in ("estimate", "lower")}


def log(name: str, variant: VariantSpec, model: Any, rows: Rows, metrics: dict[str, float]) -> Any:
    """Record one run with its model; return MLflow's description of the model."""
    example = prepare(rows.X.head(5))
    with mlflow.start_run(run_name=name):
        mlflow.log_params({"estimator": variant.estimator, "seed": SPEC.training.seed, **variant.params})
        mlflow.log_metrics(metrics)
        return mlflow.sklearn.log_model(
            model,
            name="model",
            serialization_format="skops",
            skops_trusted_types=TRUSTED,
            signature=infer_signature(example, model.predict_proba(example)),
            input_example=example,
            pip_requirements=REQUIREMENTS,
            pyfunc_predict_fn="predict_proba",
        )


def train(window: pd.DataFrame, months: Sequence[str], month: str) -> tuple[Any, Any, float]:
    """Fit every variant, and the best one again on all rows; return it, its description and the prior rate."""
    codes = split(window, months, month)
    training, held_out, everything = (
        select(window, mask) for mask in (codes == TRAINING, codes == VALIDATION, codes > 0)
    )
    found = {}
    for name, variant in SPEC.variants.items():
        model = fit(variant, training.X, training.y, seed=SPEC.training.seed)
        found[name] = validate(model, held_out)
        log(f"{month} {name}", variant, model, training, found[name])
    best = max(found, key=lambda name: found[name][f"validation.{SPEC.selection.metric}.estimate"])
    model = fit(SPEC.variants[best], everything.X, everything.y, seed=SPEC.training.seed)
    logged = log(f"{month} candidate", SPEC.variants[best], model, everything, found[best])
    return model, logged, float(everything.y.mean())


def load_champion() -> Any | None:
    try:
        return mlflow.sklearn.load_model(f"models:/{MODEL_NAME}@{CHAMPION}")
    except mlflow.MlflowException:
        return None


def evaluate_month(frame: pd.DataFrame, month: str, candidate: Any, champion: Any, prior: float) -> EvaluationReport:
    labelled = frame[SPEC.label.column].notna()
    rows = select(frame, labelled)
    scores = {"candidate": predict(candidate, rows.X, task="binary"), "baseline": np.full(len(rows.y), prior)}
    if champion is not None:
        scores["champion"] = predict(champion, rows.X, task="binary")
    return evaluate(
        task=SPEC.label.task,
        y_true=rows.y,
        scores=scores,
        blocks=rows.day,
        metrics=list(SPEC.evaluation.metrics),
        slice_columns=rows.X[list(SPEC.evaluation.slices)],
        confidence=SPEC.evaluation.confidence,
        replicates=SPEC.evaluation.replicates,
        seed=SPEC.training.seed,
        event_time=frame.loc[labelled, "event_time"],
    )


def log_evaluation(run_id: str, report: EvaluationReport, month: str, folder: Path) -> None:
    pictures = folder / "pictures" / month
    pictures.mkdir(parents=True, exist_ok=True)
    for name, png in {"overview": overview(report, partition=month), **figures(report, partition=month)}.items():
        (pictures / f"{name}.png").write_bytes(png)
    with mlflow.start_run(run_id=run_id):
        mlflow.log_metrics({f"test.{e.model}.{e.metric}": e.interval.estimate for e in report.estimates})
        mlflow.log_artifacts(str(pictures), "evaluation")


def promote(report: EvaluationReport, logged: Any) -> str:
    auc = report.interval("candidate", "roc_auc")
    gain = report.difference("log_loss", "baseline").improvement
    if auc.lower < FLOOR or gain.lower <= 0:
        return f"refused: AUC {auc}, improvement of the log loss over the prior rate {gain}"
    version = mlflow.register_model(logged.model_uri, MODEL_NAME)
    if "champion" in report.models:
        verdict = decide(report.difference("roc_auc", "champion").improvement, margin=MARGIN)
        if verdict.outcome not in {"better", "not_worse"}:
            return f"kept the champion: {verdict.reason}"
    mlflow.MlflowClient().set_registered_model_alias(MODEL_NAME, CHAMPION, version.version)
    return f"promoted version {version.version}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("month", help="such as 2013-05; earlier months must have been done before")
    parser.add_argument("--folder", type=Path, required=True, help="where rows, models and MLflow's records are kept")
    parser.add_argument("--landing", type=Path, required=True, help="the landing zone")
    parser.add_argument("--data-only", action="store_true", help="stop when the rows are stored")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    frame = features_of_month(options.month, options.landing)
    frame.to_parquet(options.folder / f"{options.month}.parquet", index=False)
    if options.data_only:
        return
    mlflow.set_tracking_uri(f"sqlite:///{options.folder.resolve()}/mlflow.db")
    if mlflow.get_experiment_by_name(MODEL_NAME) is None:
        mlflow.create_experiment(MODEL_NAME, artifact_location=(options.folder / "artifacts").resolve().as_uri())
    mlflow.set_experiment(MODEL_NAME)
    months = PERIODS.window(options.month, None)
    window = pd.concat(
        [pd.read_parquet(options.folder / f"{m}.parquet").assign(period=i) for i, m in enumerate(months)],
        ignore_index=True,
    )
    candidate, logged, prior = train(window, months, options.month)
    champion = load_champion()
    report = evaluate_month(frame, options.month, candidate, champion, prior)
    log_evaluation(logged.run_id, report, options.month, options.folder)
    print(report.interval("candidate", "roc_auc"))
    print(promote(report, logged))
    if champion is not None:
        scored = frame[["row_id", "event_time", *SPEC.scoring.columns]].assign(
            score=predict(champion, frame, task="binary")
        )
        scored.to_parquet(options.folder / f"{options.month}_scores.parquet", index=False)


if __name__ == "__main__":
    main()
