"""What ml_assets needs from the world, as Protocols over frozen values; `resources` implements them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

AssetPath = tuple[str, ...]
"""Segments of an asset key, such as ("flights", "arrival_delay", "raw_data")."""

Severity = Literal["error", "warning"]
GateOutcome = Literal["passed", "failed"]
DecisionOutcome = Literal["promoted", "kept", "undecided", "refused"]


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


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one gate said of one data version under one policy version.

    Attributes:
        asset: The asset's path.
        partition: Dagster's partition key.
        data_version: The version that was judged.
        policy_version: Digest of the thresholds and expectations that were applied.
        check: Name of the gate, such as "expectations" or "roc_auc.floor".
        outcome: "passed" or "failed".
        severity: Only a failed "error" closes the gate.
        reason: One sentence with the measured value and the threshold.
        run_id: Dagster run that judged.
        evidence: JSON-ready numbers behind the sentence.
        recorded_at: Time zone aware, UTC; set by the ledger when None.
    """

    asset: AssetPath
    partition: str
    data_version: str
    policy_version: str
    check: str
    outcome: GateOutcome
    severity: Severity
    reason: str
    run_id: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    recorded_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided of one candidate: promoted, kept (champion stays), undecided, or refused by a gate.

    Attributes:
        pipeline: (team, pipeline).
        partition: Time partition of the candidate.
        outcome: See above.
        reason: One sentence for a reader.
        model_name: Registered model's name.
        model_version: Registered version of the candidate, or None when it was not registered.
        champion_version: Version that was champion before, or None.
        data_version: Data version of the evaluation that was judged.
        policy_version: Digest of the policy that was applied.
        run_id: Dagster run that decided.
        evidence: JSON-ready numbers behind the sentence.
        recorded_at: Time zone aware, UTC; set by the ledger when None.
    """

    pipeline: tuple[str, str]
    partition: str
    outcome: DecisionOutcome
    reason: str
    model_name: str
    model_version: str | None
    champion_version: str | None
    data_version: str
    policy_version: str
    run_id: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    recorded_at: datetime | None = None


class Ledger(Protocol):
    """The append-only record of verdicts and decisions."""

    def record_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Append all of them in one transaction."""
        ...

    def verdicts(
        self,
        asset: AssetPath,
        partition: str | None = None,
        *,
        data_version: str | None = None,
        policy_version: str | None = None,
    ) -> list[Verdict]:
        """Return the matching verdicts, oldest first; None matches all."""
        ...

    def record_decision(self, decision: Decision) -> None:
        """Append one decision."""
        ...

    def decisions(self, pipeline: tuple[str, str]) -> list[Decision]:
        """Return the pipeline's decisions, oldest first."""
        ...


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """One value of the policy and where it stands.

    Attributes:
        name: Such as "roc_auc.floor" or "promotion.margin".
        value: Its number, in the metric's own unit; None for a flag that carries no number.
        severity: "error" closes the gate, "warning" is shown only.
        reason: Why it has this value.
        file: Policy file.
        line: 1-based line in it.
    """

    name: str
    value: float | None
    severity: Severity
    reason: str
    file: str
    line: int


class PolicySource(Protocol):
    """Where thresholds are read at run time."""

    def thresholds(self) -> dict[str, Threshold]:
        """Read the policy now and return its thresholds by name.

        Raises:
            PolicyError: If a file cannot be parsed or has an unknown key, with file and line.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class DatasetInput:
    """A data set that a model run used, for the tracker's lineage.

    Attributes:
        name: Asset path and partition in words.
        digest: Its data version.
        context: "training", "validation" or "testing".
        url: Where it lies.
    """

    name: str
    digest: str
    context: str
    url: str


@dataclass(frozen=True, kw_only=True)
class ModelRun:
    """Everything the registry records of one fitted model.

    Attributes:
        experiment: Tracker experiment, such as "flights/arrival_delay".
        name: Run name, such as "2013-02 candidate".
        model: A fitted scikit-learn compatible estimator.
        input_example: A few rows the model accepts, as a frame; the signature is inferred from it.
        output_example: The model's output on `input_example`, shape (n,) or (n, n_classes).
        params: Flat parameters.
        metrics: Flat metrics.
        tags: Code version, data versions, partition, Dagster run, team and so on.
        inputs: Data sets used.
        trusted_types: Fully qualified types that loading may construct beside the library's own list.
    """

    experiment: str
    name: str
    model: Any
    input_example: "pd.DataFrame"
    output_example: Any
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    inputs: Sequence[DatasetInput] = ()
    trusted_types: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class LoggedModel:
    """A model that the tracker holds: its run, and the address to load it from."""

    run_id: str
    model_uri: str


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One registered version of a model.

    Attributes:
        name: Registered model's name.
        version: Version as the registry writes it, such as "3".
        run_id: Tracker run it came from.
        model_uri: Address to load it from.
        tags: The version's tags.
    """

    name: str
    version: str
    run_id: str
    model_uri: str
    tags: Mapping[str, str] = field(default_factory=dict)


class ModelRegistry(Protocol):
    """Keeps fitted models, their runs, registered versions and aliases."""

    def log_model(self, run: ModelRun) -> LoggedModel:
        """Record one run with its model; the model is written without pickle."""
        ...

    def log_results(self, run_id: str, *, metrics: Mapping[str, float], files: Mapping[str, bytes]) -> None:
        """Add metrics and artefact files (path → bytes, such as "evaluation/roc.png") to a run."""
        ...

    def load(self, model_uri: str, *, trusted_types: Sequence[str] = ()) -> Any:
        """Return the fitted estimator.

        Raises:
            RegistryError: If it does not exist, is stored with pickle, or holds a type not trusted.
        """
        ...

    def register(self, name: str, model: LoggedModel, *, tags: Mapping[str, str]) -> ModelVersion:
        """Return the version registered for this model's run; registering twice gives the same version."""
        ...

    def version(self, name: str, version: str) -> ModelVersion:
        """Return one version; raises RegistryError when there is none."""
        ...

    def version_by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """Return the version under an alias, or None."""
        ...

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version."""
        ...
