"""Steps that ask for GPUs, in real runs of the warm executor on a machine that is said to have some."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.compute import GPUS_POOL, MODELS_POOL, op_tags
from ml_assets.executors.warm_executor import warm_executor
from ml_assets.interfaces import StepResources
from resources.abandoned_runs import end_abandoned_runs
from tests.integration.conftest import ON_BOTH_STORAGES
from tests.integration.executed_runs import RunWorker, execute, note, noted

pytestmark = pytest.mark.slow


def job(directory: str, weights: list[int], gpus: list[str], options: dict[str, Any]) -> dg.JobDefinition:
    """Build a job of steps that each ask for some GPUs and note when they ran and what they saw."""

    def step(number: int, weight: int) -> dg.AssetsDefinition:
        resources = StepResources(gpus=weight, gpu_required=options.get("required", False))

        pool = options.get("pool", GPUS_POOL) if weight else MODELS_POOL

        @dg.asset(name=f"step_{number}", op_tags=op_tags(resources), pool=pool)
        def body() -> None:
            started = time.monotonic()
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            if options.get("crashes"):
                os.kill(os.getpid(), signal.SIGKILL)
            if options.get("holds"):
                note(directory, "held", os.getpid())
                time.sleep(120)
            time.sleep(0.4)
            note(directory, "spans", [started, time.monotonic(), seen, weight])

        return body

    definitions = dg.Definitions(
        assets=[step(number, weight) for number, weight in enumerate(weights)],
        jobs=[dg.define_asset_job("job", "*")],
        executor=warm_executor.configured({"max_concurrent": 4, "gpus": gpus}),
    )
    return definitions.resolve_job_def("job")


def logged(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    return [entry.user_message for entry in instance.all_logs(run.run_id)]


def claimed(instance: dg.DagsterInstance) -> int:
    return len(instance.event_log_storage.get_concurrency_info(GPUS_POOL).claimed_slots)


@ON_BOTH_STORAGES
def test_two_runs_share_the_gpus_and_no_gpu_has_two_steps(
    instance: dg.DagsterInstance, run_worker: RunWorker, tmp_path: Path
) -> None:
    gpus = ["0", "1", "2", "3"]
    runs = [run_worker("job", str(tmp_path), weights, gpus, {}) for weights in ([2, 2, 2], [3, 3])]

    assert [process.wait(300) for process in runs] == [0, 0]

    spans = noted(tmp_path, "spans")
    assert sorted(weight for *_, weight in spans) == [2, 2, 2, 3, 3]
    for started, _, seen, weight in spans:
        assert len(seen.split(",")) == weight
        at_once = [other for other in spans if other[0] <= started < other[1]]
        held = [gpu for _, _, gpus_seen, _ in at_once for gpu in gpus_seen.split(",")]
        assert len(held) == len(set(held)), at_once
        assert {2, 3} != {weight for *_, weight in at_once}, "2 and 3 of 4 GPUs never fit together"
    assert claimed(instance) == 0


def test_steps_of_one_run_wait_for_each_other(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = execute(__name__, instance, "job", str(tmp_path), [1, 1, 0], ["7"], {})

    assert run.is_success
    spans = {weight: [] for weight in (0, 1)}
    for started, ended, seen, weight in noted(tmp_path, "spans"):
        spans[weight].append((started, ended))
        assert seen == ("7" if weight else "")  # a step that asks for none sees none
    (first, second) = sorted(spans[1])
    assert first[1] <= second[0]
    assert claimed(instance) == 0


def test_a_step_wider_than_the_pool_fails_and_the_others_of_its_run_go_on(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    instance.event_log_storage.set_concurrency_slots(GPUS_POOL, 1)
    run = execute(__name__, instance, "job", str(tmp_path), [0, 2, 1], ["0", "1"], {})

    assert not run.is_success
    assert sorted(weight for *_, weight in noted(tmp_path, "spans")) == [0, 1]
    (failure,) = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    event = failure.event_log_entry.get_dagster_event()
    assert event.step_key == "step_1"
    assert event.step_failure_data.error is not None
    assert "step_1 asks for 2 GPUs; the pool 'gpus' has 1 in all" in event.step_failure_data.error.message
    assert claimed(instance) == 0


def test_with_too_few_gpus_a_step_runs_on_the_cpu_and_is_told_so(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = execute(__name__, instance, "job", str(tmp_path), [2], ["0"], {})

    assert run.is_success
    assert [seen for _, _, seen, _ in noted(tmp_path, "spans")] == [""]
    (told,) = [text for text in logged(instance, run) if "asks for 2 GPUs" in text]
    assert told.startswith('Step "step_0" asks for 2 GPUs and this machine has 1 for steps: it runs on the CPU')


def test_a_run_that_needs_gpus_is_refused_before_any_step_starts(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = execute(__name__, instance, "job", str(tmp_path), [1, 0], [], {"required": True})

    assert noted(tmp_path, "spans") == []
    assert run.status == dg.DagsterRunStatus.FAILURE
    entries = [entry.get_dagster_event() for entry in instance.all_logs(run.run_id) if entry.is_dagster_event]
    assert dg.DagsterEventType.STEP_WORKER_STARTING not in {event.event_type for event in entries}
    (end,) = [event for event in entries if event.event_type == dg.DagsterEventType.RUN_FAILURE]
    assert end.job_failure_data.error is not None
    assert "cannot run without: step_0 (1). Nothing was started." in end.job_failure_data.error.message


@pytest.mark.parametrize("pool", [None, "mine"])
def test_a_step_outside_the_pool_of_gpus_is_refused_for_others_would_get_the_same(
    instance: dg.DagsterInstance, tmp_path: Path, pool: str | None
) -> None:
    run = execute(__name__, instance, "job", str(tmp_path), [1, 2, 0], ["0"], {"pool": pool})

    assert noted(tmp_path, "spans") == []
    (end,) = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records
    error = end.event_log_entry.get_dagster_event().job_failure_data.error
    assert error is not None
    # step_1 asks for more than there is, runs on the CPU and harms nobody
    assert f"the same GPUs: step_0 ({pool or 'in none'}). Nothing was started. Write pool='gpus'" in error.message
    assert execute(__name__, instance, "job", str(tmp_path), [2, 0], ["0"], {"pool": pool}).is_success


def test_where_pools_bound_runs_no_gpu_has_two_steps_either(tmp_path: Path) -> None:
    settings = {"concurrency": {"pools": {"granularity": "run"}}}
    with dg.instance_for_test(overrides=settings, temp_dir=str(tmp_path)) as instance:
        run = execute(__name__, instance, "job", str(tmp_path), [1, 1, 1], ["0", "1"], {})

        assert run.is_success
        spans = noted(tmp_path, "spans")
        assert len(spans) == 3
        for started, _, seen, _ in spans:
            assert not [s for s in spans if s[2] == seen and s[0] < started < s[1]]
        assert claimed(instance) == 0


def test_a_step_that_crashes_gives_its_gpus_back(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = execute(__name__, instance, "job", str(tmp_path), [2], ["0", "1"], {"crashes": True})

    assert run.status == dg.DagsterRunStatus.FAILURE
    assert claimed(instance) == 0


@ON_BOTH_STORAGES
def test_a_killed_run_gives_its_gpus_back(instance: dg.DagsterInstance, run_worker: RunWorker, tmp_path: Path) -> None:
    process = run_worker("job", str(tmp_path), [3], ["0", "1", "2"], {"holds": True})
    deadline = time.monotonic() + 300
    while not noted(tmp_path, "held"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert claimed(instance) == 3
    process.kill()
    process.wait()

    (dead,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    assert end_abandoned_runs(instance) == [dead.run_id]
    assert claimed(instance) == 0
    (tmp_path / "held.jsonl").unlink()
    assert execute(__name__, instance, "job", str(tmp_path), [3], ["0", "1", "2"], {}).is_success
