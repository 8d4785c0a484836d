"""A run that this machine has too few GPUs for is refused when it is submitted, from wherever that is."""

from typing import Any, cast

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import SubmitRunContext

from ml_assets.compute import GPUS_POOL, op_tags
from ml_assets.executors.gpus import MissingGpusError
from ml_assets.interfaces import StepResources


def submit(instance: dg.DagsterInstance, stage: str, resources: StepResources) -> dg.DagsterRun:
    """Submit a run of one of two steps, of which `heavy` gets these resources."""
    heavy = dg.asset(name="heavy", op_tags=op_tags(resources))(lambda: None)
    light = dg.asset(name="light")(lambda: None)
    job = dg.Definitions(assets=[heavy, light], jobs=[dg.define_asset_job("job", "*")]).resolve_job_def("job")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("flights"), "repository"), "job")
    run = instance.create_run_for_job(job, remote_job_origin=origin, asset_selection=frozenset({dg.AssetKey(stage)}))
    return instance.run_coordinator.submit_run(SubmitRunContext(run, cast("Any", None)))


@pytest.mark.parametrize(
    ("stage", "gpus", "required", "limit", "refused"),
    [
        ("heavy", 2, True, 1, True),
        ("heavy", 2, True, 2, False),
        ("heavy", 2, False, 0, False),  # it runs on the CPU
        ("light", 2, True, 0, False),  # the step that needs them is not in the run
        ("heavy", 2, True, None, False),  # a cluster, which may have some
    ],
)
def test_only_a_run_with_a_step_that_cannot_run_is_refused(
    instance: dg.DagsterInstance, stage: str, gpus: int, required: bool, limit: int | None, refused: bool
) -> None:
    if limit is not None:
        instance.event_log_storage.set_concurrency_slots(GPUS_POOL, limit)
    resources = StepResources(gpus=gpus, gpu_required=required)

    if refused:
        with pytest.raises(
            MissingGpusError, match=r"This machine has 1 GPU for steps.*heavy \(2\)\. Nothing was started"
        ):
            submit(instance, stage, resources)
    else:
        assert submit(instance, stage, resources).status == dg.DagsterRunStatus.QUEUED
