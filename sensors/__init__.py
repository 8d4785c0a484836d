"""When things run: sensors over all pipelines of a code location.

A sensor takes what it needs as Dagster resources and is attached by a team's `definitions.py` through `team_sensors`.
Like `resources`, this package imports `ml_assets` alone.
"""

from collections.abc import Mapping

import dagster as dg

from ml_assets.assets.team_pipeline import TeamPipeline
from ml_assets.interfaces import PipelinePath
from ml_assets.stages.step import Services
from sensors.alerts import build_alerts_sensor
from sensors.approvals import build_approvals_sensor
from sensors.arrivals import build_arrivals_sensor
from sensors.conditions import attach_conditions, build_conditions_sensor
from sensors.retraining import build_retraining_sensor

__all__ = ["attach_conditions", "team_sensors"]


def team_sensors(pipelines: Mapping[PipelinePath, TeamPipeline], services: Services) -> list[dg.SensorDefinition]:
    """Return the sensors of a code location: one of each kind, over all of its pipelines that want it."""
    if not pipelines:
        return []
    sensors = [build_approvals_sensor(pipelines), build_alerts_sensor(pipelines)]
    if (arrivals := build_arrivals_sensor(pipelines)) is not None:
        sensors.append(arrivals)
    if any(pipeline.spec.automation.retraining for pipeline in pipelines.values()):
        sensors += [build_retraining_sensor(pipelines), build_conditions_sensor(pipelines, services.ledger.mark)]
    return sensors
