"""The data store on any fsspec path: immutable Parquet and JSON versions, and a pointer to the newest."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from ml_assets.digest import canonical_table, column_types, document_digest, table_digest
from ml_assets.errors import StoreError
from ml_assets.interfaces import AssetPath, StoredPartition
from ml_assets.store_paths import asset_path, check_data_version, partition_key, partition_path
from resources.atomic_files import AtomicFiles, Writer, files_below, local_folder

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Kind = Literal["table", "document"]

_POINTER = "current.json"
_POINTER_FORMAT = 1
_SUFFIX: dict[Kind, str] = {"table": ".parquet", "document": ".json"}
_READER: dict[Kind, str] = {"table": "read()", "document": "read_document()"}


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
        if not _is_intact(place, "table", version):
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
        content = _seal(dict(document))
        if not _is_intact(place, "document", check_data_version(data_version)):
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
        names = files_below(self.root, self.storage_options).folders_with(_POINTER, below=asset_path(asset))
        return sorted(partition_key(name) for name in names)

    def _place(self, asset: AssetPath, partition: str) -> "_Place":
        return _Place(
            files=files_below(self.root, self.storage_options),
            asset=tuple(asset),
            partition=partition,
            folder=partition_path(asset, partition),
        )


@dataclass(frozen=True, kw_only=True)
class _Place:
    """The folder of one partition; a failure in it becomes a StoreError that says where and what to do."""

    files: AtomicFiles
    asset: AssetPath
    partition: str
    folder: str

    def __str__(self) -> str:
        return f"partition {self.partition!r} of {'/'.join(self.asset)}"

    def key(self, kind: Kind, version: str) -> str:
        return f"{self.folder}/{version}{_SUFFIX[kind]}"

    def holds(self, kind: Kind, version: str) -> bool:
        return self.files.size(self.key(kind, version)) is not None

    def publish(self, key: str, write: Writer) -> None:
        try:
            self.files.publish(key, write)
        except OSError as error:
            raise StoreError(
                f"{self} could not be written to {self.files.url(key)}: {error}; what was current still is. "
                "Check the space and the rights there, then materialize the partition again"
            ) from error

    def describe(
        self, kind: Kind, version: str, *, n_rows: int = 0, schema: "pa.Schema | None" = None
    ) -> StoredPartition:
        key = self.key(kind, version)
        return StoredPartition(
            asset=self.asset,
            partition=self.partition,
            data_version=version,
            n_rows=n_rows,
            columns=column_types(schema) if schema is not None else (),
            n_bytes=self.files.size(key) or 0,
            url=self.files.url(key),
        )

    def make_current(self, kind: Kind, stored: StoredPartition) -> StoredPartition:
        """Point at a stored version and clear away what killed writers left long ago."""
        record = {
            "format": _POINTER_FORMAT,
            "kind": kind,
            "data_version": stored.data_version,
            "n_rows": stored.n_rows,
            "columns": stored.columns,
            "n_bytes": stored.n_bytes,
        }
        self.publish(f"{self.folder}/{_POINTER}", lambda sink: sink.write(json.dumps(record).encode()))
        self.files.clean(self.folder)
        return stored

    def current(self) -> tuple[Kind, StoredPartition] | None:
        """Return what the pointer says, or None when there is no pointer."""
        key = f"{self.folder}/{_POINTER}"
        try:
            return self._parse_pointer(json.loads(self.files.read(key)))
        except FileNotFoundError:
            return None
        except (KeyError, OSError, StoreError, TypeError, ValueError) as error:
            raise StoreError(
                f"the pointer to the current version of {self} cannot be read: {self.files.url(key)}: "
                f"{type(error).__name__}: {error}; materialize the partition again to replace it"
            ) from error

    def require_current(self, kind: Kind) -> StoredPartition:
        current = self.current()
        if current is None:
            raise StoreError(
                f"{self} has no current version: there is no {self.files.url(f'{self.folder}/{_POINTER}')}; "
                "materialize the partition first"
            )
        if current[0] != kind:
            raise StoreError(f"{self} holds a {current[0]}, not a {kind}; read it with {_READER[current[0]]}")
        return current[1]

    def table(
        self,
        version: str,
        columns: Sequence[str] | None = None,
        *,
        verify: bool,
        expected: StoredPartition | None = None,
    ) -> "pa.Table":
        """Return the columns of a version; with `verify` only if all columns together have its digest."""
        with self._parquet(version) as file:
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
            if expected and (n_rows, column_types(schema)) != (expected.n_rows, expected.columns):
                differing = [str(pair) for pair in set(column_types(schema)) ^ set(expected.columns)]
                raise ValueError(
                    f"it has {n_rows} rows and the pointer says {expected.n_rows}; "
                    f"columns of the one but not the other: {sorted(differing)[:20]}"
                )
            missing = [name for name in columns or () if name not in schema.names]
            if missing:
                raise StoreError(self._missing_columns(missing, schema.names))
            table = file.read(columns=None if columns is None or verify else list(columns))
            if verify and (found := table_digest(table)) != version:
                raise ValueError(f"its content has the digest {found}")
        return table if columns is None else table.select(list(columns))

    def describe_table(self, version: str) -> StoredPartition:
        with self._parquet(version) as file:
            n_rows, schema = file.metadata.num_rows, file.schema_arrow
        return self.describe("table", version, n_rows=n_rows, schema=schema)

    def document(self, version: str) -> dict[str, Any]:
        with self._explained("document", version) as key:
            sealed = json.loads(self.files.read(key))
            if document_digest(sealed["document"]) != sealed["sha256"]:
                raise ValueError("its content does not have the digest that was stored with it")
        return sealed["document"]

    @contextmanager
    def _parquet(self, version: str) -> "Iterator[pq.ParquetFile]":
        import pyarrow.parquet as pq

        with (
            self._explained("table", version) as key,
            self.files.open(key) as source,
            pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=True) as file,
        ):
            yield file

    @contextmanager
    def _explained(self, kind: Kind, version: str) -> Iterator[str]:
        """Give the key of a version's file, and turn what goes wrong while it is read into a StoreError."""
        import pyarrow as pa

        key = self.key(kind, version)
        try:
            yield key
        except FileNotFoundError as error:
            raise StoreError(self._missing_version(kind, version)) from error
        except (pa.ArrowException, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise StoreError(
                f"{self}: the {kind} {self.files.url(key)} is damaged or cannot be read: "
                f"{type(error).__name__}: {error}; check that the store can be reached, then materialize the "
                "partition again, which writes it anew"
            ) from error

    def _missing_version(self, kind: Kind, version: str) -> str:
        other: Kind = "document" if kind == "table" else "table"
        if self.holds(other, version):
            return f"{self}: version {version} is a {other}, not a {kind}; read it with {_READER[other]}"
        current = self.current()
        found = f"and the current version is {current[1].data_version}" if current else "nor a current one"
        if current and current[1].data_version == version:
            found = "although it is the current version"
        return (
            f"{self} has no {kind} of version {version}: there is no "
            f"{self.files.url(self.key(kind, version))}, {found}; materialize the partition again"
        )

    def _missing_columns(self, missing: Sequence[str], names: Sequence[str]) -> str:
        close = get_close_matches(missing[0], names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(names)[:20])}"
        return f"{self} has no column {', '.join(map(repr, missing[:10]))}; {hint}"

    def _parse_pointer(self, record: dict[str, Any]) -> tuple[Kind, StoredPartition]:
        if record["format"] != _POINTER_FORMAT:
            raise ValueError(f"its format is {record['format']!r}, and this release reads {_POINTER_FORMAT}")
        kind: Kind = record["kind"]
        key = self.key(kind, check_data_version(record["data_version"]))
        return kind, StoredPartition(
            asset=self.asset,
            partition=self.partition,
            data_version=record["data_version"],
            n_rows=int(record["n_rows"]),
            columns=tuple((str(name), str(dtype)) for name, dtype in record["columns"]),
            n_bytes=int(record["n_bytes"]),
            url=self.files.url(key),
        )


def _is_intact(place: _Place, kind: Kind, version: str) -> bool:
    """Return whether a version is there and its content is what was once written."""
    if not place.holds(kind, version):
        return False
    try:
        if kind == "table":
            place.table(version, verify=True)
        else:
            place.document(version)
    except StoreError:
        return False
    return True


def _seal(document: dict[str, Any]) -> bytes:
    """Return a document as JSON with its own digest beside it, so that damage shows when it is read."""
    digest = document_digest(document)
    return json.dumps({"sha256": digest, "document": document}, ensure_ascii=False).encode()


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
