"""Loads labelled feature rows, by reference to exact data versions, as arrays for fitting and evaluating."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.interfaces import DatasetInput
from ml_assets.stages.columns import EVENT_TIME, local_days
from ml_assets.stages.step import Step

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Labelled rows.

    Attributes:
        frame: Feature and other asked-for columns, shape (n_rows, n_columns).
        y: Labels, shape (n_rows,): float64 0/1 for binary, float64 for regression, object or int for multiclass.
        event_time: datetime64[us] in UTC, shape (n_rows,).
        day: Local day of each row's event, datetime64[D], shape (n_rows,): the block of the bootstrap.
        inputs: The feature partitions they come from.
    """

    frame: "pd.DataFrame"
    y: NDArray[Any]
    event_time: NDArray[np.datetime64]
    day: NDArray[np.datetime64]
    inputs: tuple[DatasetInput, ...]


def load_rows(step: Step, references: "pa.Table", *, columns: Sequence[str], context: str) -> Rows:
    """Load the rows that a training set (or row index) refers to, in its order.

    Args:
        step: The running step; every feature partition passes its gate at exactly the referenced version.
        references: Columns partition, data_version, row (int32).
        columns: Feature table columns to load beside the label and the event time.
        context: "training", "validation" or "testing", for the tracker.
    """
    import pyarrow as pa

    label = step.spec.label.column
    wanted = list(dict.fromkeys([*columns, label, EVENT_TIME]))
    parts, inputs = [], []
    for partition, version, row in _by_partition(references):
        stored = step.describe(("features",), partition, version)
        table = step.services.data_store.read(stored.asset, partition, columns=wanted, data_version=version)
        inputs.append(
            DatasetInput(
                name=f"{'/'.join(stored.asset)} [{partition}]",
                digest=version,
                context=context,
                url=stored.url,
            )
        )
        parts.append(table.take(pa.array(row)))
    table = pa.concat_tables(parts)
    frame = table.to_pandas()
    return Rows(
        frame=frame[list(columns)],
        y=_labels(frame[label], step.spec.label.task),
        event_time=table[EVENT_TIME].cast(pa.timestamp("us")).to_numpy().astype("datetime64[us]"),
        day=local_days(table, step.periods.timezone),
        inputs=tuple(inputs),
    )


def _by_partition(references: "pa.Table") -> Iterable[tuple[str, str, NDArray]]:
    """Yield (partition, data version, row numbers) in the order in which partitions first appear."""
    partition = references["partition"].to_numpy(zero_copy_only=False)
    version = references["data_version"].to_numpy(zero_copy_only=False)
    row = references["row"].to_numpy()
    starts = np.flatnonzero(np.r_[True, partition[1:] != partition[:-1]]) if len(row) else np.array([], dtype=int)
    for start, end in zip(starts, np.r_[starts[1:], len(row)], strict=True):
        yield str(partition[start]), str(version[start]), row[start:end]


def _labels(values: "pd.Series", task: str) -> NDArray[Any]:
    return values.to_numpy() if task == "multiclass" else values.to_numpy(dtype=np.float64)
