"""What is asked of data: a store of versioned partitions, and a validator of expectations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ml_assets.interfaces.names import AssetPath, Severity

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class StoredPartition:
    """What the store knows of one version of one partition without reading its rows.

    Attributes:
        asset: The asset's path.
        partition: Dagster's partition key, such as "EWR|2013-01" or "2013-01".
        data_version: Digest of the content: 64 hexadecimal digits (SHA-256).
        n_rows: Rows in the table; 0 for a document.
        columns: Name and Arrow type of each column, in order; empty for a document.
        n_bytes: Size of the stored file in bytes.
        url: Where the file lies, with its protocol when it is not local.
    """

    asset: AssetPath
    partition: str
    data_version: str
    n_rows: int
    columns: tuple[tuple[str, str], ...]
    n_bytes: int
    url: str


class DataStore(Protocol):
    """Versioned partitions of tables (Parquet) and of small documents (JSON) on an fsspec path.

    Versions are immutable and kept: the newest write is what a read without `data_version` gives, and an
    older version stays readable by its digest, so that a training set may pin what it was made of.
    """

    def write(self, asset: AssetPath, partition: str, table: "pa.Table") -> StoredPartition:
        """Store a table atomically under the digest of its content and make it the current version."""
        ...

    def read(
        self,
        asset: AssetPath,
        partition: str,
        *,
        columns: Sequence[str] | None = None,
        data_version: str | None = None,
    ) -> "pa.Table":
        """Return the columns asked for (all when None) of the current or the given version.

        Raises:
            StoreError: If the partition, version or a column does not exist, or the file is damaged.
        """
        ...

    def write_document(
        self, asset: AssetPath, partition: str, document: Mapping[str, Any], *, data_version: str
    ) -> StoredPartition:
        """Store a JSON document under a digest that its writer computed, and make it current.

        The digest is the caller's, since a record may carry values that are no content, such as a run id.
        """
        ...

    def read_document(self, asset: AssetPath, partition: str, *, data_version: str | None = None) -> dict[str, Any]:
        """Return the current or the given version of a document; raises StoreError when there is none."""
        ...

    def describe(self, asset: AssetPath, partition: str, *, data_version: str | None = None) -> StoredPartition | None:
        """Return what is known of a partition's version, or None when it does not exist."""
        ...

    def partitions(self, asset: AssetPath) -> list[str]:
        """Return the sorted partition keys that have a current version."""
        ...


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """One Great Expectations expectation in that library's own JSON form.

    Attributes:
        type: Snake-case name, such as "expect_column_values_to_be_between".
        kwargs: Its arguments, such as {"column": "distance", "min_value": 0}.
        severity: "error" closes the gate, "warning" is shown only.
    """

    type: str
    kwargs: Mapping[str, Any]
    severity: Severity = "error"

    @property
    def label(self) -> str:
        """Return a short unique-enough name for tables: the type and the column it looks at."""
        column = self.kwargs.get("column") or self.kwargs.get("column_list") or ""
        return f"{self.type.removeprefix('expect_')}({column})" if column else self.type.removeprefix("expect_")


@dataclass(frozen=True, kw_only=True)
class ExpectationResult:
    """How one expectation went on one batch.

    Attributes:
        expectation: What was expected.
        success: Whether it holds.
        n_failing: Rows that break it; 0 when it holds, and None when it is not about single rows.
        n_rows: Rows it looked at.
        sample: Up to 20 failing rows (all columns of the batch) as records; empty when it holds.
        observed: The observed value for an expectation about an aggregate, or None.
    """

    expectation: Expectation
    success: bool
    n_failing: int | None
    n_rows: int
    sample: tuple[Mapping[str, Any], ...] = ()
    observed: Any = None


class Validator(Protocol):
    """Runs a suite of expectations on one batch."""

    def validate(self, frame: "pd.DataFrame", expectations: Sequence[Expectation]) -> list[ExpectationResult]:
        """Return one result for each expectation, in their order.

        Raises:
            SpecError: If an expectation is unknown or its arguments are wrong.
        """
        ...

    def check_definitions(self, expectations: Sequence[Expectation]) -> list[str | None]:
        """Return for each expectation None when it is well-formed, or one sentence that says why not."""
        ...
