"""The in-memory data store for tests."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ml_assets.digest import canonical_json, canonical_table, column_types, table_digest
from ml_assets.errors import StoreError
from ml_assets.interfaces import AssetPath, StoredPartition
from ml_assets.store_paths import check_data_version, partition_path

if TYPE_CHECKING:
    import pyarrow as pa


class FakeDataStore:
    """A `DataStore` in memory, with the same refusals as the real one.

    Tables and documents are kept as bytes, so that changing an array afterwards changes nothing here.

    Attributes:
        contents: (asset, partition, data version) to what is known of it and its bytes.
        pointers: (asset, partition) to the current data version.
    """

    def __init__(self) -> None:
        self.contents: dict[tuple[AssetPath, str, str], tuple[StoredPartition, bytes]] = {}
        self.pointers: dict[tuple[AssetPath, str], str] = {}

    def write(self, asset: AssetPath, partition: str, table: "pa.Table") -> StoredPartition:
        """Keep a table under its digest and make it current."""
        import pyarrow as pa

        content = canonical_table(table)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, content.schema) as writer:
            writer.write_table(content)
        columns = column_types(content.schema)
        data = sink.getvalue().to_pybytes()
        version = table_digest(content)
        return self._keep(asset, partition, version, data, ".parquet", content.num_rows, columns)

    def read(
        self,
        asset: AssetPath,
        partition: str,
        *,
        columns: Sequence[str] | None = None,
        data_version: str | None = None,
    ) -> "pa.Table":
        """Return the columns asked for, in that order."""
        import pyarrow as pa

        data = self._find(asset, partition, data_version, ".parquet")
        table = pa.ipc.open_stream(data).read_all()
        missing = [name for name in columns or () if name not in table.column_names]
        if missing:
            close = get_close_matches(missing[0], table.column_names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(table.column_names)}"
            raise StoreError(f"partition {partition!r} of {'/'.join(asset)} has no column {missing}; {hint}")
        return table if columns is None else table.select(list(columns))

    def write_document(
        self, asset: AssetPath, partition: str, document: Mapping[str, Any], *, data_version: str
    ) -> StoredPartition:
        """Keep a document under its writer's digest, unless there is one already, and make it current."""
        canonical_json(dict(document))
        data = json.dumps(dict(document)).encode()
        return self._keep(asset, partition, check_data_version(data_version), data, ".json", 0, ())

    def read_document(self, asset: AssetPath, partition: str, *, data_version: str | None = None) -> dict[str, Any]:
        """Return the current or the given version of a document."""
        return json.loads(self._find(asset, partition, data_version, ".json"))

    def describe(self, asset: AssetPath, partition: str, *, data_version: str | None = None) -> StoredPartition | None:
        """Return what is known of a version, or None."""
        partition_path(asset, partition)
        place = (tuple(asset), partition)
        version = self.pointers.get(place, "") if data_version is None else check_data_version(data_version)
        known = self.contents.get((*place, version))
        return known[0] if known else None

    def partitions(self, asset: AssetPath) -> list[str]:
        """Return the sorted partition keys of an asset."""
        return sorted(partition for path, partition in self.pointers if path == tuple(asset))

    def _keep(
        self,
        asset: AssetPath,
        partition: str,
        version: str,
        data: bytes,
        suffix: str,
        n_rows: int,
        columns: tuple[tuple[str, str], ...],
    ) -> StoredPartition:
        stored = StoredPartition(
            asset=tuple(asset),
            partition=partition,
            data_version=version,
            n_rows=n_rows,
            columns=columns,
            n_bytes=len(data),
            url=f"fake://{partition_path(asset, partition)}/{version}{suffix}",
        )
        place = (tuple(asset), partition)
        self.pointers[place] = version
        return self.contents.setdefault((*place, version), (stored, data))[0]

    def _find(self, asset: AssetPath, partition: str, data_version: str | None, suffix: str) -> bytes:
        stored = self.describe(asset, partition, data_version=data_version)
        where = f"partition {partition!r} of {'/'.join(asset)}"
        if stored is None and data_version is None:
            raise StoreError(f"{where} has no current version; materialize the partition first")
        if stored is None:
            raise StoreError(f"{where} has no version {data_version}; materialize the partition again")
        if not stored.url.endswith(suffix):
            reader = "read()" if suffix == ".json" else "read_document()"
            raise StoreError(f"{where} is of another kind: {stored.url}; read it with {reader}")
        return self.contents[tuple(asset), partition, stored.data_version][1]
