"""Computes the profile of an Arrow table in one pass over its columns."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ml_assets.profiles.category import CategoryProfile, category_block
from ml_assets.profiles.numeric import NumericProfile, numeric_block
from ml_assets.profiles.profile import ColumnProfile, Profile

if TYPE_CHECKING:
    import pyarrow as pa

_UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_SECONDS_PER_DAY = 86_400


def profile_table(table: "pa.Table", columns: Sequence[str], days: NDArray[np.datetime64]) -> Profile:
    """Return the profile of some columns of a table; the same rows give the same profile.

    Numbers are numeric, whatever a pipeline declares them as; texts, booleans and dictionaries of texts are
    categories. Timestamps and dates are numeric seconds since 1970 (UTC), times of day and durations are seconds.
    Integers beyond 2**53 are rounded.

    Args:
        table: Any number of rows.
        columns: Names of columns that `can_profile` their type.
        days: Local day of each row, datetime64[D], shape (n_rows,).

    Raises:
        ValueError: If a column's type has no profile, or there is not one day for each row.
    """
    if len(days) != table.num_rows:
        raise ValueError(f"there are {len(days)} days for {table.num_rows} rows; expected one for each row")
    unordered = len(days) > 0 and bool((days[1:] < days[:-1]).any())
    if unordered:
        order = np.argsort(days, kind="stable")
        table, days = table.select(list(columns)).take(order), days[order]
    distinct, starts = np.unique(days.astype("datetime64[D]"), return_index=True)
    found = {name: _profile_column(name, table.column(name), distinct, starts) for name in columns}
    return Profile(n_rows=table.num_rows, days=distinct, columns=found)


def can_profile(kind: "pa.DataType") -> bool:
    """Return whether columns of an Arrow type have a profile: all but lists, structs, binary and the like."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_time = pa.types.is_temporal(kind) and not pa.types.is_interval(kind)
    return _is_category(kind) or _is_number(kind) or is_time


def _is_category(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    is_a = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    return any(check(kind) for check in is_a)


def _profile_column(
    name: str, column: "pa.ChunkedArray", days: NDArray[np.datetime64], starts: NDArray[np.intp]
) -> ColumnProfile:
    import pyarrow as pa

    if not can_profile(column.type):
        raise ValueError(
            f"column {name!r} has type {column.type}, of which no profile can be made; expected numbers, texts, "
            "booleans or times: leave the column out"
        )
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_category(column.type):
        texts = column.cast(pa.large_string()).combine_chunks()
        return CategoryProfile(blocks=(category_block(texts, days, starts),) if len(days) else ())
    null = column.is_null().to_numpy() if column.null_count else np.zeros(len(column), dtype=bool)
    return NumericProfile(blocks=(numeric_block(_numbers(column), null, days, starts),) if len(days) else ())


def _numbers(column: "pa.ChunkedArray") -> NDArray[np.float64]:
    """Return a column as float64, times in seconds, NaN where null."""
    import pyarrow as pa

    kind, divisor = column.type, 1.0
    if pa.types.is_date32(kind):
        column, divisor = column.cast(pa.int32()), 1 / _SECONDS_PER_DAY
    elif pa.types.is_date64(kind):
        column, divisor = column.cast(pa.int64()), 1e3
    elif pa.types.is_temporal(kind):
        column = column.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64())
        divisor = float(_UNITS_PER_SECOND[kind.unit])
    values = column.cast(pa.float64(), safe=False).to_numpy()
    return values if divisor == 1.0 else values / divisor
