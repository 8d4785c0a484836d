"""Looks at the quarantines of pipelines, and returns the alerts of bad files that may be new."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from ml_assets.alerting.looking import Cursor, Place
from ml_assets.alerting.raising import put_aside
from ml_assets.arrivals.put_aside import standing_files
from ml_assets.arrivals.quarantine import quarantine_folder
from ml_assets.errors import SourceError
from ml_assets.interfaces import Alert, Inbox
from ml_assets.sources import LandingZone
from ml_assets.spec import PipelineSpec

MOST_FILES = 1000
STORE_EVERY, DISK_EVERY = timedelta(minutes=1), timedelta(minutes=10)
"""How often a folder in a store is read, and one on a disk that looks as it did."""
SETTLED = timedelta(seconds=2)
"""Two changes of a folder within this time may have left the same time of change."""


def look_at_quarantines(
    landing: LandingZone, inbox: Inbox, specs: Iterable[PipelineSpec], cursor: Cursor, now: datetime
) -> tuple[list[Alert], Cursor, list[str]]:
    """Return the alerts that may be new, the next cursor, and what could not be looked at.

    A folder on a disk is read when its time of change has moved; any is read now and then.

    Args:
        landing: Where relative URLs are below.
        inbox: Knows what came of files.
        specs: The pipelines that watch files.
        cursor: Of the last look.
        now: The instant.
    """
    found: list[Alert] = []
    unseen: list[str] = []
    for spec in specs:
        folder = quarantine_folder(landing, spec)
        name = f"quarantine {spec.team}/{spec.name}"
        try:
            mark = _mark(landing, folder, now)
            if _is_seen(cursor.places.get(name), mark, now):
                continue
            files = standing_files(landing, inbox, spec)
        except (SourceError, OSError) as error:  # one folder must not keep the alerts of others back
            unseen.append(f"The quarantine of {spec.team}/{spec.name} cannot be looked at: {error}")
            continue
        newest = sorted(files, key=lambda file: file.at)[-MOST_FILES:]
        alerts, cursor = cursor.take(name, mark, put_aside((spec.team, spec.name), folder, newest), now)
        found += alerts
    return found, cursor, unseen


def _mark(landing: LandingZone, folder: str, now: datetime) -> str:
    """Return what a folder on a disk looks like, or nothing for one in a store.

    Never the same when it may look the same after another change.
    """
    path = landing.local_path(folder)
    if path is None:
        return ""
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        return "none"
    return str(changed) if now.timestamp() - changed / 1e9 > SETTLED.total_seconds() else f"at {now.timestamp()}"


def _is_seen(last: Place | None, mark: str, now: datetime) -> bool:
    """Whether a quarantine needs no look."""
    every = DISK_EVERY if mark else STORE_EVERY
    return last is not None and mark == last.mark and last.seen_at <= now < last.seen_at + every
