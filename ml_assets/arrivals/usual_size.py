"""What size a pipeline's files usually have, so that one that is far larger is noticed before it is read."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from ml_assets.arrivals.settings import SOURCE
from ml_assets.interfaces import Inbox, InboxEvent
from ml_assets.periods import Periods, split_partition
from ml_assets.sources import partition_url
from ml_assets.spec import PipelineSpec
from ml_assets.texts import visible_text

FEWEST = 5
"""Files that must have been accepted before anything is usual."""
_PERIODS, _LOOK_BACK = 20, 200


@dataclass(frozen=True, kw_only=True)
class UsualSize:
    """A size that files are held against.

    Attributes:
        n_bytes: The size.
        of: What it is of, for a reader, such as "the median of EWR's last 20 files".
    """

    n_bytes: int
    of: str


@dataclass(frozen=True)
class UsualSizes:
    """What is usual for a pipeline's files at one look.

    Groups differ: the files of a large airport may always have twenty times the size of a small one's. So a file is
    held against those of its own group's last periods; while there are few of them, against the largest of the files
    that were accepted last, of any group.

    Attributes:
        inbox: Knows the files that were accepted.
        spec: The pipeline.
    """

    inbox: Inbox
    spec: PipelineSpec

    def of(self, partition: str) -> UsualSize | None:
        """Return what is usual for the file of a partition, or None while too few files were accepted."""
        group, time = split_partition(partition)
        source = self.spec.source
        earlier = Periods.of(self.spec.partitions, source.event_time.timezone).window(time, _PERIODS)
        places = [visible_text(partition_url(source, group, past)) for past in earlier]
        sizes = _sizes(self.inbox.last_of((self.spec.team, self.spec.name), SOURCE, places).values())
        if len(sizes) < FEWEST:
            return self._largest
        whose = "" if group is None else f" of {group}"
        return UsualSize(n_bytes=int(median(sizes)), of=f"the median of the last {len(sizes)} files{whose}")

    @cached_property
    def _largest(self) -> UsualSize | None:
        sizes = _sizes(self.inbox.events(pipelines=[(self.spec.team, self.spec.name)], limit=_LOOK_BACK))
        if len(sizes) < FEWEST:
            return None
        return UsualSize(n_bytes=max(sizes), of=f"the largest of the last {len(sizes)} files")


def _sizes(events: Iterable[InboxEvent]) -> list[int]:
    payloads = (event.event.payload for event in events if event.event.source == SOURCE)
    return [payload["size"] for payload in payloads if payload.get("sha256")]
