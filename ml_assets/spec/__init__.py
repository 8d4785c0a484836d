"""The description of a pipeline: typed, strict, and documented field by field."""

from ml_assets.spec.automation import AutomationSpec, FreshnessSpec, MonitoringSpec
from ml_assets.spec.compute import ComputeSpec, TolerationSpec
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
    EvaluationSpec,
    PreprocessingSpec,
    ScoringSpec,
    SelectionSpec,
    TrainingSpec,
    VariantSpec,
)
from ml_assets.spec.model import ColumnType, SpecModel, TaskType
from ml_assets.spec.pipeline import BusinessSpec, PipelineSpec
from ml_assets.spec.search import ParameterSpec, SearchSpec

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
    "ParameterSpec",
    "PartitionsSpec",
    "PipelineSpec",
    "PreprocessingSpec",
    "ScoringSpec",
    "SearchSpec",
    "SelectionSpec",
    "SideTableSpec",
    "SourceSpec",
    "SpecModel",
    "TaskType",
    "TolerationSpec",
    "TrainingSpec",
    "VariantSpec",
]
