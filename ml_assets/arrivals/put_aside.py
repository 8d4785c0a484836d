"""Says which bad files lie in a pipeline's quarantine, why, and whether a good one has their place by now."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_assets.arrivals.quarantine import REASON_SUFFIX, quarantine_folder
from ml_assets.arrivals.settings import SOURCE
from ml_assets.errors import SourceError
from ml_assets.interfaces import Inbox, PipelinePath
from ml_assets.sources import LandingZone
from ml_assets.spec import PipelineSpec
from ml_assets.texts import visible_text

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_MOST_BYTES = 65_536
"""Of a reason: whoever may land files may write one there."""
_MOST_PLACES = 500


@dataclass(frozen=True, kw_only=True)
class PutAside:
    """A file in quarantine.

    Attributes:
        name: Its name there; names sort by the time the files were written.
        reason: Why it is bad; empty when no reason lies beside it.
        place: Where it had landed, in the form of `source.url`; empty when that is not known.
        partition: The partition that its name means, or None.
        sha256: Digest of its bytes, or None when they were not read.
        after_event: Number of its place's last event when it was put aside; 0 when there was none.
        at: When it was put aside, in ISO 8601; empty when that is not known.
    """

    name: str
    reason: str = ""
    place: str = ""
    partition: str | None = None
    sha256: str | None = None
    after_event: int = 0
    at: str = ""


def standing_files(
    landing: LandingZone,
    inbox: Inbox,
    spec: PipelineSpec,
    *,
    wanted: Callable[[PutAside], bool] = lambda _: True,
) -> list[PutAside]:
    """Return the files of a pipeline's quarantine whose place no good file has taken since, by name.

    A good one has it when the place had an event later that is not a dead letter; or, since bytes that are known make
    no event, when a file lies there now: a bad one would be put aside as well.

    Args:
        landing: Where relative URLs are below.
        inbox: Knows what came of files.
        spec: The pipeline's description.
        wanted: Of which files that is to be found out; in a store it takes a look at each file's place.

    Raises:
        SourceError: If the folder cannot be looked at.
    """
    files = [file for file in _files(landing, spec) if wanted(file)]
    path: PipelinePath = (spec.team, spec.name)
    places = sorted({file.place for file in files if file.place})
    last = {}
    for begin in range(0, len(places), _MOST_PLACES):
        last |= inbox.last_of(path, SOURCE, places[begin : begin + _MOST_PLACES])
    found: list[PutAside] = []
    for file in files:
        event = last.get(file.place)
        if event is not None and event.number > file.after_event:
            replaced = event.state != "dead"
        else:
            replaced = bool(file.place) and _lies_at(landing, file.place)
        if not replaced:
            found.append(file)
    return found


def _files(landing: LandingZone, spec: PipelineSpec) -> list[PutAside]:
    folder = quarantine_folder(landing, spec)
    file_system, path = landing.locate(folder)
    try:
        file_system.invalidate_cache(path)
        places = file_system.ls(path, detail=False)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SourceError(f"{folder} cannot be looked at: {error}. Let this process read it.") from error
    listed = {str(place).rstrip("/").rpartition("/")[2]: str(place) for place in places}
    names = sorted(n for n in listed if not n.startswith(".") and not n.endswith(REASON_SUFFIX))
    notes = {n: listed[n + REASON_SUFFIX] for n in names if n + REASON_SUFFIX in listed}
    told = dict(zip(notes, _read(file_system, list(notes.values())), strict=True))
    return [_put_aside(name, told.get(name, {})) for name in names]


def _read(file_system: "AbstractFileSystem", places: list[str]) -> list[Mapping[str, Any]]:
    """Return what reasons say, in one go; nothing of those that cannot be read or are none."""
    if not places:
        return []
    texts = file_system.cat_ranges(places, [0] * len(places), [_MOST_BYTES] * len(places), on_error="return")
    found: list[Mapping[str, Any]] = []
    for text in texts:
        try:
            values = json.loads(text) if isinstance(text, bytes) else {}
        except (ValueError, RecursionError):
            values = {}
        found.append(values if isinstance(values, dict) else {})
    return found


def _put_aside(name: str, told: Mapping[str, Any]) -> PutAside:
    def text(key: str) -> str:
        value = told.get(key)
        return visible_text(value) if isinstance(value, str) else ""

    after = told.get("after_event")
    return PutAside(
        name=visible_text(name),
        reason=text("reason"),
        place=text("landed_as"),
        partition=text("partition") or None,
        sha256=text("sha256") or None,
        after_event=after if isinstance(after, int) else 0,
        at=text("quarantined_at"),
    )


def _lies_at(landing: LandingZone, place: str) -> bool:
    try:
        return landing.exists(place)
    except (SourceError, OSError, ValueError):
        return False
