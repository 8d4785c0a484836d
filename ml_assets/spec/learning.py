"""The part of a pipeline's description about learning: training, variants, evaluation, gates, scoring."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ml_assets.spec.compute import ComputeChoice, ComputeSpec
from ml_assets.spec.model import ListOf, SpecModel
from ml_assets.spec.search import SearchSpec


class TrainingSpec(SpecModel):
    """Which past rows a model learns from."""

    window: Literal["expanding"] | Annotated[int, Field(ge=1, le=1000)] = "expanding"
    """Past periods (time partitions) to learn from: a number, or expanding for all since the start."""
    validation_periods: Annotated[int, Field(ge=1, le=100)] = 1
    """Last periods of the window that select the variant; the earlier ones train it."""
    single_period_validation: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Share of days, from the end, that validates when the window has too few periods to set any aside."""
    min_rows: Annotated[int, Field(ge=1)] = 100
    """Labelled rows that each of the two splits must have at least."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of everything random: estimators' random_state and the bootstrap."""
    refit: bool = True
    """Whether the winning variant is fitted again on training and validation rows together."""


class PreprocessingSpec(SpecModel):
    """How columns are turned into numbers, fitted together with the estimator as one object."""

    numeric: Literal["keep", "standardize"] = "keep"
    """keep: as they are; standardize: zero mean and unit variance."""
    missing: Literal["keep", "median"] = "keep"
    """keep: the estimator handles missing numbers; median: filled, with an indicator column."""
    categorical: Literal["one_hot", "ordinal", "target"] = "ordinal"
    """How text and boolean columns are encoded; values unseen in training get a code of their own."""
    min_frequency: Annotated[int, Field(ge=1)] = 20
    """Rows below which a category counts as infrequent (one_hot)."""


class VariantSpec(SpecModel):
    """One way to fit a model; all variants of a pipeline compete on the validation split."""

    estimator: str
    """Import path of a scikit-learn compatible estimator class, such as sklearn.linear_model.LogisticRegression."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Its constructor's arguments. random_state is set from training.seed when the class has one. With `train` they
    go to that function as they are."""
    train: str | None = None
    """Dotted path of a function in the team's package that trains instead of the class's own fit method, such as
    deployments.flights.defs.arrival_delay.training.fit_network; it returns a fitted `estimator`."""
    preprocessing: PreprocessingSpec = PreprocessingSpec()
    """How columns become numbers."""
    compute: ComputeChoice = ComputeSpec()
    """What its training step may use: a profile's name, or a mapping."""
    search: SearchSpec | None = None
    """Search for its best parameters, by inner folds of the training split; none when absent."""
    trusted_types: Annotated[tuple[str, ...], ListOf] = ()
    """Types outside numpy and scikit-learn that a stored model of this variant may hold, by full name."""


class SelectionSpec(SpecModel):
    """How the best variant is chosen."""

    metric: str
    """Metric on the validation split; better is higher or lower as the metric's definition says."""


class EvaluationSpec(SpecModel):
    """What is measured on the untouched later rows."""

    metrics: Annotated[tuple[str, ...], ListOf, Field(min_length=1)]
    """Metrics to report, with intervals."""
    slices: Annotated[tuple[str, ...], ListOf] = ()
    """Columns (features, source columns or the group) whose values are evaluated apart."""
    baseline: str = "prior"
    """What a model must beat: prior (the training rows' rate, class shares or mean), or a feature column whose
    value is the naive prediction, such as the value a year ago."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Confidence of every interval, as a fraction."""
    replicates: Annotated[int, Field(ge=100, le=100_000)] = 500
    """Bootstrap replicates; rows are resampled in blocks of whole days."""


class ScoringSpec(SpecModel):
    """What the champion scores, and where the scores go."""

    columns: Annotated[tuple[str, ...], ListOf] = ()
    """Columns kept beside row id, event time and score, such as the carrier."""
    url: str | None = None
    """fsspec URL of a folder that also receives each partition's scores as Parquet; none when absent."""
