"""One file by its place, as a scan of the landing folder would list it."""

from pathlib import Path

from ml_assets.arrivals.folders import listed_of, remote_listed
from ml_assets.arrivals.listing import Candidate, candidate_of
from ml_assets.arrivals.pattern import MOST_NAME_BYTES, ArrivalPattern
from ml_assets.sources import LandingZone


def name_of(landing: LandingZone, pattern: ArrivalPattern, place: str) -> str | None:
    """Return a place as a path below the pattern's folder, or None when the pattern has no such file."""
    name = _below(landing, pattern, place)
    if name is None or "\0" in name or _is_too_long(name) or pattern.match(name) is None:
        return None
    return name


def listed_alone(landing: LandingZone, pattern: ArrivalPattern, name: str) -> Candidate | None:
    """Return the file of a name as a scan would list it, or None when a scan would not."""
    place = pattern.url(name)
    path = landing.local_path(place)
    try:
        if path is not None:
            if _is_below_a_link(path, name.count("/")):
                return None
            listed = listed_of(name, Path(path).lstat())
        else:
            file_system, remote = landing.locate(place)
            file_system.invalidate_cache(remote.rpartition("/")[0])
            listed = remote_listed(name, file_system.info(remote))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if listed is None else candidate_of(listed, pattern)


def _is_too_long(name: str) -> bool:
    """Whether no file can have a name: one of its parts is longer than file systems allow."""
    return any(len(part.encode(errors="surrogateescape")) > MOST_NAME_BYTES for part in name.split("/"))


def _is_below_a_link(path: Path, levels: int) -> bool:
    """Whether one of the folders between the pattern's folder and a file is a link, or hidden: a scan enters none."""
    return any(folder.is_symlink() or folder.name.startswith(".") for folder in list(path.parents)[:levels])


def _below(landing: LandingZone, pattern: ArrivalPattern, place: str) -> str | None:
    """Return a place as a path below the pattern's folder, whatever its name, or None when it is elsewhere."""
    start = pattern.url("")
    local = landing.local_path(pattern.folder)
    starts = [start] if local is None else [start, f"{local}/", f"{local.absolute()}/"]
    if pattern.folder and "://" not in pattern.folder:
        starts.append(f"{landing.resolve(pattern.folder).rstrip('/')}/")
    for begin in sorted(starts, key=len, reverse=True):
        if place.startswith(begin):
            name = place.removeprefix(begin)
            return None if name.startswith("/") or ".." in name.split("/") else name
    return None
