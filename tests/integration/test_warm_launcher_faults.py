"""What the warm launcher does when a process is killed at a bad moment, or code changes under it."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus
from dagster._serdes import serialize_value

from ml_assets.errors import MlAssetsError
from resources.fork_server_process import ForkServerProcess
from resources.run_worker import RunRequest, claims_of
from resources.warm_launcher import WarmRunLauncher
from tests.integration.launched_runs import (
    FAILURE,
    STARTED,
    SUCCESS,
    Launches,
    assert_ends,
    is_alive,
    launches,
    wait_until,
)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc"),
    pytest.mark.slow,  # nearly every test starts fork servers, each some seconds of CPU
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launches]:
    with launches(tmp_path_factory.mktemp("launches")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def fresh(home: Launches) -> None:
    for path in home.code.iterdir():
        if path.is_file() and path != home.file:
            path.unlink()


ROOT = Path(__file__).parents[2]


class LosesReply(ForkServerProcess):
    """A server that is killed when it has started a run's process and before its owner has read so."""

    def _receive(self, seconds: float) -> dict[str, Any]:
        reply = super()._receive(seconds)
        if "pid" in reply:
            os.kill(self.pid, signal.SIGKILL)
            self._process.wait()
            return super()._receive(seconds)
        return reply


def test_a_server_killed_while_idle_is_replaced(home: Launches) -> None:
    assert home.finish(home.launch("quick_job")) == SUCCESS
    killed = home.server_pid
    os.kill(killed, signal.SIGKILL)

    assert home.finish(home.launch("quick_job")) == SUCCESS

    assert home.server_pid != killed
    assert len(home.notes("quick")) == 2


def test_a_server_can_be_started_before_the_first_run(home: Launches) -> None:
    home.launcher.dispose()
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    home.launcher.warm_up()
    started = home.server_pid
    home.launcher.warm_up()

    assert home.finish(home.launch("quick_job")) == SUCCESS

    assert home.server_pid == started


def test_a_server_killed_before_it_starts_the_run_is_replaced(home: Launches) -> None:
    assert home.finish(home.launch("quick_job")) == SUCCESS
    stopped, run_id = home.server_pid, home.create("quick_job")
    os.kill(stopped, signal.SIGSTOP)
    launching = threading.Thread(target=home.launch_created, args=(run_id,))
    launching.start()
    wait_until(lambda: home.run(run_id).status.value == "STARTING", "the launch")
    os.kill(stopped, signal.SIGKILL)
    launching.join()

    assert home.finish(run_id) == SUCCESS
    assert len(home.notes("quick")) == 2


def test_a_run_whose_server_was_killed_before_it_replied_is_executed_once(home: Launches) -> None:
    home.launcher.dispose()
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    home.launcher._server = LosesReply([])

    run_id = home.launch("patient_job")
    home.first_note("patient")
    assert home.finish(home.launch("quick_job")) == SUCCESS  # by then the run's second process has given up
    home.go()

    assert home.finish(run_id) == SUCCESS
    assert len(home.notes("patient")) == len(home.notes("done")) == 1
    assert home.messages(run_id).count("Started process for run") == 1


def test_runs_outlive_the_server_that_started_them(home: Launches) -> None:
    run_id = home.launch("steps_job")
    home.first_note("patient")
    os.kill(home.server_pid, signal.SIGKILL)

    assert home.launcher.check_run_worker_health(home.run(run_id)).status == WorkerStatus.RUNNING
    home.go()

    assert home.finish(run_id) == SUCCESS


def test_monitoring_fails_a_run_whose_process_was_killed_after_its_server(home: Launches) -> None:
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import EmptyWorkspaceTarget
    from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

    run_id = home.launch("patient_job")
    pid = int(home.first_note("patient"))
    for killed in (home.server_pid, pid):
        os.kill(killed, signal.SIGKILL)
    assert_ends(pid)
    # Some kernels show a process as ended a moment before they give up its locks.
    wait_until(lambda: claims_of(home.instance).holder(run_id) is None, "the end of the claim")
    assert home.status(run_id) == STARTED

    with WorkspaceProcessContext(home.instance, EmptyWorkspaceTarget()) as workspace:
        errors = list(execute_run_monitoring_iteration(workspace, logging.getLogger("monitoring")))

    assert [error for error in errors if error] == []
    assert home.status(run_id) == FAILURE
    assert f"(pid {pid}) is gone" in home.messages(run_id)
    assert claims_of(home.instance).holder(run_id) is None


def test_the_pool_slot_of_a_killed_run_is_free_at_once(home: Launches) -> None:
    home.instance.event_log_storage.set_concurrency_slots("models", 1)
    run_id = home.launch("pooled_job")
    os.kill(int(home.first_note("pooled")), signal.SIGKILL)
    assert home.finish(run_id) == FAILURE
    wait_until(
        lambda: not home.instance.event_log_storage.get_concurrency_info("models").active_slot_count, "a free slot"
    )


def test_changed_code_of_the_project_is_seen_by_the_next_run(
    home: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"project_{home.module}"
    (tmp_path / f"{module}.py").write_text("ANSWER = 1\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    text = home.file.read_text()
    home.file.write_text(text.replace('VERSION = "first"', f"from {module} import ANSWER as VERSION"))
    monkeypatch.setattr(home.launcher, "_preload", [module])
    try:
        assert home.finish(home.launch("quick_job")) == SUCCESS
        first, running = home.server_pid, home.launch("patient_job")
        assert home.finish(home.launch("quick_job")) == SUCCESS
        assert home.server_pid == first
        (tmp_path / f"{module}.py").write_text("ANSWER = 222\n")
        assert home.finish(home.launch("quick_job")) == SUCCESS
    finally:
        home.file.write_text(text)

    assert home.server_pid != first
    assert [note.split()[1] for note in home.notes("quick")] == ["1", "1", "222"]
    assert is_alive(first), "the replaced server looks after its run until it ends"
    home.go()
    assert home.finish(running) == SUCCESS
    assert_ends(first)


def test_a_changed_environment_reaches_the_next_run(home: Launches, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home.finish(home.launch("surroundings_job")) == SUCCESS
    monkeypatch.setenv("LEFT_BY_A_RUN", "set by the owner")
    assert home.finish(home.launch("surroundings_job")) == SUCCESS

    assert ["set by the owner" in note for note in home.notes("surroundings")] == [False, True]


def test_a_module_that_cannot_be_preloaded_is_named(home: Launches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home.launcher, "_preload", ["no_such_module"])
    home.launcher.dispose()
    run_id = home.create("quick_job")

    with pytest.raises(MlAssetsError, match=r"cannot serve: .*'no_such_module' cannot be imported .* Correct `run_l"):
        home.launch_created(run_id)
    assert home.status(run_id) == FAILURE


def test_servers_that_die_again_and_again_fail_the_launch(
    home: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deadly_module.py").write_text("import os; os._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(home.launcher, "_preload", ["deadly_module"])
    run_id = home.create("quick_job")

    with pytest.raises(MlAssetsError, match=r"3 fork servers were asked .* of the last: it ended with code 3"):
        home.launch_created(run_id)
    assert home.status(run_id) == FAILURE


def test_runs_go_on_when_their_owner_is_killed(home: Launches) -> None:
    run_id = home.create("steps_job")
    program = (
        "import json, sys, time, dagster as dg\n"
        "instance = dg.DagsterInstance.from_config(sys.argv[1])\n"
        "instance.launch_run(sys.argv[2], None)\n"
        "print(json.dumps(instance.run_launcher._server.pid), flush=True)\n"
        "time.sleep(120)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program, str(home.home), run_id], stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout is not None
        server = json.loads(owner.stdout.readline())
        step = int(home.first_note("patient"))
        owner.kill()
    assert home.launcher.check_run_worker_health(home.run(run_id)).status == WorkerStatus.RUNNING

    home.go()

    assert home.finish(run_id) == SUCCESS
    for pid in (step, server):
        assert_ends(pid)


def test_where_forking_is_unsafe_each_run_starts_a_new_interpreter(home: Launches) -> None:
    program = "import resources.fork_server as server; server._START_METHOD = 'spawn'; server.main()"
    run_id = home.create("steps_job")
    request = RunRequest(run_id=run_id, instance=serialize_value(home.instance.get_ref()))
    server = subprocess.Popen(
        [sys.executable, "-c", program, "[]"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    with server:
        assert server.stdin is not None
        server.stdin.write(request.encode())
        server.stdin.flush()
        home.first_note("patient")
        run_process = claims_of(home.instance).holder(run_id)
        assert b"multiprocessing" in Path(f"/proc/{run_process}/cmdline").read_bytes()
        home.go()
        assert home.finish(run_id) == SUCCESS
    assert server.returncode == 0


def test_a_step_that_outlives_its_run_does_not_keep_the_claim(home: Launches) -> None:
    with claims_of(home.instance).held("some run") as mine:
        assert mine
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
    try:
        with claims_of(home.instance).held("some run") as mine:
            assert mine
            assert claims_of(home.instance).holder("some run") == os.getpid()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_launcher_is_that_of_the_local_instance(home: Launches) -> None:
    assert isinstance(home.instance.run_launcher, WarmRunLauncher)
    assert dg.DagsterInstance.from_config(str(home.home)).run_launcher.supports_check_run_worker_health
