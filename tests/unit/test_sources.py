"""Arrived files: read as declared, or refused in words that end the search."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from ml_assets.errors import SourceError
from ml_assets.periods import Periods
from ml_assets.sources import LandingZone, check_rows, combine_rows, event_times, partition_url, read_table, sort_rows
from ml_assets.spec import ColumnSpec, EventTimeSpec, SourceSpec

COLUMNS = {
    "when": ColumnSpec(type="timestamp", nullable=False),
    "id": ColumnSpec(type="int32", nullable=False),
    "place": ColumnSpec(type="string"),
    "amount": ColumnSpec(type="float64"),
}
SOURCE = SourceSpec(
    url="in/{time}_{group}.csv",
    event_time=EventTimeSpec(column="when", timezone="America/New_York"),
    row_id=("id",),
    columns=COLUMNS,
)
PERIODS = Periods(every="month", first=date(2013, 1, 1), end=None, timezone="America/New_York")
GOOD = "when,id,place,amount,more\n2013-02-01T03:00:00Z,2,E,1.5,x\n2013-01-02T10:00:00Z,1,E,NA,x\n"


def read(tmp_path: Path, text: str, **columns: ColumnSpec) -> pa.Table:
    (tmp_path / "f.csv").write_text(text, encoding="utf-8")
    return read_table(LandingZone(root=str(tmp_path)), "f.csv", "csv", {**COLUMNS, **columns})


def test_declared_columns_in_declared_types_and_missing_text_as_null(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD)

    assert table.schema.names == list(COLUMNS)
    assert table.schema.field("when").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("id").type == pa.int32()
    assert table["amount"].null_count == 1


def test_a_local_date_decides_the_partition_not_the_utc_one(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD)  # 2013-02-01T03:00Z is the evening of January 31 in New York

    check_rows(table, SOURCE, PERIODS, group_column="place", group="E", time="2013-01")
    with pytest.raises(SourceError, match=r"2 of 2 rows of partition E\|2013-02 have an event time outside it"):
        check_rows(table, SOURCE, PERIODS, group_column="place", group="E", time="2013-02")


def test_timestamps_without_an_offset_are_read_in_the_declared_zone(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("when,id,place,amount\n2013-01-01 05:00:00,1,E,1\n", encoding="utf-8")
    landing = LandingZone(root=str(tmp_path))

    table = read_table(landing, "f.csv", "csv", COLUMNS, stored_in="America/New_York")

    assert table["when"][0].as_py().isoformat() == "2013-01-01T10:00:00+00:00"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("when,id,place\n2013-01-02T10:00:00Z,1,E\n", r"lacks the declared columns \['amount'\]"),
        ("when,id,place,amount\n", "has no rows"),
        ("", "cannot be read as csv"),
        ("when,id,place,amount\n2013-01-02T10:00:00Z,x,E,1\n", "cannot be read as csv: .*int32"),
        ("when,id,place,amount\n2013-01-02T10:00:00Z,,E,1\n", "column 'id' has 1 missing values"),
        ("when,id,place,amount\nyesterday,1,E,1\n", "column 'when' is not of the declared type timestamp"),
        ("when,id,place,amount\n2013-01-02T10:00:00Z,1\n", "cannot be read as csv"),
    ],
    ids=["missing-column", "no-rows", "empty-file", "wrong-type", "null", "bad-time", "ragged"],
)
def test_what_does_not_match_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path, text)


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.parquet").write_bytes(b"PAR1 and nothing more")

    with pytest.raises(SourceError, match="cannot be read as parquet"):
        read_table(LandingZone(root=str(tmp_path)), "f.parquet", "parquet", COLUMNS)


def test_rows_of_another_group_and_repeated_ids_are_refused(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD)
    with pytest.raises(
        SourceError, match=r"2 of 2 rows of partition J\|2013-01 have another place than 'J', such as 'E'"
    ):
        check_rows(table, SOURCE, PERIODS, group_column="place", group="J", time="2013-01")

    nobody = read(tmp_path, GOOD.replace(",E,1.5", ",,1.5"))
    with pytest.raises(
        SourceError, match=r"1 of 2 rows of partition E\|2013-01 have another place than 'E', such as None"
    ):
        check_rows(nobody, SOURCE, PERIODS, group_column="place", group="E", time="2013-01")

    twice = pa.concat_tables([table, table.slice(1)])
    with pytest.raises(SourceError, match=r"1 rows of partition E\|2013-01 repeat the row id \['id'\]"):
        check_rows(twice, SOURCE, PERIODS, group_column="place", group="E", time="2013-01")


def test_repeated_rows_are_combined_when_the_description_says_how(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD + "2013-01-02T10:00:00Z,2,E,2.5,x\n")
    source = SOURCE.model_copy(update={"combine": {"amount": "sum"}})

    combined = sort_rows(combine_rows(table, source), source)

    assert combined.schema == table.schema
    assert combined["id"].to_pylist() == [1, 2]
    assert combined["amount"].to_pylist() == [None, 4.0]


def test_order_of_arrival_does_not_matter(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD)

    assert sort_rows(table, SOURCE).equals(sort_rows(table.take([1, 0]), SOURCE))


def test_a_date_is_its_local_midnight() -> None:
    source = SOURCE.model_copy(update={"event_time": EventTimeSpec(column="day", timezone="America/New_York")})
    table = pa.table({"day": pa.array([date(2013, 7, 1)])})

    assert event_times(table, source)[0].as_py().isoformat() == "2013-07-01T04:00:00+00:00"


def test_landing_zone_refuses_to_be_left_and_names_a_missing_file(tmp_path: Path) -> None:
    landing = LandingZone(root=str(tmp_path), storage_options={"secret": "hush"})

    with pytest.raises(SourceError, match="leaves the landing zone"):
        landing.resolve("../etc/passwd")
    with pytest.raises(SourceError, match=r"No file has arrived at .*nowhere\.csv"):
        landing.open("nowhere.csv")
    assert "hush" not in repr(landing)


def test_partition_url() -> None:
    assert partition_url(SOURCE, "EWR", "2013-01") == "in/2013-01_EWR.csv"
