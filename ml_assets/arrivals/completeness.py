"""Tells from a file's times and from its first and last bytes whether it is complete, and of the declared format."""

import os
from datetime import datetime, timedelta
from typing import IO

from ml_assets.arrivals.listing import Candidate
from ml_assets.sources import LandingZone

CLOCK_SKEW = timedelta(seconds=60)
"""A file from further in the future has a wrong time: waiting until then would be waiting forever."""
PATIENCE = timedelta(seconds=15)
"""How long a file whose end is missing may rest before it counts as cut: its writer may only have paused."""

_BEGINNINGS = {
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a zip archive, such as an Excel workbook",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
_PARQUET_END = b"PAR1"


def is_fresh(candidate: Candidate, rest: timedelta, now: datetime) -> bool:
    """Whether a file was written to less than `rest` ago, by comparison of its own time with ours."""
    age = timedelta(seconds=now.timestamp() - candidate.mtime_ns / 1e9)
    return -CLOCK_SKEW <= age < rest


def missing_end(landing: LandingZone, candidate: Candidate, file_format: str) -> str | None:
    """Return what is missing at the end of a file on a disk, or None; a store has objects as a whole.

    Raises:
        OSError: If the file cannot be read.
        SourceError: If it is a link that leads out of the landing zone, or gone.
    """
    if landing.local_path(candidate.place) is None:
        return None
    with landing.open(candidate.place) as file:
        if file.seek(0, os.SEEK_END) == 0:
            return "is empty"
        if file_format == "csv" and not ends_a_line(file):
            return "does not end with a line end"
        if file_format == "parquet" and _last(file, len(_PARQUET_END)) != _PARQUET_END:
            return "has no footer"
    return None


def ends_a_line(file: IO[bytes]) -> bool:
    """Whether a file's last byte ends a line."""
    return _last(file, 1) in (b"\n", b"\r")


def other_format(file: IO[bytes]) -> str | None:
    """Return in words what a file that should be text begins like; None when nothing is known against it."""
    file.seek(0)
    beginning = file.read(4)
    return next((words for magic, words in _BEGINNINGS.items() if beginning.startswith(magic)), None)


def _last(file: IO[bytes], count: int) -> bytes:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - count))
    return file.read(count)
