"""The `training_set` stage: the window's rows and their split, as references to feature rows, never as a copy."""

from typing import TYPE_CHECKING

import numpy as np

from ml_assets.errors import SplitError
from ml_assets.splitting import EXCLUDED, SPLIT_NAMES, WindowRows, split_rows
from ml_assets.stages.step import StageResult, Step

if TYPE_CHECKING:
    import pyarrow as pa


def run(step: Step) -> StageResult:
    """Choose and split the rows that a model for this period may learn from."""
    import pyarrow as pa

    length = None if step.spec.training.window == "expanding" else step.spec.training.window
    window = step.periods.window(step.time, length)
    if not window:
        raise SplitError(
            f"There is no period before {step.time}, so nothing to learn from. Models start one period after "
            f"partitions.start ({step.spec.partitions.start})."
        )
    tables = [step.read(("row_index",), key) for key in window]
    period = np.repeat(np.arange(len(window)), [t.num_rows for t in tables])
    rows = pa.concat_tables(tables)
    split = split_rows(
        window_rows(rows, period),
        n_periods=len(window),
        cutoff=step.periods.bounds(step.time)[0],
        training=step.spec.training,
    )
    chosen = rows.select(["partition", "data_version", "row"]).append_column(
        "split", pa.array(np.array(SPLIT_NAMES)[split])
    )
    chosen = chosen.filter(pa.array(split != EXCLUDED))
    stored = step.services.data_store.write(step.asset("training_set"), step.partition, chosen)
    counts = {f"{name}_rows": int(np.count_nonzero(split == code)) for code, name in enumerate(SPLIT_NAMES)}
    return StageResult(stored=stored, facts={"window": f"{window[0]} to {window[-1]}", **counts})


def window_rows(rows: "pa.Table", period: np.ndarray) -> WindowRows:
    """Return the columns of a row index in the form that splitting takes."""
    return WindowRows(
        period=period,
        day=rows["day"].to_numpy().astype("datetime64[D]"),
        event_time=_utc(rows, "event_time"),
        label_time=_utc(rows, "label_time"),
        labelled=rows["labelled"].to_numpy(),
    )


def _utc(rows: "pa.Table", column: str) -> np.ndarray:
    import pyarrow as pa

    return rows[column].cast(pa.timestamp("us")).to_numpy().astype("datetime64[us]")
