"""When things run: sensors over all pipelines of a code location.

A sensor takes what it needs as Dagster resources and is attached by a team's `definitions.py` through `team_sensors`.
Like `resources`, this package imports `ml_assets` alone.
"""

from collections.abc import Mapping

import dagster as dg

from ml_assets.interfaces import PipelinePath
from sensors.approvals import build_approvals_sensor


def team_sensors(pipelines: Mapping[PipelinePath, dg.PartitionsDefinition]) -> list[dg.SensorDefinition]:
    """Return the sensors of a code location: one of each kind, over all of its pipelines; none without pipelines.

    Args:
        pipelines: (team, pipeline) → partitions of its promotions.
    """
    return [build_approvals_sensor(pipelines)] if pipelines else []
