"""The `raw_data` stage: the rows that arrived, in their declared types, judged by their expectations."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from ml_assets.frames import to_frame
from ml_assets.gates import expectations_version, judge_expectations
from ml_assets.sources import SourceFile, check_rows, combine_rows, partition_url, read_rows, sort_rows
from ml_assets.stages.source_file import write_source_file
from ml_assets.stages.step import StageResult, Step

if TYPE_CHECKING:
    import pyarrow as pa

_FILE = b"ml_assets.source_file"


def run(step: Step) -> StageResult:
    """Ingest one partition's file."""
    return store(step, ingest(step))


def store(step: Step, table: "pa.Table") -> StageResult:
    """Write the partition's rows, note the file they were read from, and judge them by their expectations."""
    stored = step.services.data_store.write(step.asset("raw_data"), step.partition, table)
    file = _file_of(table)
    if file is not None:
        write_source_file(step.services.data_store, stored, file)
    expectations = step.pipeline.raw_data_expectations
    frame = to_frame(table, step.spec.source.columns)
    results = step.services.validator.validate(frame, expectations)
    facts = {"source_url": step.services.landing.resolve(_url(step))}
    return StageResult(
        stored=stored,
        judgements=tuple(judge_expectations(results)),
        policy_version=expectations_version(expectations),
        facts=facts if file is None else {**facts, "source_sha256": file.sha256},
    )


def ingest(step: Step) -> "pa.Table":
    """Return the partition's rows: read, combined, checked and ordered; which file they are of is in the metadata."""
    source, group = step.spec.source, step.spec.partitions.group
    table, file = read_rows(step.services.landing, _url(step), source)
    table = combine_rows(table, source)
    check_rows(
        table,
        source,
        step.periods,
        group_column=None if group is None else group.column,
        group=step.group,
        time=step.time,
    )
    table = sort_rows(table, source)
    return table.replace_schema_metadata({_FILE: json.dumps(asdict(file))})


def _file_of(table: "pa.Table") -> SourceFile | None:
    """Return the file that `ingest` read, or None for rows that a replaced stage made in another way."""
    noted = (table.schema.metadata or {}).get(_FILE)
    return None if noted is None else SourceFile(**json.loads(noted))


def _url(step: Step) -> str:
    return partition_url(step.spec.source, step.group, step.time)
