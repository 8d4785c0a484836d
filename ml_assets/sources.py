"""Reads arrived files as their pipeline declares them, and refuses what does not match."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from ml_assets.arrow import compute_functions
from ml_assets.errors import SourceError
from ml_assets.frames import arrow_type
from ml_assets.periods import Periods
from ml_assets.spec import ColumnSpec, SourceSpec

if TYPE_CHECKING:
    import pyarrow as pa

MISSING_TEXT = ["", "NA", "NaN", "null"]


@dataclass(frozen=True, kw_only=True)
class LandingZone:
    """Where files arrive: a folder or fsspec URL that relative source URLs are below.

    Attributes:
        root: Folder or URL, such as "landing" or "s3://bucket/landing".
        storage_options: Options of the fsspec filesystem; never shown.
    """

    root: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def resolve(self, url: str) -> str:
        """Return the full URL of a source's URL.

        Raises:
            SourceError: If a relative URL climbs out of the landing zone.
        """
        if "://" in url or url.startswith("/"):
            return url
        if ".." in url.split("/"):
            raise SourceError(f"Source URL {url!r} leaves the landing zone {self.root!r}; write it without '..'.")
        return f"{self.root.rstrip('/')}/{url}"

    def open(self, url: str) -> IO[bytes]:
        """Open a file for reading.

        Raises:
            SourceError: If there is no such file, with the place that was looked at.
        """
        import fsspec

        place = self.resolve(url)
        options = {} if place.startswith("/") or "://" not in place else dict(self.storage_options)
        try:
            filesystem, path = fsspec.core.url_to_fs(place, **options)
            return filesystem.open(path, "rb")
        except FileNotFoundError as error:
            raise SourceError(
                f"No file has arrived at {place}. Land it there, or correct `source.url` in the pipeline's YAML."
            ) from error

    def exists(self, url: str) -> bool:
        """Whether a file has arrived."""
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(self.resolve(url), **self.storage_options)
        return filesystem.exists(path)


def partition_url(source: SourceSpec, group: str | None, time: str) -> str:
    """Return the URL of one partition's file."""
    return source.url.replace("{time}", time).replace("{group}", group or "")


def read_table(
    landing: LandingZone,
    url: str,
    file_format: str,
    columns: Mapping[str, ColumnSpec],
    *,
    stored_in: str = "UTC",
) -> "pa.Table":
    """Read the declared columns of one file, in their declared types.

    Args:
        landing: Where relative URLs are below.
        url: File to read.
        file_format: "csv" (with a header line) or "parquet".
        columns: Declared columns.
        stored_in: IANA zone of timestamps without an offset; stored timestamps are UTC.

    Raises:
        SourceError: If the file is missing, empty, damaged, lacks a column, or holds a value of another type.
    """
    import pyarrow as pa

    place = landing.resolve(url)
    with landing.open(url) as file:
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
    if table.num_rows == 0:
        raise SourceError(f"{place} has no rows. Land the complete file.")
    return _cast(table.select(list(columns)), columns, place=place, stored_in=stored_in)


def check_rows(
    table: "pa.Table",
    source: SourceSpec,
    periods: Periods,
    *,
    group_column: str | None,
    group: str | None,
    time: str,
) -> None:
    """Refuse rows that are not this partition's: another group, another period, or a repeated row id.

    Raises:
        SourceError: With the count and an example.
    """
    pc = compute_functions()

    what = f"partition {time if group is None else f'{group}|{time}'}"
    if group_column is not None:
        strangers = pc.sum(pc.not_equal(table[group_column], group)).as_py() or 0
        if strangers:
            raise SourceError(f"{strangers} rows of {what} have another {group_column} than {group!r}.")
    start, end = periods.bounds(time)
    when = event_times(table, source)
    outside = pc.or_kleene(pc.less(when, start), pc.greater_equal(when, end))
    count = pc.sum(pc.fill_null(outside, True)).as_py() or 0
    if count:
        example = table[source.event_time.column].filter(pc.fill_null(outside, True))[0].as_py()
        raise SourceError(
            f"{count} of {table.num_rows} rows of {what} have an event time outside it, such as {example}; "
            f"expected [{start.isoformat()}, {end.isoformat()}), days of {periods.timezone}."
        )
    repeats = table.num_rows - table.group_by(list(source.row_id)).aggregate([]).num_rows
    if repeats:
        raise SourceError(
            f"{repeats} rows of {what} repeat the row id {list(source.row_id)}. Remove them, choose a row id that is "
            "unique, or say with `source.combine` how such rows become one."
        )


def combine_rows(table: "pa.Table", source: SourceSpec) -> "pa.Table":
    """Make rows with the same row id one, as `source.combine` declares, in the columns' declared types."""
    if not source.combine:
        return table
    rules = {"first": "first", "sum": "sum", "max": "max", "min": "min"}
    others = [c for c in source.columns if c not in source.row_id]
    plan = [(c, rules[source.combine.get(c, "first")]) for c in others]
    combined = table.group_by(list(source.row_id), use_threads=False).aggregate(plan)
    names = {f"{c}_{how}": c for c, how in plan}
    combined = combined.rename_columns([names.get(n, n) for n in combined.column_names])
    return combined.select(table.column_names).cast(table.schema)


def sort_rows(table: "pa.Table", source: SourceSpec) -> "pa.Table":
    """Order rows by event time and row id, so that the content does not depend on the order of arrival."""
    keys = dict.fromkeys([source.event_time.column, *source.row_id])
    return table.sort_by([(key, "ascending") for key in keys])


def event_times(table: "pa.Table", source: SourceSpec) -> "pa.ChunkedArray":
    """Return when each row happened, timestamp[us, UTC]; a date is its midnight in the source's time zone."""
    import pyarrow as pa

    pc = compute_functions()

    column = table[source.event_time.column]
    if pa.types.is_date(column.type):
        midnight = pc.assume_timezone(column.cast(pa.timestamp("us")), source.event_time.timezone)
        return midnight.cast(pa.timestamp("us", tz="UTC"))
    return column


def _read_csv(file: IO[bytes], columns: Mapping[str, ColumnSpec]) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import csv

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


def _read_parquet(file: IO[bytes], columns: Mapping[str, ColumnSpec]) -> "pa.Table":
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    present = [name for name in columns if name in parquet.schema_arrow.names]
    return parquet.read(columns=present)


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
