"""Covers a set of partitions by boxes of periods × groups: what Dagster's range of a run can say."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ml_assets.periods import Periods, join_partition, parse_key, split_partition
from ml_assets.spec import PipelineSpec


@dataclass(frozen=True, kw_only=True)
class Box:
    """Neighbouring periods × neighbouring groups.

    Attributes:
        periods: Time keys in a row, oldest first.
        groups: Groups in a row, as they are declared; (None,) for a pipeline without groups.
    """

    periods: tuple[str, ...]
    groups: tuple[str | None, ...]

    @property
    def first(self) -> str:
        """Return the partition that a range of this box begins with."""
        return join_partition(self.groups[0], self.periods[0])

    @property
    def last(self) -> str:
        """Return the partition that a range of this box ends with."""
        return join_partition(self.groups[-1], self.periods[-1])

    @property
    def partitions(self) -> tuple[str, ...]:
        """Return all of its partitions, oldest first."""
        return tuple(join_partition(group, time) for time in self.periods for group in self.groups)


def is_partition(spec: PipelineSpec, partition: str) -> bool:
    """Whether a pipeline has a data partition of this key."""
    group, time = split_partition(partition)
    periods = Periods.of(spec.partitions, spec.source.event_time.timezone)
    if group not in _groups(spec) or time not in periods:
        return False
    return periods.every != "week" or (parse_key(time, "week") - periods.first).days % 7 == 0


def is_over(spec: PipelineSpec, partition: str, now: datetime) -> bool:
    """Whether a partition's period has ended: before that Dagster knows no such partition, and refuses its run."""
    return end_of(spec, partition) <= now


def end_of(spec: PipelineSpec, partition: str) -> datetime:
    """Return when a partition's period ends."""
    periods = Periods.of(spec.partitions, spec.source.event_time.timezone)
    return periods.bounds(split_partition(partition)[1])[1]


def cover(spec: PipelineSpec, partitions: Collection[str], *, most: int) -> list[Box]:
    """Return boxes that together hold exactly the given partitions, each once; oldest first.

    Args:
        spec: The pipeline.
        partitions: Keys of its data partitions.
        most: Partitions that a box may have, at least 1.
    """
    groups = {group: place for place, group in enumerate(_groups(spec))}
    places: dict[str, list[int]] = {}
    for group, time in map(split_partition, set(partitions)):
        places.setdefault(time, []).append(groups[group])
    names = list(groups)
    spans = _merged(spec, {time: list(_in_a_row(sorted(found))) for time, found in places.items()})
    boxes = [Box(periods=times, groups=tuple(names[low : high + 1])) for times, (low, high) in sorted(spans)]
    return sorted((part for box in boxes for part in _cut(box, most)), key=lambda box: box.periods[0])


def span(spec: PipelineSpec, first: str, last: str) -> Box:
    """Return the box that a range from one partition to another means.

    Args:
        spec: The pipeline.
        first: Its first group of the first period.
        last: Its last group of the last period.
    """
    (low, begin), (high, end) = split_partition(first), split_partition(last)
    groups = list(_groups(spec))
    periods = Periods.of(spec.partitions, spec.source.event_time.timezone)
    return Box(
        periods=tuple(periods.between(begin, end)),
        groups=tuple(groups[groups.index(low) : groups.index(high) + 1]),
    )


def _groups(spec: PipelineSpec) -> Sequence[str | None]:
    group = spec.partitions.group
    return (None,) if group is None else group.values


def _in_a_row(places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Return the (first, last) of each stretch of whole numbers without a gap."""
    low = places[0]
    for place, following in zip(places, [*places[1:], None], strict=True):
        if following != place + 1:
            yield low, place
            low = following if following is not None else low


def _merged(
    spec: PipelineSpec, spans: dict[str, list[tuple[int, int]]]
) -> list[tuple[tuple[str, ...], tuple[int, int]]]:
    """Join periods in a row that have the same stretch of groups."""
    periods = Periods.of(spec.partitions, spec.source.event_time.timezone)
    merged: list[tuple[tuple[str, ...], tuple[int, int]]] = []
    growing: dict[tuple[int, int], list[str]] = {}
    before = ""
    for time in sorted(spans):
        neighbours = before != "" and periods.shift(before, 1) == time
        ended = [span for span in growing if not neighbours or span not in spans[time]]
        merged += [(tuple(growing.pop(span)), span) for span in ended]
        for span in spans[time]:
            growing.setdefault(span, []).append(time)
        before = time
    return [*merged, *((tuple(times), span) for span, times in growing.items())]


def _cut(box: Box, most: int) -> Iterator[Box]:
    """Cut a box into parts of at most `most` partitions: along time, and each period apart when it is too wide."""
    width = min(len(box.groups), most)
    length = max(1, most // width)
    for start in range(0, len(box.periods), length):
        for left in range(0, len(box.groups), width):
            yield Box(
                periods=box.periods[start : start + length],
                groups=box.groups[left : left + width],
            )
