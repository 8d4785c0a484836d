"""What is asked of models: a registry of fitted models, and a check that a registered one can be served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


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
        run_id: A run that was started for it; empty for a new one.
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
    run_id: str = ""


@dataclass(frozen=True, kw_only=True)
class TrialRun:
    """Everything the registry records of one trial of a search.

    Attributes:
        number: From 0; a search has each number once.
        name: Run name, such as "trial 7".
        state: "completed", "pruned" or "failed".
        params: Flat parameters.
        metrics: Flat metrics; empty for a failed trial.
        reports: Step → value on the way.
        tags: Such as the reason of a failure.
        seconds: How long it took.
    """

    number: int
    name: str
    state: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    reports: Mapping[int, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


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

    def start_run(
        self, experiment: str, name: str, *, tags: Mapping[str, str], continues: str = "", once: Sequence[str] = ()
    ) -> str:
        """Return the id of a run that goes on: of `continues` while that does, one with the same tags, or a new one.

        Args:
            experiment: The experiment's name.
            name: Of a new run.
            tags: Of a new run.
            continues: Id of a run; empty for none.
            once: Names of tags by which a run is found again whose starter died before it could keep the id; with
                none of them no other run is looked for. Their values have no quotes.
        """
        ...

    def fail_run(self, run_id: str) -> None:
        """End a run that was started, as failed; raises RegistryError when there is none."""
        ...

    def log_trials(self, run_id: str, trials: Sequence[TrialRun]) -> None:
        """Record trials as runs nested in a run; a number that is there whole stays as it is.

        Raises:
            RegistryError: If a metric is not a finite number, or there is no such run.
        """
        ...

    def log_results(self, run_id: str, *, metrics: Mapping[str, float], files: Mapping[str, bytes]) -> None:
        """Add metrics and artefact files (path → bytes, such as "evaluation/roc.png") to a run."""
        ...

    def load(self, model_uri: str, *, trusted_types: Sequence[str] = (), digest: str | None = None) -> Any:
        """Return the fitted estimator.

        Args:
            model_uri: Address of the model.
            trusted_types: Types it may hold beside the library's own list.
            digest: SHA-256 that the stored file must have; None accepts the one recorded beside it.

        Raises:
            RegistryError: If it does not exist, is stored with pickle, was changed, or holds a type not trusted.
        """
        ...

    def digest(self, model_uri: str) -> str:
        """Return the SHA-256 of the stored model's bytes as they are now: 64 hexadecimal digits."""
        ...

    def example(self, model_uri: str) -> "pd.DataFrame":
        """Return the input example that was stored with the model; raises RegistryError when there is none."""
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

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias; nothing happens when it is not set."""
        ...

    def set_version_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version; raises RegistryError when there is none."""
        ...


@dataclass(frozen=True, kw_only=True)
class ServingLimits:
    """What serving may take.

    Attributes:
        latency_ms: Most milliseconds for scoring 1,000 rows (median of repeated calls).
        model_mb: Largest model file in MB (10⁶ bytes).
        score_tolerance: Largest difference between a served score and the evaluated one.
    """

    latency_ms: float
    model_mb: float
    score_tolerance: float


@dataclass(frozen=True, kw_only=True)
class ServingReport:
    """How a registered model did in a process that knew the registry alone.

    Attributes:
        problems: What is wrong, a sentence each; empty when it may serve.
        n_rows: Rows scored beside the input example.
        load_seconds: Wall time of loading the model.
        latency_ms: Median milliseconds for 1,000 rows.
        n_bytes: Size of the model's file.
        model_digest: SHA-256 of the model's file.
        largest_difference: Between the served and the evaluated scores.
        example_scores: Scores of the input example, flattened.
    """

    problems: tuple[str, ...]
    n_rows: int = 0
    load_seconds: float = 0.0
    latency_ms: float = 0.0
    n_bytes: int = 0
    model_digest: str = ""
    largest_difference: float = 0.0
    example_scores: tuple[float, ...] = ()

    @property
    def passed(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.problems


class ServingCheck(Protocol):
    """Serves a registered version in a clean process, before it may become champion."""

    def check(
        self,
        version: ModelVersion,
        rows: "pd.DataFrame",
        expected: "NDArray[np.float64]",
        *,
        task: str,
        limits: ServingLimits,
        trusted_types: Sequence[str] = (),
    ) -> ServingReport:
        """Load the version from the registry alone, score its input example and the rows, and compare.

        Args:
            version: What to serve.
            rows: Feature columns as the evaluation scored them, shape (n_rows, n_features).
            expected: Evaluated scores of `rows`, shape (n_rows,) or (n_rows, n_classes).
            task: "binary", "multiclass" or "regression".
            limits: What it may take.
            trusted_types: Types it may hold beside the library's own list.

        Returns:
            The report; a model that cannot be loaded or scored is a problem in it, not an exception.
        """
        ...


class DossierStore(Protocol):
    """Where the HTML dossiers of decisions lie."""

    def write(self, pipeline: tuple[str, str], name: str, html: str) -> str:
        """Write one self-contained page atomically and return its address."""
        ...
