"""Puts runs of events into Dagster's queue from outside of its daemon, as the arrivals sensor would have put them."""

import sys
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.selector import JobSubsetSelector  # noqa: TID251 - as Dagster's sensor daemon
from dagster._core.remote_origin import (  # noqa: TID251
    CodeLocationOrigin,
    InProcessCodeLocationOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.remote_representation.code_location import InProcessCodeLocation  # noqa: TID251
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext  # noqa: TID251
from dagster._core.storage.dagster_run import DagsterRunStatus  # noqa: TID251
from dagster._core.storage.tags import RUN_KEY_TAG, SENSOR_NAME_TAG  # noqa: TID251
from dagster._core.utils import make_new_run_id  # noqa: TID251
from dagster._core.workspace.load_target import WorkspaceFileTarget  # noqa: TID251

from ml_assets.assets.team_pipeline import TeamPipeline, team_pipeline
from ml_assets.delivery.plan import BatchPlan
from ml_assets.delivery.tags import BATCH_TAG, RANGE_END_TAG, RANGE_START_TAG, SENSOR, job_name
from ml_assets.errors import MlAssetsError
from ml_assets.interfaces import PipelinePath
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.stages.step import LAUNCHED_BY_TAG
from resources.loaded_code import LoadedCode

DATA_STAGES = ("raw_data", "features")


class QueuedSubmission:
    """Submits runs of one code location, whose module it loads into this process.

    Args:
        instance: Dagster's instance; its run coordinator must be the queued one, so that the daemon launches the run.
        workspace: The daemon's workspace file: runs are given the origin that the daemon knows the location by.
        location: Name of the code location in it.

    Raises:
        MlAssetsError: If runs are not queued here, or the workspace has no such location.
    """

    def __init__(self, instance: dg.DagsterInstance, workspace: Path, location: str) -> None:
        if not isinstance(instance.run_coordinator, QueuedRunCoordinator):
            raise MlAssetsError(
                f"Runs can only be pushed into a queue; this instance's run coordinator is "
                f"{type(instance.run_coordinator).__name__}. Write `run_coordinator: {{module: "
                "dagster.core.run_coordinator, class: QueuedRunCoordinator}` into dagster.yaml."
            )
        self._instance = instance
        self._origin = _origin_of(workspace, location)
        began = time.time_ns()
        self._location = InProcessCodeLocation(
            InProcessCodeLocationOrigin(
                self._origin.loadable_target_origin,
                container_context={},  # as the daemon's server of the location says
                location_name=location,
            ),
            instance,
        )
        self._code = LoadedCode.remember(began)
        self._described = {file: _stamp(file) for file in self._files()}
        self._jobs: dict[str, tuple[Any, Any]] = {}

    @property
    def pipelines(self) -> Mapping[PipelinePath, LoadedPipeline]:
        """Return the location's pipelines that start by events."""
        return {path: pipeline.loaded for path, pipeline in self._pipelines.items()}

    def changed(self) -> Sequence[str]:
        """Return the location's files that are not as they were when it was loaded."""
        moved = {str(file) for file in self._files() if self._described.get(file) != _stamp(file)}
        gone = {str(file) for file in self._described if not file.exists()}
        return sorted({*self._code.changed(), *moved, *gone})

    def submit(self, plan: BatchPlan) -> str:
        """Create the run of a claimed batch, put it into the queue and return its id."""
        pipeline = self._pipelines[plan.pipeline]
        job, execution_plan = self._job(pipeline)
        origin = RemoteRepositoryOrigin(self._origin, self._repository.name).get_job_origin(job.name)
        run = self._instance.create_run(
            job_name=job.name,
            run_id=make_new_run_id(),
            run_config={},
            resolved_op_selection=job.resolved_op_selection,
            step_keys_to_execute=None,
            status=DagsterRunStatus.NOT_STARTED,
            op_selection=None,
            root_run_id=None,
            parent_run_id=None,
            tags={**(job.run_tags or {}), **self._tags(pipeline, plan)},
            job_snapshot=job.job_snapshot,
            execution_plan_snapshot=execution_plan,
            parent_job_snapshot=job.parent_job_snapshot,
            remote_job_origin=origin,
            job_code_origin=job.get_python_origin(),
            asset_selection=frozenset(_assets(pipeline)),
            asset_check_selection=None,
            asset_graph=self._repository.asset_graph,
        )
        # The queue asks nothing of a workspace: the daemon has its own when it launches the run.
        self._instance.run_coordinator.submit_run(SubmitRunContext(run, workspace=None))  # pyright: ignore[reportArgumentType]
        return run.run_id

    @cached_property
    def _repository(self) -> Any:
        (repository,) = self._location.get_repositories().values()
        return repository

    @cached_property
    def _definition(self) -> dg.RepositoryDefinition:
        return self._location._get_repo_def(self._repository.name)  # noqa: SLF001 - loaded once, not twice

    @cached_property
    def _pipelines(self) -> dict[PipelinePath, TeamPipeline]:
        found = [team_pipeline(asset) for asset in self._definition.assets_defs_by_key.values()]
        return {p.path: p for p in found if p is not None and (p.spec.automation.arrivals or p.spec.automation.after)}

    def _job(self, pipeline: TeamPipeline) -> tuple[Any, Any]:
        """Return Dagster's job for one pipeline's data, and its execution plan; made once."""
        name = job_name(pipeline.data.get_serializable_unique_identifier())
        key = f"{name} {pipeline.path}"
        if key not in self._jobs:
            if not self._repository.has_job(name):
                raise MlAssetsError(
                    f"Code location {self._location.name} has no job {name} for {'/'.join(pipeline.path)}. Let its "
                    "definitions.py pass `sensors=team_sensors` to load_team: the arrivals sensor brings its jobs."
                )
            selector = JobSubsetSelector(
                location_name=self._location.name,
                repository_name=self._repository.name,
                job_name=name,
                op_selection=None,
                asset_selection=_assets(pipeline),
            )
            job = self._location.get_job(selector)
            plan = self._location.get_execution_plan(job, {}, None, None, self._instance)
            self._jobs[key] = job, plan.execution_plan_snapshot
        return self._jobs[key]

    def _tags(self, pipeline: TeamPipeline, plan: BatchPlan) -> dict[str, str]:
        """Return the tags that the sensor's run would have, but that of its tick."""
        if plan.first == plan.last:
            job = self._definition.get_job(job_name(pipeline.data.get_serializable_unique_identifier()))
            span = dict(job.get_tags_for_partition_key(plan.first, selected_asset_keys=_assets(pipeline)))
        else:
            span = {RANGE_START_TAG: plan.first, RANGE_END_TAG: plan.last}
        return {
            **span,
            BATCH_TAG: plan.name,
            LAUNCHED_BY_TAG: f"sensor:{SENSOR}",
            "ml_assets/pipeline": "/".join(plan.pipeline),
            RUN_KEY_TAG: plan.name,
            SENSOR_NAME_TAG: SENSOR,
        }

    def _files(self) -> list[Path]:
        """Return the YAML files of the location, which no module stands for."""
        module = sys.modules[str(self._origin.loadable_target_origin.module_name)]
        return sorted((Path(str(module.__file__)).parent / "defs").rglob("*.yaml"))


def _origin_of(workspace: Path, location: str) -> CodeLocationOrigin:
    origins = WorkspaceFileTarget(paths=[str(workspace)]).create_origins()
    for origin in origins:
        if origin.location_name == location:
            return origin
    known = ", ".join(sorted(origin.location_name for origin in origins))
    raise MlAssetsError(f"There is no code location {location!r} in {workspace}; it has {known}.")


def _assets(pipeline: TeamPipeline) -> list[dg.AssetKey]:
    return [pipeline.key(stage) for stage in DATA_STAGES]


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
