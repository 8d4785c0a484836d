"""The folder of one partition in the data store: its versions, and the pointer to the newest."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from ml_assets.digest import column_types, document_digest, table_digest
from ml_assets.errors import StoreError
from ml_assets.interfaces import AssetPath, StoredPartition
from ml_assets.store_paths import check_data_version
from resources.atomic_files import AtomicFiles, Writer

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Kind = Literal["table", "document"]

POINTER = "current.json"
_POINTER_FORMAT = 1
_SUFFIX: dict[Kind, str] = {"table": ".parquet", "document": ".json"}
_READER: dict[Kind, str] = {"table": "read()", "document": "read_document()"}


@dataclass(frozen=True, kw_only=True)
class PartitionFolder:
    """The folder of one partition; a failure in it becomes a StoreError that says where and what to do."""

    files: AtomicFiles
    asset: AssetPath
    partition: str
    folder: str

    def __str__(self) -> str:
        return f"partition {self.partition!r} of {'/'.join(self.asset)}"

    def key(self, kind: Kind, version: str) -> str:
        """Return where a version is, below the root."""
        return f"{self.folder}/{version}{_SUFFIX[kind]}"

    def holds(self, kind: Kind, version: str) -> bool:
        """Return whether there is a file of this version."""
        return self.files.size(self.key(kind, version)) is not None

    def publish(self, key: str, write: Writer) -> None:
        """Write a file, whole or not at all."""
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
        """Return what is known of a stored version."""
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
        self.publish(f"{self.folder}/{POINTER}", lambda sink: sink.write(json.dumps(record).encode()))
        self.files.clean(self.folder)
        return stored

    def current(self) -> tuple[Kind, StoredPartition] | None:
        """Return what the pointer says, or None when there is no pointer."""
        key = f"{self.folder}/{POINTER}"
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
        """Return what the pointer says; raises StoreError when there is none, or it is of the other kind."""
        current = self.current()
        if current is None:
            raise StoreError(
                f"{self} has no current version: there is no {self.files.url(f'{self.folder}/{POINTER}')}; "
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
        """Return what the footer of a version says."""
        with self._parquet(version) as file:
            n_rows, schema = file.metadata.num_rows, file.schema_arrow
        return self.describe("table", version, n_rows=n_rows, schema=schema)

    def document(self, version: str) -> dict[str, Any]:
        """Return a version of a document, when its content is what was sealed."""
        with self._explained("document", version) as key:
            sealed = json.loads(self.files.read(key))
            if document_digest(sealed["document"]) != sealed["sha256"]:
                raise ValueError("its content does not have the digest that was stored with it")
        return sealed["document"]

    def is_intact(self, kind: Kind, version: str) -> bool:
        """Return whether a version is there and its content is what was once written."""
        if not self.holds(kind, version):
            return False
        try:
            if kind == "table":
                self.table(version, verify=True)
            else:
                self.document(version)
        except StoreError:
            return False
        return True

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


def seal(document: dict[str, Any]) -> bytes:
    """Return a document as JSON with its own digest beside it, so that damage shows when it is read."""
    digest = document_digest(document)
    return json.dumps({"sha256": digest, "document": document}, ensure_ascii=False).encode()
