"""Keys, bounds and windows of time partitions."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.periods import Every, Periods, join_partition, split_partition


def months(timezone: str = "UTC", end: date | None = None) -> Periods:
    return Periods(every="month", first=date(2013, 1, 1), end=end, timezone=timezone)


def test_bounds_are_local_midnights_in_utc() -> None:
    start, end = months("America/New_York").bounds("2013-03")

    assert start == datetime(2013, 3, 1, 5, tzinfo=UTC)
    assert end == datetime(2013, 4, 1, 4, tzinfo=UTC)  # daylight saving began in between


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (None, ["2013-01", "2013-02", "2013-03"]),
        (2, ["2013-02", "2013-03"]),
        (9, ["2013-01", "2013-02", "2013-03"]),
    ],
)
def test_window_ends_before_the_period_and_starts_at_the_first(length: int | None, expected: list[str]) -> None:
    assert months().window("2013-04", length) == expected


def test_the_first_period_has_no_window() -> None:
    assert months().window("2013-01", None) == []


@given(
    every=st.sampled_from(["day", "week", "month", "year"]),
    day=st.dates(date(1970, 1, 4), date(2060, 1, 1)),
    count=st.integers(-40, 40),
)
def test_shifting_there_and_back_is_the_same_period(every: Every, day: date, count: int) -> None:
    periods = Periods(every=every, first=date(1950, 1, 1), end=None, timezone="Europe/Berlin")
    key = day.strftime({"day": "%Y-%m-%d", "week": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}[every])

    assert periods.shift(periods.shift(key, count), -count) == key
    assert periods.bounds(key)[1] == periods.bounds(periods.shift(key, 1))[0]


def test_membership_and_count() -> None:
    periods = months(end=date(2014, 1, 1))

    assert periods.count() == 12
    assert "2013-12" in periods
    assert "2014-01" not in periods
    assert "2012-12" not in periods
    assert "2013" not in periods


def test_partition_keys_split_and_join() -> None:
    assert split_partition("EWR|2013-01") == ("EWR", "2013-01")
    assert split_partition("2013-01") == (None, "2013-01")
    assert join_partition("EWR", "2013-01") == "EWR|2013-01"
    assert join_partition(None, "2013-01") == "2013-01"
