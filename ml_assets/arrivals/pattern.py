"""Which files are a pipeline's, and which partition each of them is: `source.url` read backwards."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from ml_assets.periods import Periods, join_partition, parse_key
from ml_assets.spec import PipelineSpec

PLACEHOLDER = re.compile(r"\{time\}|\{group\}")
MOST_NAME_BYTES = 255
TEMPORARY_SUFFIXES = (".part", ".tmp", ".filepart", ".crdownload", ".swp")
_TIME = {"year": "[0-9]{4}", "month": "[0-9]{4}-[0-9]{2}"}
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"


@dataclass(frozen=True, kw_only=True)
class Misnamed:
    """A file that is the pipeline's by its name's beginning and end, and no partition's.

    Attributes:
        reason: What is wrong with the name, and what would be right.
    """

    reason: str


@dataclass(frozen=True, kw_only=True)
class ArrivalPattern:
    """The pattern of a pipeline's files.

    Attributes:
        folder: URL of the folder that the files are below, in the form of `source.url`; empty for the landing zone.
        segments: What follows: folder names, then the file's name, with their placeholders.
        periods: Time partitions of the pipeline.
        groups: Values of the group; empty when there is none.
        others: Names below the folder that are no arrivals, such as side tables.
    """

    folder: str
    segments: tuple[str, ...]
    periods: Periods
    groups: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()

    @classmethod
    def of(cls, spec: PipelineSpec) -> Self:
        """Return the pattern that a pipeline's description declares."""
        url, partitions = spec.source.url, spec.partitions
        first = PLACEHOLDER.search(url)
        head = url[: first.start()] if first else url
        folder, slash, _ = head.rpartition("/")
        start = f"{folder}{slash}"
        others = {table.url.removeprefix(start) for table in spec.source.side_tables.values()}
        return cls(
            folder=folder or slash,
            segments=tuple(url.removeprefix(start).split("/")),
            periods=Periods.of(partitions, spec.source.event_time.timezone),
            groups=() if partitions.group is None else partitions.group.values,
            others=frozenset(others),
        )

    @cached_property
    def ends(self) -> tuple[str, str]:
        """Return the literal beginning and end of a file's own name."""
        parts = PLACEHOLDER.split(self.segments[-1])
        return parts[0], parts[-1]

    def is_own(self, name: str) -> bool:
        """Whether a file's own name, without folders, has the pattern's beginning and end; cheap."""
        begin, end = self.ends
        return (
            name.startswith(begin)
            and name.endswith(end)
            and (not name.startswith(".") or name.startswith(".."))  # hidden files are being written
            and not name.lower().endswith(TEMPORARY_SUFFIXES)
        )

    def url(self, name: str) -> str:
        """Return the URL of a name below the folder, in the form of `source.url`."""
        return f"{self.folder.rstrip('/')}/{name}" if self.folder else name

    def match(self, name: str) -> str | Misnamed | None:
        """Return the partition that a file is.

        Args:
            name: Path below `folder`, with `/` between its parts.

        Returns:
            The partition's key; what is wrong with the name; or None when the file is none of the pipeline's.
        """
        if name in self.others or not self.is_own(name.rpartition("/")[2]):
            return None
        if name.count("/") != len(self.segments) - 1:
            return None
        found = self._exact.fullmatch(name)
        if found is None:
            return Misnamed(reason=self._wrong(name)) if self._alike.fullmatch(name) else None
        time = found["time"]
        if not self._is_period(time):
            return Misnamed(
                reason=f"Period {time} is none of the pipeline's: {self.periods.every}s from {self.periods.first}"
                f"{'' if self.periods.end is None else f', before {self.periods.end}'}"
                f"{', each from a first day on' if self.periods.every == 'week' else ''}. "
                "Correct the name, or `partitions` in the pipeline's YAML."
            )
        return join_partition(found["group"] if self.groups else None, time)

    def takes_for_misnamed(self, spec: PipelineSpec) -> str | None:
        """Return a file name of another pipeline that this one would put into quarantine, or None when it lets it be.

        Args:
            spec: The other pipeline's description.
        """
        group = None if spec.partitions.group is None else spec.partitions.group.values[0]
        place = spec.source.url.replace("{time}", spec.partitions.start).replace("{group}", group or "")
        start = self.url("")
        if not place.startswith(start):
            return None
        return place if isinstance(self.match(place.removeprefix(start)), Misnamed) else None

    @cached_property
    def _exact(self) -> re.Pattern[str]:
        groups = "|".join(map(re.escape, sorted(self.groups, key=len, reverse=True)))
        return self._expression({"{time}": _TIME.get(self.periods.every, _DAY), "{group}": groups})

    @cached_property
    def _alike(self) -> re.Pattern[str]:
        return re.compile("[^/]*".join(map(re.escape, PLACEHOLDER.split("/".join(self.segments)))))

    def _expression(self, values: dict[str, str]) -> re.Pattern[str]:
        """Return the pattern as a regular expression; a placeholder's second place must have the same value."""
        url, seen, parts, end = "/".join(self.segments), set[str](), list[str](), 0
        for found in PLACEHOLDER.finditer(url):
            word = found[0]
            parts.append(re.escape(url[end : found.start()]))
            parts.append(f"(?P={word[1:-1]})" if word in seen else f"(?P<{word[1:-1]}>{values[word]})")
            seen.add(word)
            end = found.end()
        return re.compile("".join([*parts, re.escape(url[end:])]))

    def _is_period(self, time: str) -> bool:
        if time not in self.periods:
            return False
        return self.periods.every != "week" or (parse_key(time, "week") - self.periods.first).days % 7 == 0

    def _wrong(self, name: str) -> str:
        """Return what is wrong with a name in which no period and group can be read."""
        expected = f"Expected {'/'.join(self.segments)!r}, {{time}} as {_example(self.periods)}"
        if self.groups:
            expected += f" and {{group}} one of {_listed(self.groups)}"
        if len(name.encode(errors="surrogateescape")) > MOST_NAME_BYTES:
            return f"The name is longer than {MOST_NAME_BYTES} bytes. {expected}."
        if not name.isprintable():
            return f"The name {name!r} holds characters that cannot be printed. {expected}."
        if "%" in name or ".." in name or "\\" in name:
            return f"The name {name!r} holds an escape or a step to another folder. {expected}."
        return f"No partition can be read from the name {name!r}. {expected}."


def _example(periods: Periods) -> str:
    return {"year": "2013", "month": "2013-01"}.get(periods.every, "2013-01-31")


def _listed(values: Sequence[str] | Collection[str], most: int = 10) -> str:
    shown = list(values)[:most]
    more = len(values) - len(shown)
    return ", ".join(shown) + (f" … +{more} more" if more else "")
