"""The data of flights in plain Dagster, as one would write it first: what `bench_backfill` compares with.

Two assets partitioned by month and airport, pandas and Parquet, Dagster's own launcher and executor, a run for each
partition. There are no expectations, versions, verdicts or profiles: it does less than a governed backfill.
"""

import os
from pathlib import Path

import dagster as dg
import pandas as pd

from ml_assets.features.graph import FeatureGraph
from ml_assets.features.joins import join_side_table
from ml_assets.features.module import load_feature_module
from ml_assets.spec import PipelineSpec
from ml_assets.yaml_positions import load_yaml

FOLDER = Path("deployments/flights/defs/arrival_delay").resolve()
SPEC = PipelineSpec.model_validate(
    load_yaml((FOLDER / "defs.yaml").read_text(encoding="utf-8"), file="").data["attributes"]
)
COLUMNS = list(dict.fromkeys([SPEC.label.column, *SPEC.features.columns, *SPEC.scoring.columns]))
MONTHS = [f"2013-{month:02d}" for month in range(1, 13)]
AIRPORTS = ["EWR", "JFK", "LGA"]
PARTITIONS = dg.MultiPartitionsDefinition(
    {"month": dg.StaticPartitionsDefinition(MONTHS), "airport": dg.StaticPartitionsDefinition(AIRPORTS)}
)


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    frame = pd.read_csv(path, usecols=columns)[columns]
    if "time_hour" in frame:
        frame["time_hour"] = pd.to_datetime(frame["time_hour"], utc=True).astype("datetime64[us, UTC]")
    return frame


def _place(context: dg.AssetExecutionContext, stage: str) -> Path:
    folder = Path(os.environ["RAW_OUT"]) / stage
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{context.partition_key.replace('|', '_')}.parquet"


@dg.asset(partitions_def=PARTITIONS)
def raw_data(context: dg.AssetExecutionContext) -> None:
    """The rows of a month and airport."""
    airport, month = (context.partition_key.keys_by_dimension[name] for name in ("airport", "month"))  # pyright: ignore[reportAttributeAccessIssue]
    path = Path(os.environ["RAW_LANDING"]) / SPEC.source.url.format(time=month, group=airport)
    rows = _read(path, list(SPEC.source.columns)).sort_values(list(SPEC.source.row_id), ignore_index=True)
    rows.to_parquet(_place(context, "raw_data"), index=False)


@dg.asset(partitions_def=PARTITIONS, deps=[raw_data])
def features(context: dg.AssetExecutionContext) -> None:
    """The features of a month and airport."""
    graph = FeatureGraph(module=load_feature_module(FOLDER, "features.py"))
    needed = graph.reads(COLUMNS)
    rows = pd.read_parquet(_place(context, "raw_data"))
    for name, spec in SPEC.source.side_tables.items():
        side = _read(Path(os.environ["RAW_LANDING"]) / spec.url, list(spec.columns))
        rows = rows.join(join_side_table(rows, side, name=name, spec=spec, event_time="time_hour", wanted=needed))
    graph.compute(COLUMNS, rows)[COLUMNS].to_parquet(_place(context, "features"), index=False)


data = dg.define_asset_job("data", [raw_data, features])
defs = dg.Definitions(assets=[raw_data, features], jobs=[data])
