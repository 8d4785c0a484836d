"""The code locations that `workspace.yaml` names, as Dagster reads that file, and their definitions."""

import importlib
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster._core.workspace.load_target import WorkspaceFileTarget

ROOT = Path(__file__).parents[2]
WORKSPACE = ROOT / "workspace.yaml"


@dataclass(frozen=True, kw_only=True)
class CodeLocation:
    """One entry of the workspace."""

    name: str
    module: str

    def definitions(self) -> dg.Definitions:
        """Import the module and return its `defs`."""
        found = importlib.import_module(self.module).defs
        assert isinstance(found, dg.Definitions), f"{self.module}.defs is {type(found).__name__}"
        return found

    def asset_keys(self) -> set[str]:
        """Return the location's asset keys as text, those of external assets too."""
        return {spec.key.to_user_string() for spec in self.definitions().resolve_all_asset_specs()}


def code_locations() -> list[CodeLocation]:
    """Return the locations in the order of the workspace."""
    origins = WorkspaceFileTarget(paths=[str(WORKSPACE)]).create_origins()
    return [
        CodeLocation(name=origin.location_name, module=origin.loadable_target_origin.module_name or "")
        for origin in origins
    ]
