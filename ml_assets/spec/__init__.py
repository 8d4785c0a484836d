"""The description of a pipeline: typed, strict, and documented field by field."""

from ml_assets.spec.automation import AutomationSpec, FreshnessSpec, MonitoringSpec
from ml_assets.spec.data import (
    AsOfSpec,
    ColumnSpec,
    EventTimeSpec,
    ExpectationSpec,
    ExpectationsSpec,
    FeaturesSpec,
    GroupSpec,
    LabelSpec,
    PartitionsSpec,
    SideTableSpec,
    SourceSpec,
)
from ml_assets.spec.learning import (
    ComputeSpec,
    EvaluationSpec,
    PreprocessingSpec,
    ScoringSpec,
    SelectionSpec,
    TrainingSpec,
    VariantSpec,
)
from ml_assets.spec.model import ColumnType, SpecModel, TaskType
from ml_assets.spec.pipeline import BusinessSpec, PipelineSpec

__all__ = [
    "AsOfSpec",
    "AutomationSpec",
    "BusinessSpec",
    "ColumnSpec",
    "ColumnType",
    "ComputeSpec",
    "EvaluationSpec",
    "EventTimeSpec",
    "ExpectationSpec",
    "ExpectationsSpec",
    "FeaturesSpec",
    "FreshnessSpec",
    "GroupSpec",
    "LabelSpec",
    "MonitoringSpec",
    "PartitionsSpec",
    "PipelineSpec",
    "PreprocessingSpec",
    "ScoringSpec",
    "SelectionSpec",
    "SideTableSpec",
    "SourceSpec",
    "SpecModel",
    "TaskType",
    "TrainingSpec",
    "VariantSpec",
]
