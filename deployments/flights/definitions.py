"""The code location of team flights."""

import deployments.flights.defs
from ml_assets.components.team import load_team
from resources.profiles import current_profile
from sensors import attach_conditions, team_sensors

profile = current_profile()
defs = load_team(
    deployments.flights.defs,
    services=profile.services(),
    executor=profile.executor(),
    project_root=profile.project_root,
    sensors=team_sensors,
    conditions=attach_conditions,
)
