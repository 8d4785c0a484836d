"""The conformance suite of every `DataStore`."""
# ruff: noqa: D102 - the names of the tests are the sentences

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from ml_assets.digest import column_types, document_digest, table_digest
from ml_assets.errors import StoreError
from ml_assets.interfaces import AssetPath, DataStore

if TYPE_CHECKING:
    import pyarrow as pa

RAW: AssetPath = ("flights", "arrival_delay", "raw_data")
PROFILE: AssetPath = ("flights", "arrival_delay", "profile")
ABSENT = "0" * 64


def small_table(first: int = 1) -> "pa.Table":
    """Return four rows of numbers and texts with nulls; another `first`, another content."""
    import pyarrow as pa

    return pa.table(
        {
            "row_id": [first, first + 1, first + 2, first + 3],
            "dep_delay": [1.5, None, float("nan"), -0.0],
            "carrier": ["UA", None, "", "B6"],
        }
    )


def every_type() -> "pa.Table":
    """Return three rows, the last null, of each type that a store must give back as it is."""
    import pyarrow as pa

    moment = datetime(2013, 3, 10, 6, 59, 59, 123456, tzinfo=UTC)
    values: list[tuple[pa.DataType, list[Any]]] = [
        *((kind, [0, 127]) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())),
        *((kind, [0, 255]) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())),
        *((kind, [0.5, -2.0]) for kind in (pa.float16(), pa.float32(), pa.float64())),
        *((kind, ["", "é\0"]) for kind in (pa.string(), pa.large_string())),
        *((kind, [b"", b"\xff"]) for kind in (pa.binary(), pa.large_binary())),
        *((pa.timestamp(unit, "America/New_York"), [moment.replace(microsecond=0)] * 2) for unit in ("ms", "ns")),
        *((pa.duration(unit), [timedelta(seconds=-5), timedelta(days=9)]) for unit in ("s", "ms", "us", "ns")),
        *((kind, [time(1, 2, 3), time(0)]) for kind in (pa.time32("ms"), pa.time64("us"), pa.time64("ns"))),
        *((kind(9, 2), [Decimal("-1.25"), Decimal(7)]) for kind in (pa.decimal128, pa.decimal256)),
        (pa.timestamp("us", "UTC"), [moment, moment]),
        (pa.timestamp("us"), [moment.replace(tzinfo=None)] * 2),
        (pa.timestamp("ns"), [1_362_898_799_123_456_789, -1]),
        (pa.bool_(), [True, False]),
        (pa.binary(3), [b"abc", b"\0\0\0"]),
        (pa.date32(), [date(2013, 1, 1), date(1, 1, 1)]),
        (pa.null(), [None, None]),
        (pa.list_(pa.int32()), [[1, None], []]),
        (pa.large_list(pa.string()), [["a"], [None, ""]]),
        (
            pa.struct({"low": pa.float64(), "name": pa.string()}),
            [{"low": 1.0, "name": None}, {"low": None, "name": ""}],
        ),
    ]
    arrays = [pa.array([*items, None], kind) for kind, items in values]
    return pa.table(arrays, names=[f"column_{index}" for index in range(len(arrays))])


class DataStoreSuite:
    """What every `DataStore` does; a subclass provides the fixture `store`, empty for each test."""

    def test_what_is_written_is_read(self, store: DataStore) -> None:
        written = store.write(RAW, "EWR|2013-01", small_table())
        read = store.read(RAW, "EWR|2013-01")
        assert read.schema == small_table().schema
        assert table_digest(read) == written.data_version == table_digest(small_table())
        assert read.column("carrier").to_pylist() == ["UA", None, "", "B6"]

    def test_every_type_comes_back(self, store: DataStore) -> None:
        written = store.write(RAW, "2013-01", every_type())
        read = store.read(RAW, "2013-01")
        assert read.equals(every_type())
        assert column_types(read.schema) == written.columns == column_types(every_type().schema)
        assert read.schema.metadata is None
        assert all(column.metadata is None and column.nullable for column in read.schema)

    def test_a_dictionary_comes_back_decoded_and_seconds_as_milliseconds(self, store: DataStore) -> None:
        import pyarrow as pa

        texts = pa.array(["UA", None, "B6"])
        seconds = pa.array([0, None, 1_362_898_799], pa.timestamp("s", "UTC"))
        store.write(RAW, "2013-01", pa.table({"carrier": texts.dictionary_encode(), "at": seconds}))
        decoded = pa.table({"carrier": texts, "at": seconds.cast(pa.timestamp("ms", "UTC"))})
        assert store.read(RAW, "2013-01").equals(decoded)

    def test_a_table_without_rows_keeps_its_types(self, store: DataStore) -> None:
        written = store.write(RAW, "2013-01", every_type().slice(0, 0))
        assert written.n_rows == 0
        assert store.read(RAW, "2013-01").equals(every_type().slice(0, 0))

    def test_columns_come_in_the_order_asked_for(self, store: DataStore) -> None:
        store.write(RAW, "2013-01", small_table())
        assert store.read(RAW, "2013-01", columns=["carrier", "row_id"]).equals(
            small_table().select(["carrier", "row_id"])
        )
        assert store.read(RAW, "2013-01", columns=[]).num_rows == 4

    def test_columns_with_dots_are_not_mixed_up(self, store: DataStore) -> None:
        import pyarrow as pa

        table = pa.table({"delay": [1], "delay.mean": [2], "mean": [3]})
        store.write(RAW, "2013-01", table)
        assert store.read(RAW, "2013-01", columns=["delay"]).equals(table.select(["delay"]))
        assert store.read(RAW, "2013-01", columns=["delay.mean"]).equals(table.select(["delay.mean"]))

    def test_a_missing_column_names_the_close_one(self, store: DataStore) -> None:
        store.write(RAW, "2013-01", small_table())
        with pytest.raises(StoreError, match=r"'dep_dely'.*did you mean 'dep_delay'"):
            store.read(RAW, "2013-01", columns=["row_id", "dep_dely"])

    def test_what_is_known_without_reading_rows(self, store: DataStore) -> None:
        written = store.write(RAW, "EWR|2013-01", small_table())
        assert (written.asset, written.partition, written.n_rows) == (RAW, "EWR|2013-01", 4)
        assert written.columns == (("row_id", "int64"), ("dep_delay", "double"), ("carrier", "string"))
        assert written.n_bytes > 0
        assert written.url.endswith(f"{written.data_version}.parquet")
        assert store.describe(RAW, "EWR|2013-01") == written
        assert store.describe(RAW, "EWR|2013-01", data_version=written.data_version) == written

    def test_nothing_is_known_of_what_does_not_exist(self, store: DataStore) -> None:
        assert store.describe(RAW, "2013-01") is None
        assert store.partitions(RAW) == []
        store.write(RAW, "2013-01", small_table())
        assert store.describe(RAW, "2013-02") is None
        assert store.describe(RAW, "2013-01", data_version=ABSENT) is None

    def test_older_versions_stay_readable(self, store: DataStore) -> None:
        versions = [store.write(RAW, "2013-01", small_table(first)).data_version for first in (1, 2, 3)]
        current = store.describe(RAW, "2013-01")
        assert current is not None
        assert current.data_version == versions[2]
        for first, version in zip((1, 2, 3), versions, strict=True):
            read = store.read(RAW, "2013-01", columns=["row_id"], data_version=version)
            assert read.column("row_id")[0].as_py() == first

    def test_writing_an_older_content_makes_it_current_again(self, store: DataStore) -> None:
        first = store.write(RAW, "2013-01", small_table(1))
        store.write(RAW, "2013-01", small_table(2))
        assert store.write(RAW, "2013-01", small_table(1)) == first == store.describe(RAW, "2013-01")

    def test_a_content_has_one_version_in_all_partitions(self, store: DataStore) -> None:
        first, second = (store.write(RAW, key, small_table()) for key in ("2013-01", "2013-02"))
        assert first.data_version == second.data_version
        assert first.url != second.url

    def test_changing_an_array_later_changes_nothing(self, store: DataStore) -> None:
        import numpy as np
        import pyarrow as pa

        values = np.arange(4)
        store.write(RAW, "2013-01", pa.table({"value": values}))
        values[:] = 0
        assert store.read(RAW, "2013-01").column("value").to_pylist() == [0, 1, 2, 3]

    def test_partitions_are_sorted_and_those_of_one_asset(self, store: DataStore) -> None:
        keys = ["LGA|2013-01", "EWR|2013-02", "EWR|2013-01", "a b", "100%", "~x", ".hidden", "München"]
        for key in keys:
            store.write(RAW, key, small_table())
        store.write((*RAW, "deeper"), "2013-01", small_table())
        store.write(PROFILE, "other", small_table())
        assert store.partitions(RAW) == sorted(keys)
        assert store.partitions((*RAW, "deeper")) == ["2013-01"]

    def test_a_missing_partition_says_what_to_do(self, store: DataStore) -> None:
        message = r"'2013-01' of flights/arrival_delay/raw_data has no current version.*materialize"
        with pytest.raises(StoreError, match=message):
            store.read(RAW, "2013-01")
        with pytest.raises(StoreError, match=r"has no current version.*materialize"):
            store.read_document(RAW, "2013-01")

    def test_a_missing_version_says_what_to_do(self, store: DataStore) -> None:
        store.write(RAW, "2013-01", small_table())
        with pytest.raises(StoreError, match=rf"version {ABSENT}.*materialize"):
            store.read(RAW, "2013-01", data_version=ABSENT)
        with pytest.raises(StoreError, match=rf"version {ABSENT}.*materialize"):
            store.read_document(RAW, "2013-01", data_version=ABSENT)

    @pytest.mark.parametrize("key", ["", ".", "..", "a/b", "../x", "/etc", "a\0b", "a\nb", "k" * 300])
    def test_a_key_that_could_leave_its_folder_is_refused(self, store: DataStore, key: str) -> None:
        for asset, partition in ((RAW, key), (("flights", key), "2013-01")):
            with pytest.raises(StoreError, match="expected"):
                store.write(asset, partition, small_table())
            with pytest.raises(StoreError, match="expected"):
                store.read(asset, partition)
            with pytest.raises(StoreError, match="expected"):
                store.describe(asset, partition)
            with pytest.raises(StoreError, match="expected"):
                store.write_document(asset, partition, {}, data_version=ABSENT)

    @pytest.mark.parametrize("version", ["", "abc", "../" + "0" * 61, "A" * 64])
    def test_a_version_that_is_no_digest_is_refused(self, store: DataStore, version: str) -> None:
        with pytest.raises(StoreError, match="64 hexadecimal digits"):
            store.read(RAW, "2013-01", data_version=version)
        with pytest.raises(StoreError, match="64 hexadecimal digits"):
            store.read_document(RAW, "2013-01", data_version=version)
        with pytest.raises(StoreError, match="64 hexadecimal digits"):
            store.describe(RAW, "2013-01", data_version=version)
        with pytest.raises(StoreError, match="64 hexadecimal digits"):
            store.write_document(RAW, "2013-01", {}, data_version=version)

    def test_a_document_comes_back(self, store: DataStore) -> None:
        document = {"rows": 3, "mean": 0.1, "names": ["é", None], "nested": {"ok": True}, "a": -1}
        version = document_digest(document)
        written = store.write_document(PROFILE, "EWR|2013-01", document, data_version=version)
        assert (written.n_rows, written.columns, written.data_version) == (0, (), version)
        assert written.url.endswith(f"{version}.json")
        assert store.read_document(PROFILE, "EWR|2013-01") == document
        assert list(store.read_document(PROFILE, "EWR|2013-01")) == list(document)
        assert store.describe(PROFILE, "EWR|2013-01") == written
        assert store.describe(PROFILE, "EWR|2013-01", data_version=version) == written

    def test_older_documents_stay_readable(self, store: DataStore) -> None:
        versions = [document_digest({"rows": rows}) for rows in (1, 2)]
        for rows, version in zip((1, 2), versions, strict=True):
            store.write_document(PROFILE, "2013-01", {"rows": rows}, data_version=version)
        assert store.read_document(PROFILE, "2013-01") == {"rows": 2}
        assert store.read_document(PROFILE, "2013-01", data_version=versions[0]) == {"rows": 1}

    def test_a_document_of_a_known_version_does_not_change(self, store: DataStore) -> None:
        version = document_digest({"rows": 1})
        first = store.write_document(PROFILE, "2013-01", {"rows": 1, "run_id": "a"}, data_version=version)
        again = store.write_document(PROFILE, "2013-01", {"rows": 1, "run_id": "bcd"}, data_version=version)
        assert again == first
        assert store.read_document(PROFILE, "2013-01") == {"rows": 1, "run_id": "a"}

    @pytest.mark.parametrize(
        ("document", "problem"),
        [
            ({"columns": [{"mean": float("nan")}]}, r"columns\[0\].mean is nan"),
            ({"edges": {1: 2}}, "edges has the key 1"),
            ({"at": date(2013, 1, 1)}, "at is a date"),
        ],
    )
    def test_a_document_that_is_no_json_is_refused(
        self, store: DataStore, document: dict[str, Any], problem: str
    ) -> None:
        with pytest.raises(StoreError, match=problem):
            store.write_document(PROFILE, "2013-01", document, data_version=ABSENT)
        assert store.partitions(PROFILE) == []

    def test_a_table_is_no_document(self, store: DataStore) -> None:
        table = store.write(RAW, "2013-01", small_table()).data_version
        document = document_digest({})
        store.write_document(PROFILE, "2013-01", {}, data_version=document)
        for version in (None, table):
            with pytest.raises(StoreError, match=r"read it with read\(\)"):
                store.read_document(RAW, "2013-01", data_version=version)
        for version in (None, document):
            with pytest.raises(StoreError, match=r"read it with read_document\(\)"):
                store.read(PROFILE, "2013-01", data_version=version)

    def test_a_table_that_cannot_be_kept_is_refused(self, store: DataStore) -> None:
        import pyarrow as pa

        one = pa.array([1])
        for table, problem in (
            (pa.table({}), "no columns"),
            (pa.table([one, one], names=["x", "x"]), r"same name: \['x'\]"),
            (pa.table({"x": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))}), "cast it to a list"),
        ):
            with pytest.raises(StoreError, match=problem):
                store.write(RAW, "2013-01", table)
        assert store.partitions(RAW) == []
