"""Decides what an arrived file is: complete and right, not complete yet, known already, or wrong."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any

from ml_assets.arrivals.completeness import PATIENCE, ends_a_line, is_fresh, missing_end, other_format
from ml_assets.arrivals.listing import Candidate
from ml_assets.arrivals.pattern import ArrivalPattern, Misnamed
from ml_assets.arrivals.settings import ArrivalSettings
from ml_assets.arrivals.usual_size import UsualSize
from ml_assets.errors import SourceError
from ml_assets.file_formats import parse_table, unpacked_bytes
from ml_assets.periods import split_partition
from ml_assets.sources import (
    LandingZone,
    check_rows,
    combine_rows,
    open_whole,
    require_same,
)
from ml_assets.spec import PipelineSpec


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A file that its partition can be made of.

    Attributes:
        partition: Data partition that it is.
        place: Its URL, in the form of `source.url`.
        size: In bytes.
        sha256: Digest of the bytes that were parsed.
        n_rows: Rows, after `source.combine`.
    """

    partition: str
    place: str
    size: int
    sha256: str
    n_rows: int


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """A file whose bytes were dealt with before, under the same name."""

    partition: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A file that cannot be judged yet; it comes again."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Gone:
    """A file that is no longer there, or is none of the pipeline's."""


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A file that no partition can be made of.

    Attributes:
        reason: What is wrong, and what was expected.
        kind: One word for programs: misnamed, link, special, too_large, empty, truncated or unreadable.
        partition: The partition that its name means, or None.
        sha256: Digest of its bytes, or None when they were not read.
        details: Further facts, JSON-ready.
    """

    reason: str
    kind: str
    partition: str | None = None
    sha256: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


Inspection = Accepted | Unchanged | Waiting | Gone | Rejected


def inspect(
    landing: LandingZone,
    spec: PipelineSpec,
    candidate: Candidate,
    *,
    settings: ArrivalSettings,
    usual_size: Callable[[str], UsualSize | None],
    now: datetime,
    is_known: Callable[[str, str], bool] = lambda partition, sha256: False,
    pattern: ArrivalPattern | None = None,
) -> Inspection:
    """Return what a file is; reads it last, and only when all that can be told without reading is right.

    Args:
        landing: Where relative URLs are below.
        spec: The pipeline's description.
        candidate: The file as it was listed.
        settings: Limits of the policy.
        usual_size: Returns what is usual for the file of a partition, or None when that is not known.
        now: The instant, UTC.
        is_known: Whether bytes, by partition and SHA-256, were dealt with before; they are then not parsed.
        pattern: The pipeline's pattern, when the caller has it already.
    """
    pattern = pattern or ArrivalPattern.of(spec)
    found = pattern.match(candidate.name)
    if found is None:
        return Gone()
    if is_fresh(candidate, settings.settle, now):
        seconds = settings.settle.total_seconds()
        return Waiting(reason=f"{candidate.place} was written to less than {seconds:g} s ago; it may not be complete.")
    if isinstance(found, Misnamed):
        return Rejected(reason=found.reason, kind="misnamed")
    try:
        wrong, size = _wrong_kind(landing, candidate, found)
        if wrong is None:
            wrong = _wrong_size(size, found, settings, usual_size(found))
        if (wrong is None or wrong.kind == "empty") and is_fresh(candidate, PATIENCE, now):
            growing = _may_grow(landing, candidate, spec)
            if growing is not None:
                return growing
        return wrong or _read(landing, spec, candidate, found, is_known, settings.max_bytes)
    except FileNotFoundError:
        return Gone()
    except OSError as error:
        return Waiting(reason=f"{candidate.place} cannot be read now: {error}")


def _may_grow(landing: LandingZone, candidate: Candidate, spec: PipelineSpec) -> Waiting | None:
    """Return that a file has no end yet; told by its last bytes, for it is looked at again and again."""
    try:
        missing = missing_end(landing, candidate, spec.source.format)
    except SourceError:
        return None  # reading it says what is wrong
    if missing is None:
        return None
    rest = PATIENCE.total_seconds()
    return Waiting(reason=f"{candidate.place} {missing}; it counts as cut once it was unchanged for {rest:g} s.")


def _wrong_kind(landing: LandingZone, candidate: Candidate, partition: str) -> tuple[Rejected | None, int]:
    """Return what is wrong with a file that is no regular one, and the size of the file that it leads to."""
    if candidate.kind == "other":
        reason = f"{candidate.place} is a device, a socket or a pipe. Land a regular file."
        return Rejected(reason=reason, kind="special", partition=partition), 0
    if candidate.kind == "file":
        return None, candidate.size
    try:
        real = landing.target(candidate.place)
    except SourceError as error:
        details = {"target": os.path.realpath(str(landing.local_path(candidate.place)))}
        return Rejected(reason=str(error), kind="link", partition=partition, details=details), 0
    link = landing.local_path(candidate.place)
    if real is None or link is None or not real.exists():
        if link is not None and not link.is_symlink():
            raise FileNotFoundError(candidate.place)
        reason = f"{candidate.place} is a link to a file that does not exist. Land the file itself."
        return Rejected(reason=reason, kind="link", partition=partition), 0
    if not real.is_file():
        reason = f"{candidate.place} is a link to {real}, which is no regular file. Land the file itself."
        return Rejected(reason=reason, kind="link", partition=partition), 0
    return None, real.stat().st_size


def _wrong_size(size: int, partition: str, settings: ArrivalSettings, usual: UsualSize | None) -> Rejected | None:
    if size == 0:
        return Rejected(reason="The file is empty. Land the complete file.", kind="empty", partition=partition)
    if size > settings.max_bytes:
        reason = (
            f"The file has {size:,} bytes; the policy's arrivals.max_mb allows {settings.max_bytes:,}. "
            "Land a smaller one, or raise the limit."
        )
        return Rejected(reason=reason, kind="too_large", partition=partition)
    if usual is not None and size > settings.size_ratio * usual.n_bytes:
        reason = (
            f"The file has {size:,} bytes, {size / usual.n_bytes:.1f} times {usual.of} ({usual.n_bytes:,}); the "
            f"policy's arrivals.size_ratio allows {settings.size_ratio:g} times. If it is right, raise the ratio and "
            "land it again."
        )
        details = {"size": size, "usual_size": usual.n_bytes}
        return Rejected(reason=reason, kind="too_large", partition=partition, details=details)
    return None


def _read(
    landing: LandingZone,
    spec: PipelineSpec,
    candidate: Candidate,
    partition: str,
    is_known: Callable[[str, str], bool],
    max_bytes: int,
) -> Inspection:
    """Return what the file's bytes are; they are read through one open file, so that no other one gets between.

    A file that is longer now than it was listed is left for the next look, so no size limit is passed by.
    """
    source, place = spec.source, candidate.place
    sha256: str | None = None
    try:
        if (changed := _changed(landing, candidate)) is not None:
            return changed
        with open_whole(landing, place) as (file, sha256):
            if is_known(partition, sha256):
                return Unchanged(partition=partition, sha256=sha256)
            if source.format == "csv" and (other := other_format(file)) is not None:
                reason = f"{place} begins like {other}; expected CSV in UTF-8. Unpack or convert it, and land that."
                return Rejected(reason=reason, kind="unreadable", partition=partition, sha256=sha256)
            if source.format == "csv" and not ends_a_line(file):
                reason = (
                    f"{place} does not end with a line end: its last line is cut. Land the complete file; the last "
                    "line of a CSV file ends with a line end too."
                )
                return Rejected(reason=reason, kind="truncated", partition=partition, sha256=sha256)
            if source.format == "parquet" and (unpacked := _unpacked(file, spec)) > max_bytes:
                reason = (
                    f"{place} unpacks to about {unpacked:,} bytes; the policy's arrivals.max_mb allows {max_bytes:,}. "
                    "Land a smaller one, or raise the limit."
                )
                return Rejected(reason=reason, kind="too_large", partition=partition, sha256=sha256)
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            n_rows = _checked_rows(file, place, spec, partition)
            try:
                require_same(file, place, sha256)
            except SourceError as error:
                return Waiting(reason=str(error))
    except SourceError as error:
        if (changed := _changed(landing, candidate)) is not None:
            return changed
        return Rejected(reason=str(error), kind="unreadable", partition=partition, sha256=sha256)
    return Accepted(partition=partition, place=place, size=size, sha256=sha256, n_rows=n_rows)


def _changed(landing: LandingZone, candidate: Candidate) -> Waiting | Gone | None:
    """Return that a file is gone, or another than the one that was listed."""
    path = landing.local_path(candidate.place)
    if path is None:
        file_system, remote = landing.locate(candidate.place)
        file_system.invalidate_cache(remote.rpartition("/")[0])
        if not file_system.exists(remote):
            return Gone()
        same = int(file_system.size(remote) or 0) == candidate.size
    else:
        try:
            about = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return Gone()
        same = (about.st_size, about.st_mtime_ns) == (candidate.size, candidate.mtime_ns)
    return None if same else Waiting(reason=f"{candidate.place} changed while it was looked at.")


def _checked_rows(file: IO[bytes], place: str, spec: PipelineSpec, partition: str) -> int:
    """Return how many rows the file gives its partition.

    Raises:
        SourceError: If it cannot be parsed, or rows are not the partition's.
    """
    import pyarrow as pa

    source, group_spec = spec.source, spec.partitions.group
    group, time = split_partition(partition)
    try:
        table = parse_table(file, place, source.format, source.columns, stored_in=source.event_time.stored_in)
        table = combine_rows(table, source)
        check_rows(
            table,
            source,
            ArrivalPattern.of(spec).periods,
            group_column=None if group_spec is None else group_spec.column,
            group=group,
            time=time,
        )
    except SourceError:
        raise
    except Exception as error:  # whatever a file makes a parser do, it must not keep its neighbours waiting
        if isinstance(error, OSError) and not isinstance(error, pa.ArrowException):
            raise  # the disk, not the file
        raise SourceError(f"{place} cannot be read as {source.format}: {error}") from error
    return table.num_rows


def _unpacked(file: IO[bytes], spec: PipelineSpec) -> int:
    """Return how large a Parquet file is when it is read; 0 for what is none, which parsing tells better."""
    try:
        return unpacked_bytes(file, spec.source.columns)
    except Exception:  # noqa: BLE001 - a damaged footer may raise anything
        return 0
