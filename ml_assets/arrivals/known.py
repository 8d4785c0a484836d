"""What the inbox and the data store know of files already: so that a file is ingested once a version."""

from collections.abc import Sequence
from dataclasses import dataclass

from ml_assets.arrivals.inspect import Accepted
from ml_assets.arrivals.listing import Candidate
from ml_assets.arrivals.settings import SOURCE
from ml_assets.inbox_rules import GIVEN_UP_STATES
from ml_assets.interfaces import DataStore, Event, Inbox, InboxEvent, PipelinePath
from ml_assets.stages.source_file import made_of
from ml_assets.texts import visible_text

_MOST_PLACES = 500
_OVER = ("done", "dead", "discarded")


@dataclass(frozen=True, kw_only=True)
class KnownFiles:
    """What is known of some files when a scan begins.

    Attributes:
        path: (team, pipeline).
        data_store: Where it is noted what partitions were made of.
        last: Place → its newest event.
    """

    path: PipelinePath
    data_store: DataStore
    last: dict[str, InboxEvent]

    @classmethod
    def of(
        cls, inbox: Inbox, data_store: DataStore, path: PipelinePath, candidates: Sequence[Candidate]
    ) -> "KnownFiles":
        """Ask the inbox for the newest event of each candidate's place."""
        places = [storable(candidate.place) for candidate in candidates]
        last: dict[str, InboxEvent] = {}
        for start in range(0, len(places), _MOST_PLACES):
            last |= inbox.last_of(path, SOURCE, places[start : start + _MOST_PLACES])
        return cls(path=path, data_store=data_store, last=last)

    def is_same_version(self, candidate: Candidate) -> bool:
        """Whether the newest event of a file's place is about this version of it, told without reading it."""
        last = self.last.get(storable(candidate.place))
        return last is not None and last.event.payload.get("stamp") == f"{candidate.stamp:012x}"

    def is_same_content(self, candidate: Candidate, partition: str, sha256: str) -> bool:
        """Whether a file's bytes need no run.

        They need none when the newest event of its place is about them, unless it is done and the partition was made
        of others since. Without such an event they need none when the partition was made of them, unless a run for
        other bytes is still under way, which would put those in their place.
        """
        last = self.last.get(storable(candidate.place))
        made = made_of(self.data_store, self.path, partition)
        if last is None:
            return made == sha256
        if last.event.payload.get("sha256") == sha256:
            return last.state != "done" or made is None or made == sha256
        return last.state in _OVER and made == sha256

    def given_up(self, candidate: Candidate) -> str:
        """Return that the newest event of a file's place was given up, and what starts it again; else nothing."""
        last = self.last.get(storable(candidate.place))
        if last is None or last.state not in GIVEN_UP_STATES:
            return ""
        what = "is a dead letter" if last.state == "dead" else "was discarded"
        return (
            f"These bytes came before as event {last.number}, which {what}. Once its cause is mended: "
            f"ml-assets dead-letters replay {last.number}"
        )

    def event(self, candidate: Candidate, accepted: Accepted) -> Event:
        """Return the event of an accepted file.

        A repeat has the same key, whoever finds it. Bytes that come back after others had their place are new.
        """
        place = storable(candidate.place)
        last = self.last.get(place)
        again = f"@{last.number}" if last is not None else ""
        return Event(
            source=SOURCE,
            key=f"{place}@{accepted.sha256}{again}",
            pipeline=self.path,
            partition=accepted.partition,
            payload={
                "place": place,
                "size": accepted.size,
                "sha256": accepted.sha256,
                "mtime": candidate.mtime_ns / 1e9,
                "n_rows": accepted.n_rows,
                "stamp": f"{candidate.stamp:012x}",
            },
        )


def storable(place: str) -> str:
    """Return a place as text that every database, log and terminal can take, whatever its name is made of."""
    return visible_text(place)
