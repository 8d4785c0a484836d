"""Runs launched through one fork server, on a real Dagster home: how they end, what they see, how they are stopped."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus

from ml_assets.cli.engine import RUN_PROCESS_TAG
from ml_assets.errors import MlAssetsError
from resources import warm_launcher
from resources.run_worker import claims_of
from tests.integration.launched_runs import (
    CANCELED,
    FAILURE,
    STARTED,
    SUCCESS,
    Launches,
    assert_ends,
    launches,
    wait_until,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launches]:
    with launches(tmp_path_factory.mktemp("launches"), kill_after_seconds=1.0) as opened:
        yield opened


@pytest.fixture(autouse=True)
def fresh(home: Launches) -> None:
    for path in home.code.iterdir():
        if path.is_file() and path != home.file:
            path.unlink()


def test_a_run_succeeds_in_a_process_of_its_own(home: Launches) -> None:
    run_id = home.launch("quick_job")

    assert home.finish(run_id) == SUCCESS
    pid, version = home.notes("quick")[0].split()
    assert version == "first"
    assert int(pid) not in (os.getpid(), home.server_pid)
    assert f"(pid: {pid})" in home.messages(run_id)
    assert_ends(int(pid))
    assert claims_of(home.instance).holder(run_id) is None
    assert list((home.home / "run_claims").glob("*.claim")) == []


def test_runs_come_from_one_server_and_none_draws_the_other_s_random_numbers(home: Launches) -> None:
    assert home.finish(home.launch("quick_job")) == SUCCESS
    server = home.server_pid

    runs = [home.launch("surroundings_job") for _ in range(2)]

    assert [home.finish(run_id) for run_id in runs] == [SUCCESS, SUCCESS]
    assert home.server_pid == server
    assert len(set(home.notes("random"))) == 2


def test_a_failing_step_fails_its_run(home: Launches) -> None:
    run_id = home.launch("raising_job")

    assert home.finish(run_id) == FAILURE
    assert "the reason of this failure" in home.messages(run_id)


def test_two_runs_work_at_the_same_time(home: Launches) -> None:
    runs = [home.launch("patient_job") for _ in range(2)]
    wait_until(lambda: len(home.notes("patient")) == 2, "both runs")

    assert [home.status(run_id) for run_id in runs] == [STARTED, STARTED]
    home.go()
    assert [home.finish(run_id) for run_id in runs] == [SUCCESS, SUCCESS]
    assert len(set(home.notes("done"))) == 2


def test_a_run_sees_its_location_s_code_as_it_is_on_disk(home: Launches) -> None:
    assert home.finish(home.launch("quick_job")) == SUCCESS
    text, server = home.file.read_text(), home.server_pid
    try:
        home.file.write_text(text.replace('VERSION = "first"', 'VERSION = "second"'))
        run_id = home.launch("quick_job")
        assert home.finish(run_id) == SUCCESS
    finally:
        home.file.write_text(text)

    assert [note.split()[1] for note in home.notes("quick")] == ["first", "second"]
    assert home.server_pid == server


def failed_by_code(home: Launches, text: str) -> str:
    """Launch a run while its module holds a text, see it fail, put the module back, and return the run's id."""
    before, run_id = home.file.read_text(), home.create("quick_job")
    try:
        home.file.write_text(text)
        home.launch_created(run_id)
        assert home.finish(run_id) == FAILURE
    finally:
        home.file.write_text(before)
    return run_id


def test_code_that_cannot_be_imported_fails_the_run_with_the_traceback(home: Launches) -> None:
    run_id = failed_by_code(home, "import a_library_that_is_not_there\n")

    assert "No module named 'a_library_that_is_not_there'" in home.messages(run_id)
    assert home.file.name in home.messages(run_id)


def test_what_a_run_does_to_its_process_does_not_reach_the_next_one(home: Launches) -> None:
    run_id = home.launch("vandal_job")
    assert home.finish(run_id) == FAILURE
    assert "The process of this run unexpectedly exited with code 0" in home.messages(run_id)

    assert home.finish(home.launch("surroundings_job")) == SUCCESS

    umask = os.umask(0o22)
    os.umask(umask)
    assert home.notes("surroundings")[0] == str([str(Path.cwd()), oct(umask), None, False, 2, True, ""])


def test_a_crash_while_the_code_is_imported_fails_the_run(home: Launches) -> None:
    run_id = failed_by_code(home, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n")

    assert "The process of this run was terminated by signal 9 (SIGKILL)" in home.messages(run_id)


def test_a_segmentation_fault_fails_the_run_and_frees_its_slot(home: Launches) -> None:
    run_id = home.create("crashing_job")
    home.instance.event_log_storage.set_concurrency_slots("models", 1)
    assert home.instance.event_log_storage.claim_concurrency_slot("models", run_id, "crashing").is_claimed

    home.launch_created(run_id)

    assert home.finish(run_id) == FAILURE
    assert "signal 11 (SIGSEGV)" in home.messages(run_id)
    wait_until(
        lambda: not home.instance.event_log_storage.get_concurrency_info("models").active_slot_count, "a free slot"
    )


def test_a_finished_run_is_not_executed_again(home: Launches) -> None:
    run_id = home.launch("quick_job")
    assert home.finish(run_id) == SUCCESS
    wait_until(lambda: claims_of(home.instance).holder(run_id) is None, "the end of its process")
    before = len(home.instance.all_logs(run_id))

    home.launch_again(run_id)
    assert home.finish(home.launch("quick_job")) == SUCCESS  # started after it

    assert len(home.notes("quick")) == 2
    assert len(home.instance.all_logs(run_id)) == before


def test_a_run_is_stopped_from_another_process_with_its_steps(home: Launches) -> None:
    run_id = home.launch("steps_job")
    step = int(home.first_note("patient"))
    run_process = claims_of(home.instance).holder(run_id)
    assert run_process is not None
    assert run_process != step

    assert terminated_elsewhere(home, run_id) == "True"

    assert home.finish(run_id) == CANCELED
    for pid in (step, run_process):
        assert_ends(pid)
    assert home.notes("done") == []
    assert not home.launcher.terminate(run_id)


@pytest.mark.parametrize("job_name", ["stubborn_job", "stubborn_steps_job"])
def test_a_run_that_does_not_stop_is_killed_with_its_steps(
    home: Launches, job_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_later = warm_launcher._kill_later

    def when_it_was_ignored(*args: Any) -> None:
        home.first_note("ignored")
        kill_later(*args)

    monkeypatch.setattr(warm_launcher, "_kill_later", when_it_was_ignored)
    run_id = home.launch(job_name)
    step = int(home.first_note("stubborn"))

    assert home.launcher.terminate(run_id)

    assert home.finish(run_id) == CANCELED
    assert_ends(step)
    assert home.notes("ignored")
    assert "It had been asked to stop" in home.messages(run_id)


def test_a_run_that_was_cancelled_before_its_process_came_does_nothing(home: Launches) -> None:
    run_id = home.create("quick_job")
    home.instance.report_dagster_event(
        dg.DagsterEvent(event_type_value="PIPELINE_STARTING", job_name="quick_job"), run_id
    )
    assert home.launcher.terminate(run_id)

    home.launch_again(run_id)

    assert home.finish(run_id) == CANCELED
    assert home.notes("quick") == []


def test_the_health_of_a_run_follows_its_process(home: Launches) -> None:
    run_id = home.launch("patient_job")
    pid = int(home.first_note("patient"))
    result = home.launcher.check_run_worker_health(home.run(run_id))
    assert (result.status, result.run_worker_id) == (WorkerStatus.RUNNING, str(pid))
    home.go()
    assert home.finish(run_id) == SUCCESS
    assert_ends(pid)

    result = home.launcher.check_run_worker_health(home.run(run_id))

    assert result.status == WorkerStatus.FAILED
    assert f"(pid {pid}) is gone" in (result.msg or "")


def test_a_run_of_the_command_line_is_known_by_its_tag(home: Launches) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        job = home._repository.get_reconstructable_job("quick_job")
        tags = {RUN_PROCESS_TAG: f"{os.uname().nodename}:{process.pid}"}
        run = home.instance.create_run_for_job(job.get_definition(), status=STARTED, tags=tags)
        assert home.launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    finally:
        process.kill()
        process.wait()

    assert home.launcher.check_run_worker_health(run).status == WorkerStatus.FAILED
    assert home.launcher.terminate(run.run_id)
    assert home.status(run.run_id) == CANCELED


def test_a_run_of_which_no_process_is_known_is_left_alone(home: Launches) -> None:
    job = home._repository.get_reconstructable_job("quick_job")
    run = home.instance.create_run_for_job(job.get_definition(), status=STARTED)

    assert home.launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    assert not home.launcher.terminate(run.run_id)
    assert "which another machine or program carries out; stop it there" in home.messages(run.run_id)


def test_a_run_that_does_not_say_where_its_code_is_cannot_be_launched(home: Launches) -> None:
    job = home._repository.get_reconstructable_job("quick_job")
    run = home.instance.create_run_for_job(job.get_definition())

    with pytest.raises(MlAssetsError, match="does not say where its code is; expected a code location that is loaded"):
        home.launch_created(run.run_id)
    assert home.status(run.run_id) == FAILURE


def test_a_run_for_another_python_cannot_be_launched(home: Launches) -> None:
    job = home._repository.get_reconstructable_job("quick_job")
    origin = job.get_python_origin()
    elsewhere = origin._replace(repository_origin=origin.repository_origin._replace(executable_path="/opt/x/python"))
    run = home.instance.create_run_for_job(job.get_definition(), job_code_origin=elsewhere)

    with pytest.raises(MlAssetsError, match=r"is loaded by /opt/x/python; expected .* Use one Python environment"):
        home.launch_created(run.run_id)


def test_a_run_whose_code_is_served_by_another_machine_cannot_be_launched(home: Launches) -> None:
    from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

    job = home._repository.get_reconstructable_job("quick_job")
    location = GrpcServerCodeLocationOrigin("big-server", 4000, location_name="far")
    run = home.instance.create_run_for_job(
        job.get_definition(),
        job_code_origin=job.get_python_origin(),
        remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(location, "repository"), "quick_job"),
    )

    with pytest.raises(MlAssetsError, match="location 'far' is served by big-server; expected code on this machine"):
        home.launch_created(run.run_id)


def test_a_run_whose_code_lies_beside_another_copy_of_the_project_cannot_be_launched(home: Launches) -> None:
    copy = home.code / "ml_assets"
    copy.mkdir()
    (copy / "__init__.py").touch()
    try:
        with pytest.raises(MlAssetsError, match=r"its code lies beside .*code/ml_assets; expected .*/ml_assets, which"):
            home.launch_created(home.create("quick_job"))
    finally:
        shutil.rmtree(copy)


def terminated_elsewhere(home: Launches, run_id: str) -> str:
    program = (
        "import sys, dagster as dg\n"
        "with dg.DagsterInstance.from_config(sys.argv[1]) as instance:\n"
        "    sys.stdout.write(str(instance.run_launcher.terminate(sys.argv[2])))\n"
    )
    argv = [sys.executable, "-c", program, str(home.home), run_id]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300).stdout
