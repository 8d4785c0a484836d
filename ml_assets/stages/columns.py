"""The columns that every feature table has beside its features and label, and the local days they tell."""

from typing import TYPE_CHECKING

from ml_assets.arrow import compute_functions

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

ROW_ID, EVENT_TIME, LABEL_TIME = "row_id", "event_time", "label_time"
RESERVED = (ROW_ID, EVENT_TIME, LABEL_TIME)


def local_days(table: "pa.Table", timezone: str) -> "NDArray[np.datetime64]":
    """Return the local day of each row's event, datetime64[D], shape (n_rows,)."""
    import pyarrow as pa

    local = table[EVENT_TIME].cast(pa.timestamp("us", tz=timezone))
    return compute_functions().local_timestamp(local).to_numpy().astype("datetime64[D]")
