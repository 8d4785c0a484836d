"""Loads a team's folder of pipelines as one code location; one broken pipeline does not take the others down."""

import gc
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg

from ml_assets.assets.decide_job import build_decide_job
from ml_assets.assets.previews import quiet_previews
from ml_assets.assets.team_pipeline import TeamPipeline, team_pipeline
from ml_assets.components.broken_pipeline import BrokenPipeline
from ml_assets.components.quick_yaml import parsed_by_libyaml
from ml_assets.components.team_tree import TeamTree, read_once
from ml_assets.errors import SpecError
from ml_assets.interfaces import ComputeRules, PipelinePath
from ml_assets.reading.placement import read_placed_pipeline
from ml_assets.stages.step import Services
from ml_assets.yaml_positions import load_yaml

PIPELINE_FILE = "defs.yaml"
OUR_TYPES = ("ml_assets.", ".")
"""How the `type` of a pipeline begins; what begins otherwise is another library's component."""


def load_team(
    defs_folder: ModuleType,
    *,
    services: Services,
    executor: dg.ExecutorDefinition,
    project_root: Path,
    sensors: Callable[[Mapping[PipelinePath, TeamPipeline], Services], Sequence[dg.SensorDefinition]] = lambda *_: (),
    conditions: Callable[[dg.Definitions, Services], dg.Definitions] = lambda definitions, _: definitions,
    compute: Callable[[], ComputeRules] | None = None,
) -> dg.Definitions:
    """Return the definitions of a code location.

    Args:
        defs_folder: The team's `defs` package; each folder below it is a pipeline, or plain Dagster definitions.
        services: What the pipelines run with.
        executor: How their steps run.
        project_root: The repository's root.
        sensors: Given the location's pipelines by (team, name), and the services, returns the sensors that watch them.
        conditions: Given the pipelines' definitions, returns them with the conditions under which assets are
            requested by themselves.
        compute: Reads what policy says of compute, once and only if a pipeline asks for a profile or a GPU; by
            default as the services' policy has it.
    """
    rules = read_once(compute or services.policy.compute)
    with _collection_paused():
        try:
            with parsed_by_libyaml():
                pipelines = _load(defs_folder, project_root, rules)
        except Exception:  # noqa: BLE001 - found and shown one by one below
            pipelines = dg.Definitions.merge(*_one_by_one(defs_folder, project_root, rules))
        pipelines = conditions(pipelines, services)
    common = dg.Definitions(
        resources=dict(vars(services)),
        executor=executor,
        jobs=[build_decide_job()],
        sensors=list(sensors(pipelines_of(pipelines), services)),
    )
    return dg.Definitions.merge(pipelines, common)


def pipelines_of(definitions: dg.Definitions) -> dict[PipelinePath, TeamPipeline]:
    """Return every pipeline of some definitions by (team, name)."""
    found: dict[PipelinePath, TeamPipeline] = {}
    for asset in definitions.assets or []:
        if isinstance(asset, dg.AssetsDefinition) and (pipeline := team_pipeline(asset)) is not None:
            found[pipeline.path] = pipeline
    return found


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Keep the garbage collector away from definitions while they are made, and from what is there afterwards.

    Definitions live as long as their process. Walking through them over and over while they grow takes a third of
    the load time; destroying them one by one at the end takes another third.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def _load(folder: ModuleType, project_root: Path, rules: Callable[[], ComputeRules]) -> dg.Definitions:
    with quiet_previews():
        return TeamTree.of(folder, project_root, rules).build_defs()


def _one_by_one(
    defs_folder: ModuleType, project_root: Path, rules: Callable[[], ComputeRules]
) -> Iterator[dg.Definitions]:
    """Load each child of the folder apart; what does not load becomes a placeholder with its message."""
    for child in sorted(Path(next(iter(defs_folder.__path__))).iterdir()):
        name = child.stem
        if name.startswith(("_", ".")) or not (child.is_dir() or child.suffix == ".py"):
            continue
        try:
            package = importlib.import_module(f"{defs_folder.__name__}.{name}")
            yield _without_tree(_load(package, project_root, rules))
        except Exception as error:  # noqa: BLE001 - any error of a team's file is shown in its place
            yield BrokenPipeline(place=child, error=_explanation(child / PIPELINE_FILE, error)).definitions()


def _without_tree(definitions: dg.Definitions) -> dg.Definitions:
    """Return the definitions alone: Dagster merges no two that each know the tree they come from."""
    parts: dict[str, Any] = {
        name: getattr(definitions, name)
        for name in ("assets", "asset_checks", "schedules", "sensors", "jobs", "resources", "loggers", "executor")
    }
    return dg.Definitions(**parts)


def _explanation(file: Path, error: Exception) -> Exception:
    """Return the problems of a pipeline's file with their lines when it has any, else the error itself."""
    if not file.is_file():
        return error
    try:
        data = load_yaml(file.read_text(encoding="utf-8"), file=str(file)).data
        if isinstance(data, dict) and str(data.get("type", "")).startswith(OUR_TYPES):
            read_placed_pipeline(file)
    except SpecError as problems:
        return problems
    return error
