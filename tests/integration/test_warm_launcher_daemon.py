"""The warm launcher inside the real daemon: queued runs, a daemon that is killed and started again, monitoring."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.grpc_server_registry import GrpcServerRegistry
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget

from resources.run_worker import claims_of
from tests.e2e.programs import stopped
from tests.integration.launched_runs import FAILURE, STARTED, SUCCESS, Launches, assert_ends, launches, wait_until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc"),
    pytest.mark.slow,  # a daemon and a code server, and Dagster's monitoring looks every ten seconds
]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Launches]:
    with launches(tmp_path) as opened:
        yield opened


@contextmanager
def daemon(home: Launches) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-m", "dagster._daemon", "run", "-f", str(home.file), "-d", str(home.code)]
    environment = {**os.environ, "DAGSTER_HOME": str(home.home), "PYTHONPATH": str(ROOT)}
    with (home.home / "daemon.log").open("ab") as log:
        process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        stopped(process)


def submit(home: Launches, workspace: WorkspaceProcessContext, job_name: str) -> str:
    request = workspace.create_request_context()
    location = request.get_code_location(home.file.name)
    remote = next(iter(location.get_repositories().values())).get_full_job(job_name)
    job = home._repository.get_reconstructable_job(job_name).get_definition()
    run = home.instance.create_run_for_job(
        job,
        status=dg.DagsterRunStatus.NOT_STARTED,
        job_code_origin=remote.get_python_origin(),
        remote_job_origin=remote.get_remote_origin(),
    )
    home.instance.submit_run(run.run_id, request)
    return run.run_id


def test_queued_runs_survive_a_killed_daemon_and_monitoring_fails_a_killed_run(home: Launches) -> None:
    target = PythonFileTarget(str(home.file), None, str(home.code), home.file.name)
    with WorkspaceProcessContext(home.instance, target) as workspace:
        with daemon(home) as first:
            quick = submit(home, workspace, "quick_job")
            assert home.finish(quick) == SUCCESS
            surviving = submit(home, workspace, "steps_job")
            home.first_note("patient")
            first.kill()
        with daemon(home):
            killed = submit(home, workspace, "pooled_job")
            pid = int(home.first_note("pooled"))
            server = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            for process in (server, pid):  # the server first, or it would say at once what became of its run
                os.kill(process, signal.SIGKILL)
            assert_ends(pid)
            assert home.finish(killed) == FAILURE
            assert home.status(surviving) == STARTED
            home.go()
            assert home.finish(surviving) == SUCCESS
        servers = workspace._grpc_server_registry
    assert isinstance(servers, GrpcServerRegistry)
    servers.wait_for_processes()

    assert f"(pid {pid}) is gone" in home.messages(killed)
    wait_until(lambda: claims_of(home.instance).holder(surviving) is None, "the end of the surviving run's process")
    assert "Traceback" not in (home.home / "daemon.log").read_text()
