"""Arithmetic of time partitions: their keys, bounds and windows, in the calendar of the pipeline's time zone."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from ml_assets.spec import PartitionsSpec

Every = Literal["day", "week", "month", "year"]
KEY_FORMAT: dict[str, str] = {"day": "%Y-%m-%d", "week": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}
GROUP_SEPARATOR = "|"


@dataclass(frozen=True, kw_only=True)
class Periods:
    """The time partitions of one pipeline.

    Attributes:
        every: Length of a period.
        first: First day of the first period.
        end: First day that belongs to no period any more, or None when open-ended.
        timezone: IANA name of the zone whose midnights bound the periods.
    """

    every: Every
    first: date
    end: date | None
    timezone: str

    @classmethod
    def of(cls, partitions: PartitionsSpec, timezone: str) -> "Periods":
        """Return the periods that a pipeline's description declares."""
        end = None if partitions.end is None else parse_key(partitions.end, partitions.every)
        return cls(
            every=partitions.every,
            first=parse_key(partitions.start, partitions.every),
            end=end,
            timezone=timezone,
        )

    def shift(self, key: str, count: int) -> str:
        """Return the key `count` periods later (earlier when negative), also beyond the declared ones.

        >>> Periods(every="month", first=date(2013, 1, 1), end=None, timezone="UTC").shift("2013-01", -1)
        '2012-12'
        """
        return _format(_add(parse_key(key, self.every), self.every, count), self.every)

    def bounds(self, key: str) -> tuple[datetime, datetime]:
        """Return the instants at which a period begins (inclusive) and ends (exclusive), in UTC."""
        return self._midnight(parse_key(key, self.every)), self._midnight(
            _add(parse_key(key, self.every), self.every, 1)
        )

    def window(self, key: str, length: int | None) -> list[str]:
        """Return the `length` periods before `key` (all since the first when None), oldest first."""
        day = parse_key(key, self.every)
        keys: list[str] = []
        current = _add(day, self.every, -1)
        while current >= self.first and (length is None or len(keys) < length):
            keys.append(_format(current, self.every))
            current = _add(current, self.every, -1)
        return keys[::-1]

    def between(self, first: str, last: str) -> list[str]:
        """Return the keys from `first` to `last`, both included."""
        day, stop = parse_key(first, self.every), parse_key(last, self.every)
        keys: list[str] = []
        while day <= stop:
            keys.append(_format(day, self.every))
            day = _add(day, self.every, 1)
        return keys

    def count(self) -> int | None:
        """Return how many periods there are, or None when open-ended."""
        if self.end is None:
            return None
        return len(self.between(_format(self.first, self.every), _format(self.end, self.every))) - 1

    def __contains__(self, key: str) -> bool:
        """Whether a key is one of the declared periods."""
        try:
            day = parse_key(key, self.every)
        except ValueError:
            return False
        return day >= self.first and (self.end is None or day < self.end)

    def _midnight(self, day: date) -> datetime:
        local = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(self.timezone))
        return local.astimezone(UTC)


def parse_key(key: str, every: Every) -> date:
    """Return the first day of a period from its key.

    Raises:
        ValueError: If the key has not the form of this period: 2013, 2013-01 or 2013-01-01.
    """
    day = datetime.strptime(key, KEY_FORMAT[every]).replace(tzinfo=UTC).date()
    if _format(day, every) != key:  # strptime takes "2013-1" for "2013-01", which is another partition's key
        raise ValueError(f"time data {key!r} does not match format {KEY_FORMAT[every]!r}")
    return day


def split_partition(key: str) -> tuple[str | None, str]:
    """Return (group, time) of a partition key: "EWR|2013-01" or, without a group, "2013-01"."""
    group, separator, time = key.rpartition(GROUP_SEPARATOR)
    return (group if separator else None), time


def join_partition(group: str | None, time: str) -> str:
    """Return the partition key of a group (None when there is none) and a time."""
    return time if group is None else f"{group}{GROUP_SEPARATOR}{time}"


def _add(day: date, every: Every, count: int) -> date:
    if every == "year":
        return day.replace(year=day.year + count)
    if every == "month":
        months = day.year * 12 + day.month - 1 + count
        return day.replace(year=months // 12, month=months % 12 + 1)
    return day + timedelta(days=count * (7 if every == "week" else 1))


def _format(day: date, every: Every) -> str:
    return day.strftime(KEY_FORMAT[every])
