"""Dagster Components that teams instantiate in YAML or Python, and the loader of a team's folder."""

from ml_assets.components.training_pipeline import TrainingPipeline

__all__ = ["TrainingPipeline"]
