"""Finds new and changed files in a folder of any size, with a cursor of a few kilobytes that loses nothing.

The cursor keeps no names. Files are dealt into at most 1,024 buckets by a 48-bit fingerprint of name, size and times,
and the cursor has each bucket's exclusive-or. An unchanged bucket has nothing new. In a changed one, one or two new
files are recognized since the difference is their fingerprint; otherwise all files of the bucket come as candidates
again, and whoever receives them knows most of them. No clock is trusted, so late files and old times are found.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Self

from ml_assets.arrivals.folders import FileKind, Listed, list_local, list_remote, modified_ns
from ml_assets.arrivals.pattern import ArrivalPattern
from ml_assets.sources import LandingZone

FULL_LOOK = timedelta(seconds=60)
"""A rewrite in place does not change its folder, so all files are looked at this often."""

MOST_BUCKETS = 1024
_BYTES = 6
_MOST_DONE = 300
_MOST_FOLDER_BYTES = 5000
_FEW_REMOTE = 1000
_JUST_NOW = timedelta(seconds=2)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A file that is new, or changed, or may be.

    Attributes:
        place: Its URL, in the form of `source.url`.
        name: Its path below the pattern's folder.
        size: In bytes.
        mtime_ns: When it was written last, by its own file system, in nanoseconds.
        kind: What it is.
        stamp: Fingerprint of name, size and times: 48 bits.
    """

    place: str
    name: str
    size: int
    mtime_ns: int
    kind: FileKind
    stamp: int


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """What was seen so far; its JSON has less than 20 kB whatever the number of files.

    Attributes:
        buckets: Exclusive-or of the fingerprints of the files dealt with, by bucket; a power of 2 of them.
        done: Fingerprints of files dealt with in buckets that have others, as far as there is room.
        folders: Watched folder → its modification time in nanoseconds.
        looked_at: When all files were looked at last, or None.
        pending: Whether there are files that were not dealt with.
        n_files: Files at the last look.
    """

    buckets: tuple[int, ...] = (0,) * 16
    done: frozenset[int] = frozenset()
    folders: dict[str, int] = field(default_factory=dict)
    looked_at: datetime | None = None
    pending: bool = False
    n_files: int = 0

    @classmethod
    def read(cls, text: str | None) -> Self:
        """Return the cursor that `text` gave; an empty one for None and for what is no cursor of this release."""
        try:
            read = json.loads(text or "")
            raw = b64decode(read["buckets"])
            looked = read["looked_at"]
            return cls(
                buckets=tuple(int.from_bytes(raw[i : i + _BYTES]) for i in range(0, len(raw), _BYTES)) or (0,) * 16,
                done=frozenset(_numbers(read["done"])),
                folders={str(name): int(changed) for name, changed in read["folders"].items()},
                looked_at=None if looked is None else datetime.fromisoformat(looked),
                pending=bool(read["pending"]),
                n_files=int(read["n_files"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()  # everything is looked at once more: files known to the inbox are recognized there

    @property
    def text(self) -> str:
        """Return the cursor as JSON."""
        fields: dict[str, Any] = {
            "buckets": _packed(self.buckets),
            "done": _packed(sorted(self.done)),
            "folders": self.folders,
            "looked_at": None if self.looked_at is None else self.looked_at.isoformat(),
            "pending": self.pending,
            "n_files": self.n_files,
        }
        return json.dumps(fields, separators=(",", ":"))

    def after(self, scan: "Scan", dealt_with: Collection[Candidate]) -> "Cursor":
        """Return the cursor after a scan; candidates that were not dealt with come again at the next one."""
        if scan.look is None:
            return self
        look, dealt = scan.look, {candidate.stamp for candidate in dealt_with}
        left = [c.stamp for c in scan.candidates if c.stamp not in dealt]
        buckets = list(look.buckets)
        open_buckets: dict[int, int] = {}
        for stamp in left:
            index = stamp % len(buckets)
            buckets[index] ^= stamp
            open_buckets[index] = open_buckets.get(index, 0) + 1
        unclear = {index for index, count in open_buckets.items() if count > 2}
        kept = [stamp for stamp in (*dealt, *self.done) if stamp % len(buckets) in unclear]
        return replace(
            self,
            buckets=tuple(buckets),
            done=frozenset(kept[:_MOST_DONE]),
            folders=dict(look.folders),
            looked_at=look.at,
            pending=bool(left),
            n_files=look.n_files,
        )


@dataclass(frozen=True, kw_only=True)
class Look:
    """All files as they were at one look; see `Cursor` for the fields."""

    buckets: tuple[int, ...]
    folders: dict[str, int]
    at: datetime
    n_files: int


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a scan found.

    Attributes:
        candidates: New and changed files, and some that are known; whole buckets follow each other.
        look: The look that it took, or None when nothing had changed and none was due.
    """

    candidates: tuple[Candidate, ...] = ()
    look: Look | None = None


def scan(landing: LandingZone, pattern: ArrivalPattern, cursor: Cursor, *, now: datetime) -> Scan:
    """Return the files that are new or changed since the cursor.

    When no watched folder changed, nothing is pending and the last look is younger than `FULL_LOOK`, no file is
    looked at. A remote store has no folder times: it is listed each time while it has few files, else each `FULL_LOOK`.

    Args:
        landing: Where relative URLs are below.
        pattern: Of the pipeline's files.
        cursor: What was seen so far.
        now: The instant, UTC.

    Raises:
        OSError: If the folder cannot be listed; one that does not exist yet has no files.
    """
    root = landing.local_path(pattern.folder)
    due = cursor.pending or cursor.looked_at is None or not timedelta(0) <= now - cursor.looked_at < FULL_LOOK
    if root is not None:
        if not due and all(modified_ns(root, name) == changed for name, changed in cursor.folders.items()):
            return Scan()
        files, folders = list_local(root, pattern)
    else:
        if not due and cursor.n_files > _FEW_REMOTE:
            return Scan()
        files, folders = list_remote(landing, pattern), {}
    return _compared(files, _watched(folders, now), pattern, cursor, now)


def stamp_of(file: Listed) -> int:
    """Return the fingerprint of one file's name, size and times."""
    text = f"{file.name}\0{file.size}\0{file.version}"
    return int.from_bytes(blake2b(text.encode(errors="surrogateescape"), digest_size=_BYTES).digest())


def candidate_of(file: Listed, pattern: ArrivalPattern) -> Candidate:
    """Return a listed file as a candidate."""
    return Candidate(
        place=pattern.url(file.name),
        name=file.name,
        size=file.size,
        mtime_ns=file.mtime_ns,
        kind=file.kind,
        stamp=stamp_of(file),
    )


def _compared(
    files: Sequence[Listed], folders: dict[str, int], pattern: ArrivalPattern, cursor: Cursor, now: datetime
) -> Scan:
    """Return the files of changed buckets."""
    count = _bucket_count(len(files), len(cursor.buckets))
    known = _refolded(cursor.buckets, count)
    totals, stamps = [0] * count, [stamp_of(file) for file in files]
    for stamp in stamps:
        totals[stamp % count] ^= stamp
    changed = {i for i in range(count) if totals[i] != known[i]}
    members: dict[int, list[tuple[int, Listed]]] = {}
    for stamp, file in zip(stamps, files, strict=True):
        if stamp % count in changed:
            members.setdefault(stamp % count, []).append((stamp, file))
    new = {i: _suspects({stamp for stamp, _ in own}, totals[i] ^ known[i]) for i, own in members.items()}
    candidates = tuple(
        candidate_of(file, pattern)
        for index, own in members.items()
        for stamp, file in own
        if stamp in new[index] and stamp not in cursor.done
    )
    return Scan(
        candidates=candidates,
        look=Look(buckets=tuple(totals), folders=folders, at=now, n_files=len(files)),
    )


def _suspects(stamps: set[int], difference: int) -> set[int]:
    """Return which files of a bucket may be new: the one, or the two, that explain the difference; else all."""
    if difference in stamps:
        return {difference}
    pairs = [stamp for stamp in stamps if stamp ^ difference in stamps]
    return set(pairs) if len(pairs) == 2 else stamps


def _bucket_count(n_files: int, current: int) -> int:
    """Return how many buckets there should be: about one a file, and never fewer than before."""
    count = max(16, current)
    while count < min(n_files, MOST_BUCKETS):
        count *= 2
    return count


def _refolded(buckets: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return the buckets when there are `count`: those of another number know nothing, and all files come again."""
    return buckets if len(buckets) == count else (0,) * count


def _watched(folders: dict[str, int], now: datetime) -> dict[str, int]:
    """Return the folders to watch: those that changed last, as far as there is room for their names.

    A folder that changed just now may change again within one tick of its clock, so it is looked at once more.
    """
    watched: dict[str, int] = {}
    room = _MOST_FOLDER_BYTES
    for name, changed in sorted(folders.items(), key=lambda item: (item[0] != "", -item[1])):
        room -= len(json.dumps(name)) + 25
        if room < 0:
            break
        age = now.timestamp() - changed / 1e9
        watched[name] = 0 if abs(age) < _JUST_NOW.total_seconds() else changed
    return watched


def _packed(numbers: Collection[int]) -> str:
    return b64encode(b"".join(number.to_bytes(_BYTES) for number in numbers)).decode()


def _numbers(text: str) -> list[int]:
    raw = b64decode(text)
    return [int.from_bytes(raw[i : i + _BYTES]) for i in range(0, len(raw), _BYTES)]
