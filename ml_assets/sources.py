"""Reads arrived files as their pipeline declares them, and refuses what does not match."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from ml_assets.arrow import compute_functions
from ml_assets.errors import SourceError
from ml_assets.file_formats import parse_table
from ml_assets.periods import Periods
from ml_assets.spec import ColumnSpec, SourceSpec

if TYPE_CHECKING:
    import pyarrow as pa
    from fsspec import AbstractFileSystem

_MOST_IN_MEMORY = 64_000_000


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

    def local_path(self, url: str) -> Path | None:
        """Return the path of a URL on a disk, or None when it is in a remote store.

        Raises:
            SourceError: As `resolve`.
        """
        place = self.resolve(url).removeprefix("file://")
        return None if "://" in place else Path(place)

    def locate(self, url: str) -> tuple["AbstractFileSystem", str]:
        """Return the file system of a URL, and the path in it; raises SourceError as `resolve`."""
        import fsspec

        place = self.resolve(url)
        options = {} if place.startswith("/") or "://" not in place else dict(self.storage_options)
        return fsspec.core.url_to_fs(place, **options)

    def target(self, url: str) -> Path | None:
        """Return where a file on a disk really is, links followed, or None in a remote store.

        Raises:
            SourceError: If a link leads out of the landing zone (of an absolute URL: out of the file's folder).
        """
        place = self.local_path(url)
        if place is None or not place.is_symlink():
            return place
        elsewhere = Path(url).is_absolute() or "://" in url
        root = place.parent if elsewhere else Path(self.root.removeprefix("file://"))
        real = Path(os.path.realpath(place))
        if not real.is_relative_to(os.path.realpath(root)):
            allowed = "its folder" if elsewhere else "the landing zone"
            raise SourceError(f"{url} is a link that leads outside of {allowed}. Land the file itself.")
        return real

    def open(self, url: str) -> IO[bytes]:
        """Open a file for reading.

        Raises:
            SourceError: If there is no such file, with the place that was looked at, or it is a link that leads out.
        """
        place = self.resolve(url)
        try:
            real = self.target(url)
            if real is not None:
                return open(real, "rb", opener=_open_file_itself)
            file_system, path = self.locate(url)
            return cast("IO[bytes]", file_system.open(path, "rb"))
        except FileNotFoundError as error:
            raise SourceError(
                f"No file has arrived at {place}. Land it there, or correct `source.url` in the pipeline's YAML."
            ) from error
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise SourceError(f"A link took the place of {place} while it was opened. Land the file itself.") from error

    def exists(self, url: str) -> bool:
        """Whether a file has arrived."""
        file_system, path = self.locate(url)
        return file_system.exists(path)


def _open_file_itself(path: str, flags: int) -> int:
    """Open without following a link that took the file's place meanwhile, and without waiting for a pipe's writer."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """The bytes that a partition was made of.

    Attributes:
        url: Full URL of the file.
        size: In bytes.
        sha256: Digest of the bytes, 64 hexadecimal digits.
    """

    url: str
    size: int
    sha256: str


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
    with landing.open(url) as file:
        return parse_table(file, landing.resolve(url), file_format, columns, stored_in=stored_in)


def read_rows(landing: LandingZone, url: str, source: SourceSpec) -> "tuple[pa.Table, SourceFile]":
    """Read one file as its pipeline declares it, and digest the bytes that were parsed.

    The file is opened once: one that takes its place meanwhile is not seen.

    Raises:
        SourceError: As `read_table`, and if the file was written to while it was read.
    """
    place = landing.resolve(url)
    with open_whole(landing, url) as (file, digest):
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        table = parse_table(file, place, source.format, source.columns, stored_in=source.event_time.stored_in)
        require_same(file, place, digest)
    return table, SourceFile(url=place, size=size, sha256=digest)


@contextmanager
def open_whole(landing: LandingZone, url: str) -> "Iterator[tuple[IO[bytes], str]]":
    """Open a file and digest all of its bytes; a remote one is copied once, to memory or, when large, to the disk.

    Yields:
        The file at its start, and its SHA-256 in 64 hexadecimal digits.
    """
    with landing.open(url) as file:
        if landing.local_path(url) is not None:
            digest = _stream_digest(file)
            file.seek(0)
            yield file, digest
            return
        with tempfile.SpooledTemporaryFile(max_size=_MOST_IN_MEMORY) as copy:
            digest = _stream_digest(file, copy)
            copy.seek(0)
            yield copy, digest  # pyright: ignore[reportReturnType] - it has all methods of a binary file


def require_same(file: IO[bytes], place: str, digest: str) -> None:
    """Refuse a file whose bytes are others than before it was parsed; a time alone may stay the same in a fast write.

    Raises:
        SourceError: If it was written to.
    """
    file.seek(0)
    if _stream_digest(file) != digest:
        raise SourceError(
            f"{place} was written to while it was read. Write such files under another name, then rename them."
        )


def _stream_digest(file: IO[bytes], copy: IO[bytes] | None = None) -> str:
    """Return the SHA-256 of what is left of a file, read piece by piece, and copied on the way."""
    hasher = hashlib.sha256()
    while piece := file.read(1 << 20):
        hasher.update(piece)
        if copy is not None:
            copy.write(piece)
    return hasher.hexdigest()


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
        others = pc.fill_null(pc.not_equal(table[group_column], group), True)
        strangers = pc.sum(others).as_py() or 0
        if strangers:
            example = table[group_column].filter(others)[0].as_py()
            raise SourceError(
                f"{strangers} of {table.num_rows} rows of {what} have another {group_column} than {group!r}, such as "
                f"{example!r}. Land each group's rows in the file of its name."
            )
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
