"""Puts bad files aside, each beside a JSON that says why; names follow from the file, so a restart completes."""

import json
import os
import re
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_assets.arrivals.inspect import Rejected
from ml_assets.arrivals.listing import Candidate
from ml_assets.arrivals.pattern import ArrivalPattern
from ml_assets.errors import SourceError
from ml_assets.interfaces import PipelinePath
from ml_assets.sources import LandingZone
from ml_assets.spec import PipelineSpec
from ml_assets.texts import visible_text

FOLDER = ".quarantine"
REASON_SUFFIX = ".reason.json"
_LONGEST_NAME = 120


class ChangedMeanwhileError(SourceError):
    """The file is another than the one that was found bad; nothing was moved."""


def quarantine(
    landing: LandingZone,
    spec: PipelineSpec,
    candidate: Candidate,
    rejected: Rejected,
    *,
    after_event: int = 0,
    now: datetime,
) -> str:
    """Move a bad file to `.quarantine/<team>/<pipeline>/` below the landing zone, and return its place there.

    The reason is written before the file is moved, under a name that follows from the file alone: a process killed
    between the two leaves the file where it is, and whoever looks next does both again under the same names.
    Of a symbolic link the link itself is moved, never what it leads to.

    Args:
        landing: Where relative URLs are below.
        spec: The pipeline's description.
        candidate: The file.
        rejected: Why it is bad.
        after_event: Number of its place's last event; 0 when there is none. A later one tells that a good file came.
        now: The instant, UTC.

    Raises:
        ChangedMeanwhileError: If another file took its place.
        SourceError: If the landing zone is read-only, or its store cannot move files.
    """
    folder = quarantine_folder(landing, spec)
    name = safe_name(candidate)
    told = _reason(landing, spec, candidate, rejected, now) | {"after_event": after_event}
    reason = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
    # JSON escapes the control characters of ASCII alone; a terminal obeys others too.
    text = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in reason).encode()
    try:
        place = landing.local_path(candidate.place)
        if place is None:
            return _move_remote(landing, candidate, f"{folder}/{name}", text)
        return str(_move(landing, place, candidate, Path(folder) / name, text))
    except (OSError, NotImplementedError) as error:
        raise SourceError(
            f"{_shown(candidate.place)} cannot be put into quarantine at {folder}: {error}. Let this process write and "
            f"rename there, or remove the file yourself. It is wrong since: {rejected.reason}"
        ) from error


def quarantine_folder(landing: LandingZone, spec: PipelineSpec) -> str:
    """Return the folder of a pipeline's quarantine: below the landing zone, or beside files elsewhere."""
    url = spec.source.url
    elsewhere = "://" in url or url.startswith("/")
    root = ArrivalPattern.of(spec).folder if elsewhere else landing.root
    local = landing.local_path(root if elsewhere else "")
    base = root.rstrip("/") if local is None else str(local.absolute())
    return f"{base}/{FOLDER}/{spec.team}/{spec.name}"


def safe_name(candidate: Candidate) -> str:
    """Return a plain file name that no other file and no other version of it has, such as `20130201T060000Z_…`."""
    try:
        stamp = datetime.fromtimestamp(candidate.mtime_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
    except (ValueError, OverflowError, OSError):
        stamp = "unknown"
    plain = re.sub(r"[^A-Za-z0-9._-]|\.\.+", "_", candidate.name)[-_LONGEST_NAME:]
    return f"{stamp}_{candidate.stamp:012x}_{plain}"


def _move(landing: LandingZone, place: Path, candidate: Candidate, target: Path, reason: bytes) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    base = target.parents[3]
    if not Path(os.path.realpath(target.parent)).is_relative_to(os.path.realpath(base)):
        raise SourceError(f"{target.parent} is a link out of {base}. Remove it: the quarantine is a folder.")
    _require_same(place, candidate)
    note = target.with_name(target.name + REASON_SUFFIX)
    _write_whole(note, reason)
    try:
        place.rename(target)
    except FileNotFoundError as error:
        if not os.path.lexists(target):  # else another process put it there, and the reason is its reason too
            note.unlink(missing_ok=True)
        raise ChangedMeanwhileError(f"{_shown(candidate.place)} is no longer there.") from error
    about = os.lstat(target)
    if (about.st_size, about.st_mtime_ns) != (candidate.size, candidate.mtime_ns):
        _put_back(target, place)
        note.unlink(missing_ok=True)
        raise ChangedMeanwhileError(f"{_shown(candidate.place)} was replaced while it was put into quarantine.")
    return target


def _require_same(place: Path, candidate: Candidate) -> None:
    try:
        about = os.lstat(place)
    except FileNotFoundError as error:
        raise ChangedMeanwhileError(f"{_shown(candidate.place)} is no longer there.") from error
    if (about.st_size, about.st_mtime_ns) != (candidate.size, candidate.mtime_ns):
        raise ChangedMeanwhileError(f"{_shown(candidate.place)} changed before it was put into quarantine.")


def _put_back(target: Path, place: Path) -> None:
    """Give a file its place back, unless a newer one has it, which then counts as if it had replaced it."""
    with suppress(FileExistsError):
        os.link(target, place, follow_symlinks=False)
    target.unlink()


def _write_whole(file: Path, content: bytes) -> None:
    temporary = file.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as sink:
            sink.write(content)
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _move_remote(landing: LandingZone, candidate: Candidate, target: str, reason: bytes) -> str:
    file_system, path = landing.locate(candidate.place)
    _, moved = landing.locate(target)
    file_system.makedirs(moved.rpartition("/")[0], exist_ok=True)
    file_system.pipe_file(moved + REASON_SUFFIX, reason)
    try:
        file_system.mv(path, moved)
    except FileNotFoundError as error:
        if not file_system.exists(moved):
            file_system.rm_file(moved + REASON_SUFFIX)
        raise ChangedMeanwhileError(f"{_shown(candidate.place)} is no longer there.") from error
    return str(file_system.unstrip_protocol(moved))


def _reason(
    landing: LandingZone, spec: PipelineSpec, candidate: Candidate, rejected: Rejected, now: datetime
) -> dict[str, Any]:
    path: PipelinePath = (spec.team, spec.name)
    return {
        "reason": rejected.reason,
        "kind": rejected.kind,
        "place": landing.resolve(candidate.place),
        "landed_as": visible_text(candidate.place),
        "pipeline": "/".join(path),
        "partition": rejected.partition,
        "size": candidate.size,
        "sha256": rejected.sha256,
        "quarantined_at": now.isoformat(),
        "details": dict(rejected.details),
        "expected": {
            "url": spec.source.url,
            "format": spec.source.format,
            "columns": {name: column.type for name, column in spec.source.columns.items()},
        },
    }


def _shown(place: str) -> str:
    return place.encode(errors="backslashreplace").decode()
