"""Arrow tables to pandas frames whose dtypes depend on the declared type alone, never on a partition's values."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ml_assets.spec import ColumnSpec

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def arrow_type(column: ColumnSpec, timezone: str = "UTC") -> "pa.DataType":
    """Return the Arrow type that a declared column is stored with; timestamps are microseconds in UTC."""
    import pyarrow as pa

    if column.type == "timestamp":
        return pa.timestamp("us", tz=timezone)
    return {"string": pa.string(), "date": pa.date32(), "bool": pa.bool_()}.get(column.type) or pa.type_for_alias(
        column.type
    )


def to_frame(table: "pa.Table", declared: Mapping[str, ColumnSpec]) -> "pd.DataFrame":
    """Return a frame in which a nullable whole number is always float64 and a nullable bool always boolean.

    Plain conversion would make `int64` of a partition without missing values and `float64` of one with them,
    so that a feature would change its dtype from month to month.
    """
    import pandas as pd
    import pyarrow as pa

    frame = table.to_pandas(date_as_object=False)
    for field in table.schema:
        spec = declared.get(field.name)
        nullable = spec is None or spec.nullable
        if pa.types.is_integer(field.type) and spec is not None and nullable:
            frame[field.name] = frame[field.name].astype("float64")
        elif pa.types.is_boolean(field.type) and nullable:
            frame[field.name] = frame[field.name].astype(pd.BooleanDtype())
        elif pa.types.is_date(field.type):
            frame[field.name] = frame[field.name].astype("datetime64[us]")
    return frame


def to_arrow(values: "pd.Series") -> "pa.Array":
    """Return a column as Arrow: plain strings, and times in microseconds of UTC, whatever pandas used in memory."""
    import pandas as pd
    import pyarrow as pa

    if isinstance(values.dtype, pd.DatetimeTZDtype):
        utc = values.dt.tz_convert("UTC").dt.tz_localize(None)
        return pa.array(utc.to_numpy(), from_pandas=True).cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
    array = pa.Array.from_pandas(values)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = array.type
    if pa.types.is_dictionary(kind):
        array, kind = array.dictionary_decode(), kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.string())
    return array.cast(pa.timestamp("us")) if pa.types.is_timestamp(kind) else array
