"""Runs with steps in pods where nothing leads to a cluster: what is refused, what fails, and what goes on."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType as Type

from ml_assets.compute import GPU_REQUIRED_TAG, GPUS_TAG, K8S_TAG
from ml_assets.errors import MlAssetsError
from ml_assets.executors.warm_executor import build_executor, warm_executor
from tests.integration.executed_runs import execute, note, noted

pytestmark = pytest.mark.timeout(180)

POD = {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}


def job(directory: str, executor: str, required: bool = False) -> dg.JobDefinition:
    """Build two chains of light steps, one of them with a step that wants a pod."""
    tags = {GPUS_TAG: "1", K8S_TAG: POD, **({GPU_REQUIRED_TAG: "true"} if required else {})}

    def step(name: str, *deps: str, **options: Any) -> dg.AssetsDefinition:
        def body() -> None:
            note(directory, "ran", name)
            if name == "behind" and not Path(directory, "mended").exists():
                raise ValueError("the reason of this failure")

        return dg.asset(name=name, deps=list(deps), **options)(body)

    assets = [
        step("before"),
        step("heavy", "before", op_tags=tags, pool="gpus", retry_policy=dg.RetryPolicy(max_retries=2)),
        step("behind", "heavy"),
        step("beside", "before"),
        step("far", "beside"),
    ]
    definitions = dg.Definitions(assets=assets, jobs=[dg.define_asset_job("job", "*")], executor=EXECUTORS[executor]())
    return definitions.resolve_job_def("job")


def no_way(*_: Any) -> Any:
    raise MlAssetsError("The cluster for steps in pods cannot be reached: there is no file /etc/kube.")


QUICK = {"max_concurrent": 2, "pods": {"look_seconds": 0.1, "event_seconds": 0.1}}
EXECUTORS = {
    "unopened": lambda: build_executor(no_way).configured(QUICK),
    "refused": lambda: build_executor(no_way, no_way).configured(QUICK),
    "one gpu": lambda: warm_executor.configured({"max_concurrent": 2, "gpus": ["0"]}),
    "no gpu": lambda: warm_executor.configured({"max_concurrent": 2, "gpus": []}),
}


def events(instance: dg.DagsterInstance, run: dg.DagsterRun, *types: Type) -> list[dg.DagsterEvent]:
    records = instance.get_records_for_run(run.run_id, of_type=set(types)).records
    return [record.event_log_entry.get_dagster_event() for record in records]


def test_a_cluster_that_cannot_be_opened_fails_the_step_and_what_depends_on_it_alone(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    instance.event_log_storage.set_concurrency_slots("gpus", 1)
    run = execute(__name__, instance, "job", str(tmp_path), "unopened")

    assert not run.is_success
    assert sorted(noted(tmp_path, "ran")) == ["before", "beside", "far"]
    (failure,) = events(instance, run, Type.STEP_FAILURE)
    assert failure.step_key == "heavy"
    error = failure.step_failure_data.error
    assert error is not None
    assert error.message == "The cluster for steps in pods cannot be reached: there is no file /etc/kube."
    assert not events(instance, run, Type.STEP_UP_FOR_RETRY)
    assert instance.event_log_storage.get_concurrency_info("gpus").active_slot_count == 0


def test_what_is_known_beforehand_is_told_before_any_step_starts(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = execute(__name__, instance, "job", str(tmp_path), "refused")

    assert not run.is_success
    assert noted(tmp_path, "ran") == []
    (failure,) = events(instance, run, Type.RUN_FAILURE)
    assert "there is no file /etc/kube" in str(failure.job_failure_data.error)


@pytest.mark.parametrize("executor", ["refused", "no gpu"])
def test_a_run_that_goes_on_after_its_heavy_step_is_not_refused_for_its_sake(
    instance: dg.DagsterInstance, tmp_path: Path, executor: str
) -> None:
    failed = execute(__name__, instance, "job", str(tmp_path), "one gpu", True)
    assert sorted(noted(tmp_path, "ran")) == ["before", "behind", "beside", "far", "heavy"]
    (tmp_path / "mended").touch()

    again = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
    run = execute(__name__, instance, "job", str(tmp_path), executor, True, reexecution_options=again)

    assert run.is_success
    assert noted(tmp_path, "ran").count("heavy") == 1
