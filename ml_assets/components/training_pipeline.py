"""The `TrainingPipeline` component: one YAML file (or one Python object) becomes one governed asset graph."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import dagster as dg
from pydantic import BaseModel, ConfigDict, PrivateAttr

from ml_assets.assets.pipeline_assets import build_pipeline_assets
from ml_assets.assets.previews import quiet_previews
from ml_assets.components.broken_pipeline import BrokenPipeline
from ml_assets.components.team_tree import rules_of
from ml_assets.errors import PolicyError, SpecError
from ml_assets.interfaces import ComputeRules
from ml_assets.reading.pipeline_file import LoadedPipeline, check_pipeline
from ml_assets.reading.placement import read_placed_pipeline
from ml_assets.reading.schema import pipeline_schema
from ml_assets.spec import PipelineSpec
from ml_assets.stages import (
    evaluation,
    features,
    models,
    predictions,
    promotion,
    raw_data,
    row_index,
    training_set,
)
from ml_assets.stages.step import StageResult, Step


class AnyAttributes(BaseModel):
    """Lets Dagster pass attributes through unread: they are read again from the file, strictly, with line numbers."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the true schema, for `dg` and for editors."""
        schema = pipeline_schema()
        return {**schema["properties"]["attributes"], "$defs": schema.get("$defs", {})}


class TrainingPipeline(PipelineSpec, dg.Component):
    """One pipeline: data, features, models, evaluation, promotion and predictions, by partition.

    In YAML it is `type: ml_assets.components.TrainingPipeline` with the fields of `PipelineSpec` as attributes.
    In Python the same fields are the constructor's arguments:

        pipeline = TrainingPipeline(name="arrival_delay", team="flights", ...)
        defs = pipeline.definitions(Path(__file__).parent)

    A stage is replaced by overriding its `run_…` method in a subclass and naming the subclass in the YAML
    (`type: .component.CleanedPipeline`):

        class CleanedPipeline(TrainingPipeline):
            def run_raw_data(self, step: Step) -> StageResult:
                table = raw_data.ingest(step)
                table = table.filter(pc.greater(table["distance"], 0))
                return raw_data.store(step, table)
    """

    _loaded: LoadedPipeline | None = PrivateAttr(default=None)

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return the model that Dagster parses attributes with; see `AnyAttributes`."""
        return AnyAttributes

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> dg.Component:
        """Read the YAML file; a broken one becomes a `BrokenPipeline` that shows its problems in the UI."""
        del attributes  # read again from the file, where every value has a line
        file = context.path / "defs.yaml"
        try:
            return cls.from_loaded(read_placed_pipeline(file, rules_of(context.component_tree)))
        except (SpecError, PolicyError) as error:
            return BrokenPipeline(place=context.path, error=error)

    @classmethod
    def from_loaded(cls, loaded: LoadedPipeline) -> Self:
        """Return the component of a description that was read and checked already."""
        component = cls.model_construct(**{name: getattr(loaded.spec, name) for name in PipelineSpec.model_fields})
        component._loaded = loaded  # noqa: SLF001 - its own private attribute
        return component

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the pipeline's assets."""
        return self.definitions(context.path, rules_of(context.component_tree))

    def definitions(self, folder: Path, compute: Callable[[], ComputeRules] = ComputeRules) -> dg.Definitions:
        """Return the pipeline's assets.

        Args:
            folder: Holds its feature module.
            compute: Reads the profiles that policy has; none by default.

        Raises:
            SpecError: If the description does not fit the feature module or the profiles, with every problem.
        """
        loaded = self._loaded
        if loaded is None:
            spec = PipelineSpec.model_construct(**{name: getattr(self, name) for name in PipelineSpec.model_fields})
            loaded = check_pipeline(spec, folder, file=Path(inspect.getfile(type(self))), rules=compute)
        with quiet_previews():
            return dg.Definitions(assets=build_pipeline_assets(loaded, self))

    def run_raw_data(self, step: Step) -> StageResult:
        """Ingest and check one partition's rows."""
        return raw_data.run(step)

    def run_features(self, step: Step) -> StageResult:
        """Compute one partition's features."""
        return features.run(step)

    def run_row_index(self, step: Step) -> StageResult:
        """Index one period's feature rows."""
        return row_index.run(step)

    def run_training_set(self, step: Step) -> StageResult:
        """Choose and split the rows to learn from."""
        return training_set.run(step)

    def run_variant(self, step: Step, variant: str) -> StageResult:
        """Fit one variant."""
        return models.run_variant(step, variant)

    def help_variant(self, step: Step, variant: str) -> str:
        """Take part in the search of one variant."""
        return models.help_variant(step, variant)

    def run_candidate(self, step: Step) -> StageResult:
        """Choose the best variant."""
        return models.run_candidate(step)

    def run_evaluation(self, step: Step) -> StageResult:
        """Evaluate candidate, champion and baseline."""
        return evaluation.run(step)

    def run_promotion(self, step: Step) -> StageResult:
        """Decide what becomes of the candidate."""
        return promotion.run(step)

    def run_predictions(self, step: Step) -> StageResult:
        """Score one partition with the champion."""
        return predictions.run(step)

    def run_drift(self, step: Step) -> StageResult:
        """Compare one partition with what the champion was trained on."""
        from ml_assets.stages import drift

        return drift.run(step)

    def run_performance(self, step: Step) -> StageResult:
        """Estimate how well one partition was scored, and measure it where labels are known."""
        from ml_assets.stages import performance

        return performance.run(step)
