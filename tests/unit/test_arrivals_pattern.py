"""File names read backwards: a partition, a misnamed file, or none of the pipeline's; never anything else."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.arrivals.pattern import ArrivalPattern, Misnamed
from ml_assets.periods import split_partition
from ml_assets.sources import partition_url
from ml_assets.spec import ColumnSpec, GroupSpec, PartitionsSpec, PipelineSpec, SideTableSpec
from tests.components.shop import shop


def spec(url: str, *, every: Any = "month", start: str = "2024-01", end: str | None = "2024-07", **more: Any) -> Any:
    component = shop()
    group = component.partitions.group if "{group}" in url else None
    partitions = PartitionsSpec(every=every, start=start, end=end, group=more.pop("group", group))
    source = component.source.model_copy(update={"url": url, **more})
    changes = {"source": source, "partitions": partitions}
    fields = {name: getattr(component, name) for name in PipelineSpec.model_fields}
    return PipelineSpec(**{**fields, **changes})


def pattern(url: str = "shop/{time}_{group}.csv", **more: Any) -> ArrivalPattern:
    return ArrivalPattern.of(spec(url, **more))


@pytest.mark.parametrize(
    ("url", "folder", "name", "partition"),
    [
        ("shop/{time}_{group}.csv", "shop", "2024-01_DE.csv", "DE|2024-01"),
        ("{time}_{group}.csv", "", "2024-06_FR.csv", "FR|2024-06"),
        ("in/x_{group}/{time}.csv", "in", "x_DE/2024-02.csv", "DE|2024-02"),
        ("s3://bucket/in/{time}/{group}-{time}.csv", "s3://bucket/in", "2024-02/DE-2024-02.csv", "DE|2024-02"),
        ("/data/{time}.csv", "/data", "2024-03.csv", "2024-03"),
        ("/{time}.csv", "/", "2024-03.csv", "2024-03"),
        ("memory://in/{time}", "memory://in", "2024-03", "2024-03"),
    ],
)
def test_a_name_is_the_partition_whose_url_it_makes(url: str, folder: str, name: str, partition: str) -> None:
    found = pattern(url)

    assert found.folder == folder
    assert found.match(name) == partition
    assert found.url(name) == partition_url(spec(url).source, *split_partition(partition))


@pytest.mark.parametrize(
    "name",
    ["weather.txt", "2024-01_DE.csv.part", ".2024-01_DE.csv", "2024-01_DE", "deeper/2024-01_DE.csv", "rates_x.csv"],
)
def test_files_that_are_none_of_the_pipeline(name: str) -> None:
    rates = SideTableSpec(url="shop/rates_x.csv", columns={"day": ColumnSpec(type="date")}, on={"ordered_at": "day"})

    assert pattern(side_tables={"rates": rates}).match(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("%2e%2e%2fetc_DE.csv", "holds an escape or a step to another folder"),
        ("..\\..\\2024-01_DE.csv", "holds an escape or a step to another folder"),
        ("2024-01..2024-02_DE.csv", "holds an escape or a step to another folder"),
        ("2024-01\n_DE.csv", "holds characters that cannot be printed"),
        ("2024-01_\udcffDE.csv", "holds characters that cannot be printed"),
        ("2024-01_" + "E" * 300 + ".csv", "longer than 255 bytes"),
        ("2024-01_US.csv", "No partition can be read .*one of DE, FR"),
        ("2024-1_DE.csv", "No partition can be read .*{time} as 2013-01"),
        ("٢٠٢٤-01_DE.csv", "No partition can be read"),
        ("2024-13_DE.csv", "Period 2024-13 is none of the pipeline's"),
        ("2023-12_DE.csv", r"Period 2023-12 is none of the pipeline's: months from 2024-01-01, before 2024-07-01"),
        ("2024-07_DE.csv", "Period 2024-07 is none of the pipeline's"),
    ],
)
def test_a_misnamed_file_is_told_why(name: str, reason: str) -> None:
    found = pattern().match(name)

    assert isinstance(found, Misnamed)
    assert re.search(reason, found.reason), found.reason


def test_a_week_begins_on_the_first_partitions_day() -> None:
    weeks = pattern("{time}.csv", every="week", start="2024-01-07", end=None)

    assert weeks.match("2024-01-14.csv") == "2024-01-14"
    assert isinstance(weeks.match("2024-01-15.csv"), Misnamed)


def test_two_places_of_one_placeholder_must_agree() -> None:
    assert isinstance(pattern("in/{time}/{group}-{time}.csv").match("2024-02/DE-2024-03.csv"), Misnamed)


GROUPS = GroupSpec(column="country", values=("DE", "D", "DE_1", "a.b", "(x)"))
URLS = ("in/{time}_{group}.csv", "{group}/{time}.csv", "x{group}{time}", "a+b/{time}/{group}.csv")
NAMES = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(["2024-01", "2024-09", "DE", "D", "DE_1", "a.b", "_", "/", "..", "x", ".csv", "\n", "%2e"]),
        max_size=7,
    ).map("".join),
)


@given(url=st.sampled_from(URLS), name=NAMES)
def test_a_match_is_a_declared_partition_and_leads_back_to_the_name(url: str, name: str) -> None:
    found = pattern(url, group=GROUPS)
    partition = found.match(name)

    if isinstance(partition, str):
        group, time = split_partition(partition)
        assert group in GROUPS.values
        assert time in found.periods
        assert found.url(name) == partition_url(spec(url, group=GROUPS).source, group, time)
        assert ".." not in name.split("/")


@given(
    url=st.sampled_from(URLS),
    group=st.sampled_from(GROUPS.values),
    month=st.integers(1, 6),
)
def test_every_partition_is_found_by_its_own_url(url: str, group: str, month: int) -> None:
    found = pattern(url, group=GROUPS)
    place = partition_url(spec(url, group=GROUPS).source, group, f"2024-{month:02d}")

    assert found.match(place.removeprefix(found.url(""))) == f"{group}|2024-{month:02d}"


@pytest.mark.parametrize(
    ("url", "other", "taken"),
    [
        ("in/{time}.csv", "in/{time}_{group}.csv", "in/2024-01_DE.csv"),
        ("in/{time}_{group}.csv", "in/{time}.csv", None),
        ("in/{time}.csv", "in/{time}.csv", None),
        ("in/{time}.csv", "out/{time}_{group}.csv", None),
        ("in/a_{time}.csv", "in/b_{time}_{group}.csv", None),
        ("{time}.csv", "/data/{time}_{group}.csv", None),
    ],
)
def test_a_pattern_that_takes_another_pipelines_files_for_misnamed(url: str, other: str, taken: str | None) -> None:
    assert pattern(url).takes_for_misnamed(spec(other)) == taken
