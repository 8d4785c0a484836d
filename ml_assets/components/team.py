"""Loads a team's folder of pipelines as one code location; one broken pipeline does not take the others down."""

import importlib
from pathlib import Path
from types import ModuleType

import dagster as dg
from dagster.components import load_defs

from ml_assets.components.broken_pipeline import BrokenPipeline
from ml_assets.stages.step import Services


def load_team(
    defs_folder: ModuleType, *, services: Services, executor: dg.ExecutorDefinition, project_root: Path
) -> dg.Definitions:
    """Return the definitions of a code location.

    Args:
        defs_folder: The team's `defs` package; each folder below it is a pipeline, or plain Dagster definitions.
        services: What the pipelines run with.
        executor: How their steps run.
        project_root: The repository's root.
    """
    try:
        pipelines = load_defs(defs_folder, project_root=project_root)
    except Exception:  # noqa: BLE001 - found and shown one by one below
        pipelines = dg.Definitions.merge(*_one_by_one(defs_folder, project_root))
    return dg.Definitions.merge(pipelines, dg.Definitions(resources=dict(vars(services)), executor=executor))


def _one_by_one(defs_folder: ModuleType, project_root: Path) -> list[dg.Definitions]:
    """Load each child of the folder apart; what does not load becomes a placeholder with its message."""
    found: list[dg.Definitions] = []
    for child in sorted(Path(next(iter(defs_folder.__path__))).iterdir()):
        name = child.stem
        if name.startswith(("_", ".")) or not (child.is_dir() or child.suffix == ".py"):
            continue
        try:
            module = importlib.import_module(f"{defs_folder.__name__}.{name}")
            found.append(load_defs(module, project_root=project_root))
        except Exception as error:  # noqa: BLE001 - any error of a team's file is shown in its place
            file = child / "defs.yaml" if child.is_dir() else child
            found.append(BrokenPipeline(file=file, error=error).definitions())
    return found
