"""The `raw_data` stage: the rows that arrived, in their declared types, judged by their expectations."""

from typing import TYPE_CHECKING

from ml_assets.frames import to_frame
from ml_assets.gates import expectations_version, judge_expectations
from ml_assets.interfaces import Expectation, ExpectationResult
from ml_assets.sources import check_rows, combine_rows, partition_url, read_table, sort_rows
from ml_assets.stages.step import StageResult, Step

if TYPE_CHECKING:
    import pandas as pd
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
        tables=failure_tables(results),
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


def failure_tables(results: "list[ExpectationResult]") -> "dict[str, pd.DataFrame]":
    """Return what failed as a table, and sample rows of each failed expectation (at most five tables)."""
    import pandas as pd

    failed = [r for r in results if not r.success]
    if not failed:
        return {}
    summary = pd.DataFrame(
        {
            "expectation": [r.expectation.label for r in failed],
            "severity": [r.expectation.severity for r in failed],
            "failing rows": ["" if r.n_failing is None else str(r.n_failing) for r in failed],
            "rows": [r.n_rows for r in failed],
            "expected": [_arguments(r.expectation) for r in failed],
        }
    )
    samples = {
        f"failing rows of {r.expectation.label}": pd.DataFrame(list(r.sample)).head(10) for r in failed[:5] if r.sample
    }
    return {"failed expectations": summary, **samples}


def _arguments(expectation: Expectation) -> str:
    return ", ".join(f"{key}={value}" for key, value in expectation.kwargs.items() if key != "column")


def _url(step: Step) -> str:
    return partition_url(step.spec.source, step.group, step.time)
