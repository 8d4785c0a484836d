"""Runs whose process is gone are ended, on a real Dagster home; those that are alive or elsewhere are left alone."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData

from ml_assets.cli.engine import RUN_PROCESS_TAG
from resources.abandoned_runs import end_abandoned_runs
from resources.dagster_home import initialise_home

STARTED, FAILURE = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE
HERE = socket.gethostname()


@dg.job
def nightly() -> None:
    """A job without a step."""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    initialise_home(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as opened:
        yield opened


@pytest.fixture
def gone() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def started(instance: dg.DagsterInstance, process: str, parent: str | None = None) -> str:
    """Record a run in progress that is tagged with a process."""
    run = instance.create_run_for_job(
        nightly,
        status=STARTED,
        tags={RUN_PROCESS_TAG: process},
        parent_run_id=parent,
        root_run_id=parent,
    )
    return run.run_id


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_a_run_whose_process_ended_fails_and_its_pool_slot_is_free(instance: dg.DagsterInstance, gone: int) -> None:
    run_id = started(instance, f"{HERE}:{gone}")
    instance.event_log_storage.set_concurrency_slots("models", 1)
    claim = instance.event_log_storage.claim_concurrency_slot("models", run_id, "fit")
    assert claim.is_claimed

    assert end_abandoned_runs(instance) == [run_id]

    assert status(instance, run_id) == FAILURE
    assert instance.event_log_storage.get_concurrency_info("models").active_slot_count == 0
    assert any(f"pid {gone}) is gone" in entry.message for entry in instance.all_logs(run_id))


def test_a_run_whose_process_is_alive_goes_on(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, f"{HERE}:{os.getpid()}")

    assert end_abandoned_runs(instance) == []
    assert status(instance, run_id) == STARTED


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only /proc tells when a process began")
def test_a_process_that_began_after_the_run_is_another_one(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = started(instance, f"{HERE}:{os.getpid()}")
    monkeypatch.setattr("resources.run_processes._boot_time", lambda: 4e9)  # as if this process began in 2096

    assert end_abandoned_runs(instance) == [run_id]


def test_a_run_of_another_machine_is_left_alone(instance: dg.DagsterInstance, gone: int) -> None:
    run_id = started(instance, f"elsewhere:{gone}")

    assert end_abandoned_runs(instance) == []
    assert status(instance, run_id) == STARTED


def test_a_run_executed_again_does_not_answer_for_its_parent_s_process(instance: dg.DagsterInstance, gone: int) -> None:
    parent = started(instance, f"{HERE}:{gone}")
    child = started(instance, f"{HERE}:{gone}", parent=parent)

    assert end_abandoned_runs(instance) == [parent]
    assert status(instance, child) == STARTED


def test_a_run_that_a_code_server_started_is_known_by_its_events(instance: dg.DagsterInstance, gone: int) -> None:
    runs = [instance.create_run_for_job(nightly, status=STARTED) for _ in range(3)]
    for run, pid in zip(runs, (gone, os.getpid(), None), strict=True):
        metadata = {} if pid is None else {"pid": dg.MetadataValue.text(str(pid))}
        instance.report_engine_event("Started process for run.", run, EngineEventData(metadata=metadata))

    assert end_abandoned_runs(instance) == [runs[0].run_id]
