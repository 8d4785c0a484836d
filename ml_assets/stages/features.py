"""The `features` stage: feature columns, label, row id, event time and label time of one partition."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from ml_assets.arrow import compute_functions
from ml_assets.digest import document_digest, table_digest
from ml_assets.errors import FeatureError
from ml_assets.features.graph import FeatureGraph
from ml_assets.features.joins import join_side_table
from ml_assets.frames import to_arrow, to_frame
from ml_assets.gates import expectations_version, judge_expectations
from ml_assets.interfaces import AssetPath
from ml_assets.periods import join_partition
from ml_assets.sources import event_times, read_table
from ml_assets.spec import ColumnSpec
from ml_assets.stages.columns import EVENT_TIME, LABEL_TIME, ROW_ID
from ml_assets.stages.profiled import write_profile
from ml_assets.stages.step import StageResult, Step

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def run(step: Step) -> StageResult:
    """Compute one partition's features."""
    table = compute(step)
    _hold_schema(step, table)
    stored = step.services.data_store.write(step.asset("features"), step.partition, table)
    write_profile(step, "features", stored, table)
    expectations = step.pipeline.features_expectations
    results = step.services.validator.validate(table.to_pandas(), expectations)
    return StageResult(
        stored=stored,
        judgements=tuple(judge_expectations(results)),
        policy_version=expectations_version(expectations),
        facts={"feature_module": step.pipeline.features.file.name},
        column_lineage=column_lineage(step),
    )


def output_columns(step: Step) -> list[str]:
    """Return the label and every column the model, slices, baseline or scoring needs, each once, label first."""
    spec = step.spec
    naive = [] if spec.evaluation.baseline == "prior" else [spec.evaluation.baseline]
    return list(
        dict.fromkeys(
            [
                spec.label.column,
                *spec.features.columns,
                *naive,
                *spec.evaluation.slices,
                *spec.scoring.columns,
            ]
        )
    )


def compute(step: Step) -> "pa.Table":
    """Return the partition's feature table; rows are in the order of `raw_data`."""
    import pyarrow as pa

    spec, graph = step.spec, FeatureGraph(module=step.pipeline.features)
    outputs = output_columns(step)
    label_time = [] if spec.label.known_at is None else [spec.label.known_at]
    rows, current = _source_rows(step, graph.reads([*outputs, *label_time]))
    frame = graph.compute([*outputs, *label_time], rows)[current]
    rows = rows[current]
    when = rows["_event_time"]
    known = frame[label_time[0]] if label_time else when + (spec.label.known_after or timedelta(0))
    arrays = {EVENT_TIME: when, LABEL_TIME: known} | {c: frame[c] for c in outputs}
    table = pa.table({name: to_arrow(values) for name, values in arrays.items()})
    return table.add_column(0, ROW_ID, _row_ids(rows, spec.source.row_id, spec.source.columns))


def column_lineage(step: Step) -> dict[str, list[tuple[AssetPath, str]]]:
    """Return for each column the source and side-table columns it is made of."""
    graph = FeatureGraph(module=step.pipeline.features)
    sides = {
        f"{table}_{column}": (step.asset("landing", table), column)
        for table, spec in step.spec.source.side_tables.items()
        for column in spec.columns
    }
    raw = step.asset("raw_data")
    lineage = {c: [sides.get(s, (raw, s)) for s in sorted(graph.reads([c]))] for c in output_columns(step)}
    event = step.spec.source.event_time.column
    known_at = step.spec.label.known_at
    lineage[ROW_ID] = [(raw, c) for c in step.spec.source.row_id]
    lineage[EVENT_TIME] = [(raw, event)]
    lineage[LABEL_TIME] = (
        [sides.get(s, (raw, s)) for s in sorted(graph.reads([known_at]))] if known_at else [(raw, event)]
    )
    return lineage


def _row_ids(rows: "pd.DataFrame", columns: Sequence[str], declared: Mapping[str, ColumnSpec]) -> "pa.Array":
    """Return the row id's columns as one text each, joined by "|"."""
    import pyarrow as pa

    pc = compute_functions()

    def text(name: str) -> "pa.Array":
        array = to_arrow(rows[name])
        return (array.cast(pa.date32()) if declared[name].type == "date" else array).cast(pa.string())

    parts = [text(c) for c in columns]
    return pc.binary_join_element_wise(*parts, "|", null_handling="replace", null_replacement="")


def _source_rows(step: Step, needed: set[str]) -> "tuple[pd.DataFrame, pd.Series]":
    """Return the rows of the partition and its history with every needed column, and which rows are its own."""
    import pandas as pd

    source = step.spec.source
    sides = {
        name: spec for name, spec in source.side_tables.items() if any(f"{name}_{c}" in needed for c in spec.columns)
    }
    keys = {c for spec in sides.values() for c in spec.on}
    times = {spec.as_of.row_time for spec in sides.values() if spec.as_of and spec.as_of.row_time}
    wanted = (needed & set(source.columns)) | set(source.row_id) | {source.event_time.column} | keys | times
    columns = [c for c in source.columns if c in wanted]
    history = step.periods.window(step.time, step.spec.features.history) if step.spec.features.history else []
    frames = []
    for time in [*history, step.time]:
        table = step.read(("raw_data",), join_partition(step.group, time), columns=columns)
        frame = to_frame(table, source.columns)
        frames.append(frame.assign(_event_time=event_times(table, source).to_pandas().array, _own=time == step.time))
    rows = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    for name, spec in sides.items():
        side = read_table(step.services.landing, spec.url, spec.format, spec.columns)
        step.upstream["/".join(step.asset("landing", name))] = table_digest(side)
        # A row without a match misses the column whatever it is declared: its dtype must not depend on that.
        nullable = {c: column.model_copy(update={"nullable": True}) for c, column in spec.columns.items()}
        joined = join_side_table(
            rows, to_frame(side, nullable), name=name, spec=spec, event_time="_event_time", wanted=needed
        )
        rows = rows.join(joined)
    return rows, rows["_own"]


def _hold_schema(step: Step, table: "pa.Table") -> None:
    """Refuse a column whose type differs from what the same code gave on another partition.

    The first partition under a code version writes the schema down; every later one is held against it.
    """
    asset, version = step.asset("feature_schema"), step.pipeline.features.digest
    types = {field.name: str(field.type) for field in table.schema}
    store = step.services.data_store
    if store.describe(asset, version) is None:
        document = {"types": types, "partition": step.partition}
        store.write_document(asset, version, document, data_version=document_digest(document))
        return
    known = store.read_document(asset, version)
    for name, kind in types.items():
        expected = known["types"].get(name, kind)
        if kind != expected:
            raise FeatureError(
                name,
                f"Feature {name!r} is {kind} on partition {step.partition} and was {expected} on "
                f"{known['partition']} with the same code. Make the function return one dtype for any input, "
                "for example with .astype('float64').",
            )
