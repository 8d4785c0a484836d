"""The part of a pipeline's description about running by itself: what starts it, what it is held against, how fresh."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ml_assets.spec.model import Duration, ListOf, SpecModel

AssetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+(/[A-Za-z0-9_]+)+$")]
"""An asset's key with slashes, such as weather/forecast/predictions."""


class AutomationSpec(SpecModel):
    """What may start without a person; the policy sets its limits, and `ml-assets pause` stops it."""

    arrivals: bool = False
    """Whether files that arrive at `source.url` are ingested by themselves, and bad ones put into quarantine."""
    after: Annotated[tuple[AssetName, ...], ListOf] = ()
    """Assets, also of other code locations, whose materialized partitions count as arrivals: the partition of the same
    key is made again, or for the first time."""
    retraining: bool = False
    """Whether models are trained, evaluated and decided on by themselves, for the causes that the policy allows."""


class MonitoringSpec(SpecModel):
    """What new partitions are compared with."""

    reference: Literal["champion", "season"] = "champion"
    """champion: the rows that the champion was trained on; season: the same period a year earlier where there is one,
    else the champion's."""


class FreshnessSpec(SpecModel):
    """How old the newest materialization may become before Dagster shows it as stale and an alert is sent."""

    features: Duration | None = None
    """Of the features; not watched when absent."""
    predictions: Duration | None = None
    """Of the predictions; not watched when absent."""
    warn_after: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8
    """Share of that time from which it is shown as a warning."""
