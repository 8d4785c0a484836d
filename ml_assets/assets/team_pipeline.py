"""What sensors know of a pipeline of their code location: its description, and the partitions of its stages."""

from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.definitions.metadata.metadata_value import (  # noqa: TID251 - Dagster's own integrations carry
    ObjectMetadataValue,  # their objects in it; there is no exported way
)

from ml_assets.interfaces import PipelinePath
from ml_assets.partitions import data_partitions, time_partitions
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.spec import PipelineSpec

PIPELINE = "ml_assets/pipeline"
"""Definition metadata of a pipeline's last decision stage: the object that was loaded, in this process only."""
CARRIER = "promotion"


@dataclass(frozen=True, kw_only=True)
class TeamPipeline:
    """One pipeline of a code location.

    Attributes:
        loaded: Its description, read and checked.
        data: Partitions of raw data, features, predictions, drift and performance.
        time: Partitions of models, evaluations and decisions.
    """

    loaded: LoadedPipeline
    data: dg.PartitionsDefinition
    time: dg.PartitionsDefinition

    @property
    def spec(self) -> PipelineSpec:
        """Return the pipeline's description."""
        return self.loaded.spec

    @property
    def path(self) -> PipelinePath:
        """Return (team, pipeline)."""
        return self.spec.team, self.spec.name

    def key(self, *stage: str) -> dg.AssetKey:
        """Return the key of one of its assets."""
        return dg.AssetKey([*self.path, *stage])


def carried(loaded: LoadedPipeline) -> dict[str, Any]:
    """Return the definition metadata by which `team_pipeline` finds the pipeline again."""
    return {PIPELINE: ObjectMetadataValue(loaded)}


def team_pipeline(asset: dg.AssetsDefinition) -> TeamPipeline | None:
    """Return the pipeline whose decision stage an asset is, or None for any other asset."""
    if len(asset.keys) != 1 or asset.key.path[-1] != CARRIER:
        return None
    held: Any = asset.metadata_by_key[asset.key].get(PIPELINE)
    loaded = getattr(held, "instance", held)
    if not isinstance(loaded, LoadedPipeline):
        return None
    return TeamPipeline(loaded=loaded, data=data_partitions(loaded.spec), time=time_partitions(loaded.spec))
