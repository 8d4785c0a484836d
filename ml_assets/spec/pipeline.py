"""The description of one pipeline as a team writes it, in YAML or in Python."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ml_assets.spec.automation import AutomationSpec, FreshnessSpec, MonitoringSpec
from ml_assets.spec.data import ExpectationsSpec, FeaturesSpec, LabelSpec, PartitionsSpec, SourceSpec
from ml_assets.spec.learning import EvaluationSpec, ScoringSpec, SelectionSpec, TrainingSpec, VariantSpec
from ml_assets.spec.model import Identifier, ListOf, SpecModel

Owner = Annotated[str, StringConstraints(pattern=r"^(team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$")]
"""`team:name` or an e-mail address."""


class BusinessSpec(SpecModel):
    """What the pipeline is for, for reviewers and auditors."""

    unit: str
    """Business unit that answers for the model."""
    product: str
    """Product or process that uses the predictions."""
    data_classification: Literal["public", "internal", "confidential", "restricted"]
    """Sensitivity of the data."""
    regulations: Annotated[tuple[str, ...], ListOf] = ()
    """Regulations that apply, such as GDPR; empty when none does."""


class PipelineSpec(SpecModel):
    """One pipeline: from arriving partitions to features, models, evaluations, promotion and predictions."""

    name: Identifier
    """Name of the pipeline, unique within its team."""
    team: Identifier
    """Team that owns it; the first segment of every asset's key."""
    owners: Annotated[tuple[Owner, ...], ListOf, Field(min_length=1)]
    """Who answers for it: team:name or e-mail addresses."""
    description: str = ""
    """What it predicts and what for, in a sentence or two."""
    business: BusinessSpec
    """Business context, recorded on every asset."""
    source: SourceSpec
    """Where the data arrive."""
    partitions: PartitionsSpec
    """How they are partitioned."""
    expectations: ExpectationsSpec = ExpectationsSpec()
    """What must hold of raw data and of features."""
    features: FeaturesSpec
    """What the model sees."""
    label: LabelSpec
    """What is predicted."""
    training: TrainingSpec = TrainingSpec()
    """Which past rows a model learns from."""
    variants: Annotated[dict[Identifier, VariantSpec], Field(min_length=1)]
    """The competing ways to fit a model, by name."""
    selection: SelectionSpec
    """How the best variant is chosen."""
    evaluation: EvaluationSpec
    """What is measured."""
    gates: Annotated[tuple[str, ...], ListOf] = ()
    """Thresholds of the policy that an evaluation must meet. <metric>.floor and <metric>.ceiling: the worse end of the
    interval must be on the value's right side. <metric>.beats_baseline: the improvement's lower end must exceed it."""
    scoring: ScoringSpec = ScoringSpec()
    """What the champion scores."""
    monitoring: MonitoringSpec = MonitoringSpec()
    """What new partitions are compared with."""
    automation: AutomationSpec = AutomationSpec()
    """What may start without a person."""
    freshness: FreshnessSpec = FreshnessSpec()
    """How old data and predictions may become."""
