"""The `row_index` stage: which rows a period has over all groups, when they happened and when their label is known."""

from typing import TYPE_CHECKING

from ml_assets.arrow import compute_functions
from ml_assets.stages.columns import EVENT_TIME, LABEL_TIME
from ml_assets.stages.step import StageResult, Step

if TYPE_CHECKING:
    import pyarrow as pa


def run(step: Step) -> StageResult:
    """Index the feature rows of one period."""
    import pyarrow as pa

    table = pa.concat_tables([_index(step, partition) for partition in step.group_partitions(step.time)])
    stored = step.services.data_store.write(step.asset("row_index"), step.partition, table)
    labelled = int(table["labelled"].to_numpy().sum())
    return StageResult(stored=stored, facts={"labelled_rows": labelled})


def _index(step: Step, partition: str) -> "pa.Table":
    import pyarrow as pa

    pc = compute_functions()

    stored = step.describe(("features",), partition)
    label = step.spec.label.column
    table = step.services.data_store.read(
        stored.asset, partition, columns=[EVENT_TIME, LABEL_TIME, label], data_version=stored.data_version
    )
    n_rows = table.num_rows
    local = pc.local_timestamp(table[EVENT_TIME].cast(pa.timestamp("us", tz=step.periods.timezone)))
    return pa.table(
        {
            "partition": pa.array([partition] * n_rows),
            "data_version": pa.array([stored.data_version] * n_rows),
            "row": pa.array(range(n_rows), type=pa.int32()),
            "event_time": table[EVENT_TIME],
            "label_time": table[LABEL_TIME],
            "day": local.cast(pa.date32(), safe=False),
            "labelled": pc.is_valid(table[label]),
        }
    )
