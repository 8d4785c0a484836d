"""Lists the files of a pattern's folders with their sizes and times, on a disk or in a remote store."""

import os
import stat
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ml_assets.arrivals.pattern import ArrivalPattern
from ml_assets.sources import LandingZone

FileKind = Literal["file", "link", "other"]
"""link: a symbolic link; other: a device, a socket or a named pipe."""


class Listed(NamedTuple):
    """One file as listed; a plain tuple, since there may be 100,000 of them.

    Attributes:
        name: Path below the pattern's folder.
        size: In bytes.
        mtime_ns: When it was written last, in nanoseconds since 1970.
        version: Text that changes with each rewrite: its times and number, or what a store says of an object.
        kind: What it is.
    """

    name: str
    size: int
    mtime_ns: int
    version: str
    kind: FileKind


def list_local(root: Path, pattern: ArrivalPattern) -> tuple[list[Listed], dict[str, int]]:
    """Return the pattern's files on a disk, and folder → modification time before it was read, in nanoseconds.

    Links to folders are not followed, and hidden folders, such as the quarantine, are not entered.

    Raises:
        OSError: If a folder that exists cannot be read.
    """
    files: list[Listed] = []
    folders: dict[str, int] = {}
    waiting = [("", 1)]
    while waiting:
        below, depth = waiting.pop()
        changed = modified_ns(root, below)
        if changed is None and below:
            continue  # removed since its parent was read
        folders[below] = changed or 0
        try:
            entries = os.scandir(root / below)
        except (FileNotFoundError, NotADirectoryError):
            continue
        start = f"{below}/" if below else ""
        with entries:
            if depth < len(pattern.segments):
                waiting += [
                    (start + entry.name, depth + 1)
                    for entry in entries
                    if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
                ]
            else:
                files += _files(entries, start, pattern)
    return files, folders


def _files(entries: Any, start: str, pattern: ArrivalPattern) -> list[Listed]:
    found: list[Listed] = []
    is_own, others = pattern.is_own, pattern.others
    for entry in entries:
        if not is_own(entry.name):
            continue
        name = start + entry.name
        if name in others:
            continue
        try:
            about = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # deleted since the folder was read
        if (listed := listed_of(name, about)) is not None:
            found.append(listed)
    return found


def listed_of(name: str, about: os.stat_result) -> Listed | None:
    """Return a file from what `lstat` says of it, or None for a folder."""
    mode = about.st_mode
    if stat.S_ISDIR(mode):
        return None
    kind: FileKind = "file" if stat.S_ISREG(mode) else "link" if stat.S_ISLNK(mode) else "other"
    version = f"{about.st_mtime_ns} {about.st_ctime_ns} {about.st_ino}"
    return Listed(name, about.st_size, about.st_mtime_ns, version, kind)


def modified_ns(root: Path, below: str) -> int | None:
    """Return when a folder's entries changed last, or None when there is no such folder."""
    try:
        return os.stat(root / below).st_mtime_ns  # noqa: PTH116 - as cheap as it can be
    except (FileNotFoundError, NotADirectoryError):
        return None


def list_remote(landing: LandingZone, pattern: ArrivalPattern) -> list[Listed]:
    """Return the pattern's files in a remote store, folder by folder.

    Raises:
        OSError: If the store does not answer.
    """
    file_system, root = landing.locate(pattern.folder)
    root = root.rstrip("/")
    files: list[Listed] = []
    waiting = [(root, 1)]
    while waiting:
        folder, depth = waiting.pop()
        file_system.invalidate_cache(folder)
        try:
            entries = file_system.ls(folder, detail=True)
        except FileNotFoundError:
            continue
        for entry in entries:
            path = entry["name"].rstrip("/")
            name = path.removeprefix(root).lstrip("/")
            own = path.rpartition("/")[2]
            if entry["type"] == "directory":
                if depth < len(pattern.segments) and path != folder.rstrip("/") and not own.startswith("."):
                    waiting.append((path, depth + 1))
            elif depth == len(pattern.segments) and pattern.is_own(own) and name not in pattern.others:
                files.append(remote_listed(name, entry))
    return files


def remote_listed(name: str, entry: dict[str, Any]) -> Listed:
    """Return an object from what fsspec says of it; stores call its time by different names."""
    times = (entry.get(key) for key in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"))
    mtime_ns = next((_nanoseconds(time) for time in times if time is not None), 0)
    tag = entry.get("ETag") or entry.get("etag") or entry.get("generation") or ""
    return Listed(name, int(entry.get("size") or 0), mtime_ns, f"{mtime_ns} {tag}", "file")


def _nanoseconds(time: Any) -> int:
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    return int((time.timestamp() if isinstance(time, datetime) else float(time)) * 1e9)
