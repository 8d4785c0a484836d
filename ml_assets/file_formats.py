"""The formats that files arrive in, CSV and Parquet, read into the types that a pipeline declares."""

import io
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

from ml_assets.arrow import compute_functions
from ml_assets.errors import SourceError
from ml_assets.frames import arrow_type
from ml_assets.spec import ColumnSpec

if TYPE_CHECKING:
    import pyarrow as pa

MISSING_TEXT = ["", "NA", "NaN", "null"]
_VALUE_BYTES = 8
_MOST_COLUMNS, _HEADER_BYTES = 5000, 1 << 20
"""Arrow reads headers of this length, and ends the whole process when some MB of a million columns take all memory."""


def parse_table(
    file: IO[bytes], place: str, file_format: str, columns: Mapping[str, ColumnSpec], *, stored_in: str = "UTC"
) -> "pa.Table":
    """Read the declared columns of an open file; `place` names it in messages. See `read_table`."""
    import pyarrow as pa

    try:
        table = _read_csv(file, columns) if file_format == "csv" else _read_parquet(file, columns)
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError, OSError) as error:
        raise SourceError(f"{place} cannot be read as {file_format}: {error}") from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise SourceError(
            f"{place} lacks the declared columns {missing}; it has {sorted(table.column_names)}. "
            "Correct the file, or the columns in the pipeline's YAML."
        )
    repeated = [name for name in columns if table.column_names.count(name) > 1]
    if repeated:
        raise SourceError(
            f"{place} has the columns {repeated} more than once, so that it is not clear which one counts."
        )
    if table.num_rows == 0:
        raise SourceError(f"{place} has no rows. Land the complete file.")
    return _cast(table.select(list(columns)), columns, place=place, stored_in=stored_in)


def _read_csv(file: IO[bytes], columns: Mapping[str, ColumnSpec]) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import csv

    _require_narrow(file)
    # Timestamps are read as text: the same file may write them with or without an offset.
    types = {n: pa.string() if c.type == "timestamp" else arrow_type(c) for n, c in columns.items()}
    convert = csv.ConvertOptions(
        column_types=types,
        null_values=MISSING_TEXT,
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    try:
        return csv.read_csv(file, convert_options=convert)
    except pa.ArrowInvalid:
        file.seek(0)  # threads do not know row numbers: read once more without them, for the message
        return csv.read_csv(file, convert_options=convert, read_options=csv.ReadOptions(use_threads=False))


def _require_narrow(file: IO[bytes]) -> None:
    """Refuse a CSV file of too many columns before Arrow makes room for them; raises pyarrow.ArrowInvalid."""
    import csv

    import pyarrow as pa

    head = io.StringIO(file.read(_HEADER_BYTES).decode("latin-1"), newline="")
    file.seek(0)
    try:
        n_columns = len(next(csv.reader(head), ()))
    except csv.Error as error:
        raise pa.ArrowInvalid(f"its header line is none: {error}") from error
    if n_columns > _MOST_COLUMNS:
        raise pa.ArrowInvalid(f"its header line has {n_columns:,} columns, of at most {_MOST_COLUMNS:,}")


def _read_parquet(file: IO[bytes], columns: Mapping[str, ColumnSpec]) -> "pa.Table":
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    present = [name for name in columns if name in parquet.schema_arrow.names]
    return parquet.read(columns=present)


def unpacked_bytes(file: IO[bytes], columns: Mapping[str, ColumnSpec]) -> int:
    """Return about how much memory a Parquet file with the declared columns needs, from its footer alone.

    A column of one value is some bytes in the file however many rows it has. Text that repeats counts for too little.

    Raises:
        pyarrow.ArrowInvalid: If there is no such footer (or OSError).
    """
    import pyarrow.parquet as pq

    file.seek(0)
    about = pq.read_metadata(file)
    # Not by columns: asking for a damaged one ends the whole process (pyarrow 25).
    packed = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
    return max(packed, about.num_rows * len(columns) * _VALUE_BYTES)


def _cast(table: "pa.Table", columns: Mapping[str, ColumnSpec], *, place: str, stored_in: str) -> "pa.Table":
    import pyarrow as pa

    arrays = []
    for name, spec in columns.items():
        try:
            array = _cast_column(table[name], spec, stored_in)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SourceError(f"{place}: column {name!r} is not of the declared type {spec.type}: {error}") from error
        if array.null_count and not spec.nullable:
            raise SourceError(
                f"{place}: column {name!r} has {array.null_count} missing values and is declared `nullable: false`."
            )
        arrays.append(array)
    return pa.table(arrays, names=list(columns))


def _cast_column(array: "pa.ChunkedArray", spec: ColumnSpec, stored_in: str) -> "pa.ChunkedArray":
    import pyarrow as pa

    pc = compute_functions()

    target = arrow_type(spec)
    if spec.type != "timestamp":
        if pa.types.is_dictionary(array.type):
            array = array.cast(array.type.value_type)
        return array.cast(target)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        first = next((v.as_py() for v in array if v.is_valid), "")
        zoned = first.endswith("Z") or (":" in first and bool({first[-6:-5], first[-5:-4]} & {"+", "-"}))
        array = array.cast(target if zoned else pa.timestamp("us"))
    if pa.types.is_timestamp(array.type) and array.type.tz is None:
        array = pc.assume_timezone(array.cast(pa.timestamp("us")), stored_in)
    return array.cast(target)
