"""The `raw_data` stage: the rows that arrived, in their declared types, judged by their expectations."""

from typing import TYPE_CHECKING

from ml_assets.frames import to_frame
from ml_assets.gates import expectations_version, judge_expectations
from ml_assets.sources import check_rows, combine_rows, partition_url, read_table, sort_rows
from ml_assets.stages.step import StageResult, Step

if TYPE_CHECKING:
    import pyarrow as pa


def run(step: Step) -> StageResult:
    """Ingest one partition's file."""
    return store(step, ingest(step))


def store(step: Step, table: "pa.Table") -> StageResult:
    """Write the partition's rows and judge them by their expectations."""
    stored = step.services.data_store.write(step.asset("raw_data"), step.partition, table)
    expectations = step.pipeline.raw_data_expectations
    frame = to_frame(table, step.spec.source.columns)
    results = step.services.validator.validate(frame, expectations)
    return StageResult(
        stored=stored,
        judgements=tuple(judge_expectations(results)),
        policy_version=expectations_version(expectations),
        facts={"source_url": step.services.landing.resolve(_url(step))},
    )


def ingest(step: Step) -> "pa.Table":
    """Return the partition's rows: read, combined, checked and ordered."""
    source, group = step.spec.source, step.spec.partitions.group
    table = read_table(
        step.services.landing,
        _url(step),
        source.format,
        source.columns,
        stored_in=source.event_time.stored_in,
    )
    table = combine_rows(table, source)
    check_rows(
        table,
        source,
        step.periods,
        group_column=None if group is None else group.column,
        group=step.group,
        time=step.time,
    )
    return sort_rows(table, source)


def _url(step: Step) -> str:
    return partition_url(step.spec.source, step.group, step.time)
