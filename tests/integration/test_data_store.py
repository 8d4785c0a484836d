"""The Parquet data store: its contract on four file systems, its layout, damage and upkeep."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.digest import document_digest, table_digest
from ml_assets.errors import StoreError
from ml_assets.testing.data_store_suite import ABSENT, PROFILE, RAW, DataStoreSuite, small_table
from resources.atomic_files import STALE_SECONDS
from resources.data_store import ParquetDataStore


class MovingFileSystem(MemoryFileSystem):
    """A store in memory of which one may see half a put, as on SFTP; it notes what was put and moved."""

    protocol: ClassVar[str] = "moving"
    store: ClassVar[dict[str, Any]] = {}  # pyright: ignore[reportIncompatibleVariableOverride]
    pseudo_dirs: ClassVar[list[str]] = [""]
    put_names: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return super()._strip_protocol(str(path).replace("moving://", "memory://"))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self.put_names.append(path.rpartition("/")[2])
        super().pipe_file(path, value, mode=mode, **kwargs)


@pytest.fixture
def moving_root() -> Iterator[str]:
    fsspec.register_implementation("moving", MovingFileSystem, clobber=True)
    yield "moving://assets"
    MovingFileSystem.store.clear()
    MovingFileSystem.pseudo_dirs[:] = [""]
    MovingFileSystem.put_names.clear()


@pytest.fixture
def memory_root() -> Iterator[str]:
    yield "memory://bucket/assets"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


class TestLocalFolder(DataStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ParquetDataStore:
        return ParquetDataStore(str(tmp_path / "store"))


class TestVerifyingStore(DataStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ParquetDataStore:
        return ParquetDataStore(str(tmp_path / "store"), verify=True)


class TestFileUrl(DataStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ParquetDataStore:
        return ParquetDataStore(f"file://{tmp_path}/store")


class TestObjectStore(DataStoreSuite):
    @pytest.fixture
    def store(self, memory_root: str) -> ParquetDataStore:
        return ParquetDataStore(memory_root)


class TestStoreWithoutAtomicPut(DataStoreSuite):
    @pytest.fixture
    def store(self, moving_root: str) -> ParquetDataStore:
        return ParquetDataStore(moving_root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> ParquetDataStore:
    return ParquetDataStore(str(root))


class TestLayout:
    def test_files_lie_where_a_person_looks_for_them(self, store: ParquetDataStore, root: Path) -> None:
        table = store.write(RAW, "EWR|2013-01", small_table())
        store.write_document(PROFILE, "2013-01", {"rows": 1}, data_version=ABSENT)
        assert sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) == [
            f"flights/arrival_delay/profile/2013-01/{ABSENT}.json",
            "flights/arrival_delay/profile/2013-01/current.json",
            f"flights/arrival_delay/raw_data/EWR~2013-01/{table.data_version}.parquet",
            "flights/arrival_delay/raw_data/EWR~2013-01/current.json",
        ]
        assert Path(table.url).is_file()

    def test_the_pointer_tells_what_is_current(self, store: ParquetDataStore) -> None:
        written = store.write(RAW, "2013-01", small_table())
        assert json.loads((Path(written.url).parent / "current.json").read_text()) == {
            "format": 1,
            "kind": "table",
            "data_version": written.data_version,
            "n_rows": 4,
            "columns": [["row_id", "int64"], ["dep_delay", "double"], ["carrier", "string"]],
            "n_bytes": Path(written.url).stat().st_size,
        }

    def test_the_file_is_compressed_has_checksums_and_no_foreign_metadata(self, store: ParquetDataStore) -> None:
        table = small_table().replace_schema_metadata({"pandas": "{}"})
        with pq.ParquetFile(store.write(RAW, "2013-01", table).url) as file:
            assert set(file.metadata.metadata) == {b"ARROW:schema"}
            chunks = [file.metadata.row_group(0).column(index) for index in range(3)]
        assert {chunk.compression for chunk in chunks} == {"ZSTD"}
        assert [chunk.is_stats_set for chunk in chunks] == [True, True, False]

    def test_an_address_has_its_protocol(self, memory_root: str) -> None:
        written = ParquetDataStore(memory_root).write(RAW, "2013-01", small_table())
        assert written.url.startswith("memory://")
        with fsspec.open(written.url, "rb") as file:
            assert table_digest(pq.read_table(file)) == written.data_version

    def test_any_table_comes_back(self, tmp_path: Path) -> None:
        texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
        rows = st.lists(
            st.tuples(
                st.none() | st.floats(allow_nan=False),
                st.none() | texts,
                st.none() | st.lists(st.none() | st.integers(0, 3), max_size=3),
                st.none() | st.fixed_dictionaries({"a": st.none() | texts}),
            ),
            max_size=30,
        )
        kinds = [pa.float64(), pa.string(), pa.list_(pa.int32()), pa.struct({"a": pa.string()})]
        store = ParquetDataStore(str(tmp_path))
        versions: dict[str, pa.Table] = {}

        @given(rows)
        @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
        def check(drawn: list[tuple[Any, ...]]) -> None:
            columns = [pa.array([row[index] for row in drawn], kind) for index, kind in enumerate(kinds)]
            table = pa.table(columns, names=["x", "text", "items", "pair"])
            versions[store.write(RAW, "2013-01", table).data_version] = table
            for version, expected in versions.items():
                assert store.read(RAW, "2013-01", data_version=version).equals(expected)

        check()

    def test_a_large_table_in_many_chunks_comes_back(self, store: ParquetDataStore) -> None:
        piece = pa.table({"x": pa.array(range(70_000)), "t": pa.array([f"r{i}" for i in range(70_000)])})
        table = pa.concat_tables([piece] * 16)
        written = store.write(RAW, "2013-01", table)
        assert written.n_rows == 1_120_000
        assert store.read(RAW, "2013-01").equals(table)


class TestDamage:
    @pytest.mark.parametrize("n_bytes", [0, 3, 400, -1])
    def test_a_truncated_file_says_where_and_what_to_do(self, store: ParquetDataStore, n_bytes: int) -> None:
        path = Path(store.write(RAW, "2013-01", small_table()).url)
        path.write_bytes(path.read_bytes()[:n_bytes])
        with pytest.raises(StoreError, match=rf"{path} is damaged .*materialize the partition again"):
            store.read(RAW, "2013-01")
        with pytest.raises(StoreError, match="is damaged"):
            store.describe(RAW, "2013-01", data_version=path.stem)

    def test_a_flipped_bit_is_never_read_as_data(self, store: ParquetDataStore) -> None:
        table = pa.table({"x": [float(i) for i in range(900)], "t": [f"r{i % 70}" for i in range(900)]})
        written = store.write(RAW, "2013-01", table)
        path = Path(written.url)
        content = path.read_bytes()
        rng = np.random.default_rng(20130101)
        refused = 0
        for position, bit in zip(rng.integers(0, len(content), 400), rng.integers(0, 8, 400), strict=True):
            damaged = bytearray(content)
            damaged[position] ^= 1 << int(bit)
            path.write_bytes(damaged)
            try:
                assert table_digest(store.read(RAW, "2013-01")) == written.data_version
            except StoreError:
                refused += 1
        assert refused > 300

    def test_materializing_again_repairs_a_file(self, store: ParquetDataStore) -> None:
        written = store.write(RAW, "2013-01", small_table())
        path = Path(written.url)
        content = path.read_bytes()
        path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
        assert store.write(RAW, "2013-01", small_table()) == written
        assert path.read_bytes() == content

    def test_a_pointer_to_a_missing_file_is_explained(self, store: ParquetDataStore) -> None:
        written = store.write(RAW, "2013-01", small_table())
        Path(written.url).unlink()
        message = f"version {written.data_version}: there is no .*although it is the current .*materialize"
        with pytest.raises(StoreError, match=message):
            store.read(RAW, "2013-01")

    @pytest.mark.parametrize(
        "pointer",
        ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1, "kind": "table", "data_version": "../x"}'],
    )
    def test_a_damaged_pointer_is_explained_and_replaced(self, store: ParquetDataStore, pointer: str) -> None:
        written = store.write(RAW, "2013-01", small_table())
        path = Path(written.url).with_name("current.json")
        path.write_text(pointer)
        with pytest.raises(StoreError, match=rf"pointer .*{path}.*materialize the partition again"):
            store.read(RAW, "2013-01")
        assert store.read(RAW, "2013-01", data_version=written.data_version).num_rows == 4
        store.write(RAW, "2013-01", small_table())
        assert store.describe(RAW, "2013-01") == written

    def test_a_file_of_other_columns_than_the_pointer_tells_is_refused(self, store: ParquetDataStore) -> None:
        path = Path(store.write(RAW, "2013-01", small_table()).url)
        pq.write_table(small_table().rename_columns(["row_id", "arr_delay", "carrier"]), path)
        with pytest.raises(StoreError, match=r"not the other: .*'arr_delay', 'double'.*'dep_delay', 'double'"):
            store.read(RAW, "2013-01", columns=["row_id"])

    def test_verifying_finds_a_file_put_there_by_hand(self, store: ParquetDataStore, root: Path) -> None:
        path = Path(store.write(RAW, "2013-01", small_table(1)).url)
        pq.write_table(small_table(2), path)
        assert store.read(RAW, "2013-01").num_rows == 4
        with pytest.raises(StoreError, match=rf"{path} is damaged .*digest {table_digest(small_table(2))}"):
            ParquetDataStore(str(root), verify=True).read(RAW, "2013-01", columns=["row_id"])

    @pytest.mark.parametrize("change", [lambda text: text[:-3], lambda text: text.replace("3", "4"), lambda _: "[]"])
    def test_a_damaged_document_is_explained_and_repaired(self, store: ParquetDataStore, change: Any) -> None:
        version = document_digest({"rows": 3})
        path = Path(store.write_document(PROFILE, "2013-01", {"rows": 3}, data_version=version).url)
        path.write_text(change(path.read_text()))
        with pytest.raises(StoreError, match=rf"document {path} is damaged .*materialize"):
            store.read_document(PROFILE, "2013-01")
        store.write_document(PROFILE, "2013-01", {"rows": 3}, data_version=version)
        assert store.read_document(PROFILE, "2013-01") == {"rows": 3}

    def test_a_place_that_cannot_be_written_is_explained(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_text("a file, not a folder")
        with pytest.raises(StoreError, match=r"could not be written to .*materialize the partition again"):
            ParquetDataStore(str(tmp_path / "store" / "deeper")).write_document(
                PROFILE, "2013-01", {}, data_version=ABSENT
            )


class TestUpkeep:
    def test_the_same_content_is_not_written_again(self, store: ParquetDataStore) -> None:
        path = Path(store.write(RAW, "2013-01", small_table()).url)
        before = path.stat()
        store.write(RAW, "2013-01", small_table(2))
        store.write(RAW, "2013-01", small_table())
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    def test_leftovers_are_ignored_and_removed_after_an_hour(self, store: ParquetDataStore) -> None:
        folder = Path(store.write(RAW, "2013-01", small_table()).url).parent
        now = int(time.time())
        old = folder / f".current.json.{now - STALE_SECONDS - 5}.abc.tmp"
        young = folder / f".{ABSENT}.parquet.{now - STALE_SECONDS + 60}.abc.tmp"
        foreign = folder / ".notes.tmp"
        alone = folder.with_name("2013-02") / young.name
        alone.parent.mkdir()
        for path in (old, young, foreign, alone):
            path.write_text("half")
        assert store.partitions(RAW) == ["2013-01"]
        store.write(RAW, "2013-01", small_table())
        assert [path.exists() for path in (old, young, foreign, alone)] == [False, True, True, True]

    def test_leftovers_are_removed_where_files_are_moved_into_place(self, moving_root: str) -> None:
        store = ParquetDataStore(moving_root)
        folder = store.write(RAW, "2013-01", small_table()).url.rpartition("/")[0]
        file_system, path = fsspec.url_to_fs(folder)
        now = int(time.time())
        names = [f".current.json.{now - STALE_SECONDS - 5}.abc.tmp", f".current.json.{now}.abc.tmp"]
        for name in names:
            file_system.pipe_file(f"{path}/{name}", b"half")
        store.write(RAW, "2013-01", small_table())
        assert [file_system.exists(f"{path}/{name}") for name in names] == [False, True]

    def test_a_put_that_could_be_seen_half_done_has_a_temporary_name(self, moving_root: str) -> None:
        ParquetDataStore(moving_root).write(RAW, "2013-01", small_table())
        assert len(MovingFileSystem.put_names) == 2
        assert all(name.startswith(".") and name.endswith(".tmp") for name in MovingFileSystem.put_names)

    def test_making_a_store_touches_nothing(self, tmp_path: Path) -> None:
        ParquetDataStore(str(tmp_path / "absent"))
        ParquetDataStore("s3://bucket/that/does/not/exist")
        assert list(tmp_path.iterdir()) == []

    def test_options_are_never_shown(self) -> None:
        shown = ParquetDataStore("s3://bucket", storage_options={"key": "k1", "secret": "hunter2"})
        assert repr(shown) == "ParquetDataStore(root='s3://bucket', verify=False)"

    def test_a_root_with_a_password_is_refused_without_showing_it(self) -> None:
        with pytest.raises(StoreError, match="pass it in storage_options") as caught:
            ParquetDataStore("sftp://me:hunter2@host/assets")
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("root", ["", "~/assets"])
    def test_a_root_that_is_no_path_is_refused(self, root: str) -> None:
        with pytest.raises(StoreError, match="expected the path of a folder, or a URL"):
            ParquetDataStore(root)

    def test_a_relative_root_is_fixed_when_the_store_is_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        store = ParquetDataStore("assets")
        monkeypatch.chdir("/")
        assert store.root == str(tmp_path / "assets")

    def test_importing_it_imports_nothing_heavy(self) -> None:
        heavy = {"fsspec", "numpy", "pandas", "pyarrow"}
        code = f"import sys, resources.data_store; print(*{heavy} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == ""
