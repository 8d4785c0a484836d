"""The data store on any fsspec path: immutable Parquet and JSON versions, and a pointer to the newest."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml_assets.digest import canonical_table, table_digest
from ml_assets.errors import StoreError
from ml_assets.interfaces import AssetPath, StoredPartition
from ml_assets.store_paths import asset_path, check_data_version, partition_key, partition_path
from resources.atomic_files import files_below, local_folder
from resources.partition_folder import POINTER, PartitionFolder, seal

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ParquetDataStore:
    """A `DataStore` in a local folder or below any fsspec URL.

    A partition's folder holds `<data version>.parquet` (or `.json`) for each version, and `current.json`,
    which is replaced as a whole: a process killed at any moment leaves the old version current and readable,
    and of two writers at once both versions are kept and one becomes current. Making a store does no input
    or output, and it may be used after a fork.

    Attributes:
        root: A folder, or a URL such as "s3://bucket/assets". Passwords belong in `storage_options`.
        storage_options: Arguments for the fsspec file system, such as keys; never shown.
        verify: Whether each read of a table computes its digest anew, which reads all columns. Without it,
            damage is found by the checksums of the pages that are read.
    """

    root: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)
    verify: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not self.root or self.root.startswith("~"):
            raise StoreError(f"the data store's root is {self.root!r}; expected the path of a folder, or a URL")
        if re.search(r"://[^/]*:[^/]*@", self.root):
            raise StoreError("the data store's root holds a password; pass it in storage_options instead")
        folder = local_folder(self.root)
        object.__setattr__(self, "root", str(folder) if folder else self.root)

    def write(self, asset: AssetPath, partition: str, table: "pa.Table") -> StoredPartition:
        """Store a table under its digest, in the form of `canonical_table`, and make it current.

        When the partition has an intact file of this digest, it is not written again.

        Raises:
            StoreError: If the table, the path or the key cannot be stored, or the disk refuses.
        """
        place = self._place(asset, partition)
        content = canonical_table(table)
        version = table_digest(content)
        if not place.is_intact("table", version):
            place.publish(place.key("table", version), lambda sink: _write_parquet(content, sink))
        stored = place.describe("table", version, n_rows=content.num_rows, schema=content.schema)
        return place.make_current("table", stored)

    def read(
        self,
        asset: AssetPath,
        partition: str,
        *,
        columns: Sequence[str] | None = None,
        data_version: str | None = None,
    ) -> "pa.Table":
        """Return the columns asked for, in that order, of the current or the given version.

        Raises:
            StoreError: If the partition, version or a column does not exist, or the file is damaged.
        """
        place = self._place(asset, partition)
        if data_version is not None:
            return place.table(check_data_version(data_version), columns, verify=self.verify)
        current = place.require_current("table")
        return place.table(current.data_version, columns, verify=self.verify, expected=current)

    def write_document(
        self, asset: AssetPath, partition: str, document: Mapping[str, Any], *, data_version: str
    ) -> StoredPartition:
        """Store a JSON document under its writer's digest and make it current.

        A version does not change: when the partition has an intact document of this digest, that one stays.

        Raises:
            StoreError: If a value is not JSON, the digest, path or key is malformed, or the disk refuses.
        """
        place = self._place(asset, partition)
        content = seal(dict(document))
        if not place.is_intact("document", check_data_version(data_version)):
            place.publish(place.key("document", data_version), lambda sink: sink.write(content))
        return place.make_current("document", place.describe("document", data_version))

    def read_document(self, asset: AssetPath, partition: str, *, data_version: str | None = None) -> dict[str, Any]:
        """Return the current or the given version of a document; raises StoreError when there is none."""
        place = self._place(asset, partition)
        if data_version is None:
            return place.document(place.require_current("document").data_version)
        return place.document(check_data_version(data_version))

    def describe(self, asset: AssetPath, partition: str, *, data_version: str | None = None) -> StoredPartition | None:
        """Return what the pointer says, or of a given version the Parquet footer; None when there is none.

        Raises:
            StoreError: If the pointer or the footer is damaged, or the path, key or version is malformed.
        """
        place = self._place(asset, partition)
        if data_version is None:
            current = place.current()
            return current[1] if current else None
        if place.holds("table", check_data_version(data_version)):
            return place.describe_table(data_version)
        return place.describe("document", data_version) if place.holds("document", data_version) else None

    def partitions(self, asset: AssetPath) -> list[str]:
        """Return the sorted partition keys that have a current version."""
        names = files_below(self.root, self.storage_options).folders_with(POINTER, below=asset_path(asset))
        return sorted(partition_key(name) for name in names)

    def _place(self, asset: AssetPath, partition: str) -> PartitionFolder:
        return PartitionFolder(
            files=files_below(self.root, self.storage_options),
            asset=tuple(asset),
            partition=partition,
            folder=partition_path(asset, partition),
        )


def _write_parquet(table: "pa.Table", sink: "pa.NativeFile") -> None:
    """Write a table with the options that measured best on mixed columns; see the benchmark."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    without_text = [column.name for column in table.schema if not any(is_a(column.type) for is_a in texts)]
    pq.write_table(
        table,
        sink,
        compression="zstd",
        # A column of almost distinct values gives up its dictionary sooner than at 1 MiB, the default.
        dictionary_pagesize_limit=64 * 1024,
        # Least and greatest text take a fifth of the whole time, and nothing here filters by them.
        write_statistics=without_text,  # pyright: ignore[reportArgumentType] - it takes names as well
        write_page_checksum=True,
    )
