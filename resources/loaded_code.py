"""Tells whether the code that this process has imported is still what lies on disk."""

import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

_INSTALLED = ("site-packages", "dist-packages")
_CLOCK_STEP_NS = 20_000_000
"""Files are stamped with a clock that goes in steps of some milliseconds, so a stamp may lie a little before."""

Mark = tuple[int, int] | None
"""Time of the last change in nanoseconds and size in bytes; None when the file is not there."""


class LoadedCode:
    """The files behind the modules of this process, as they were when it imported them.

    Modules outside of `site-packages` are watched file by file. What is installed is watched through its
    folder, which changes whenever a distribution is added, removed or replaced; an edit by hand inside of
    `site-packages` is not seen.

    Args:
        marks: Each watched path and how it was.
        since_ns: When the first of the modules was imported, in nanoseconds since the epoch.
        until_ns: When the last one was.
    """

    def __init__(self, marks: Mapping[str, Mark], *, since_ns: int, until_ns: int) -> None:
        self._marks = dict(marks)
        self._since_ns = since_ns
        self._until_ns = until_ns

    @classmethod
    def remember(cls, since_ns: int) -> Self:
        """Take note of all that is imported now; `since_ns` is when this process began to import."""
        return cls({path: _mark(path) for path in _watched()}, since_ns=since_ns, until_ns=time.time_ns())

    def changed(self) -> list[str]:
        """Return the watched paths that differ from what was imported, sorted.

        A file written while the imports went on counts as changed: it may have been read before or after.
        """
        return sorted(
            path for path, mark in self._marks.items() if self._changed_meanwhile(mark) or _mark(path) != mark
        )

    def _changed_meanwhile(self, mark: Mark) -> bool:
        return mark is None or self._since_ns - _CLOCK_STEP_NS <= mark[0] <= self._until_ns


def _watched() -> Iterator[str]:
    yield from {path for path in sys.path if Path(path).name in _INSTALLED and Path(path).is_dir()}
    standard = sysconfig.get_path("stdlib")
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not file.startswith(standard) and not _is_installed(file):
            yield str(Path(file).absolute())


def _is_installed(file: str) -> bool:
    return any(f"/{folder}/" in file for folder in _INSTALLED)


def _mark(path: str) -> Mark:
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    return (found.st_mtime_ns, found.st_size)
