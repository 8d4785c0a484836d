"""Dagster homes whose runs are launched by the warm launcher, and a small code location to launch."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.launcher import LaunchRunContext

from resources.dagster_home import initialise_home
from resources.warm_launcher import WarmRunLauncher
from tests.postgres_server import local_instance, on_postgres

SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
CANCELED, STARTED = dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.STARTED
TIME_LIMIT_SECONDS = 240.0

LOCATION = """
import ctypes, os, resource, signal, sys, threading, time
from pathlib import Path

import dagster as dg

from ml_assets.executors.warm_executor import warm_executor

HERE = Path(__file__).parent
VERSION = "first"


def note(name, value):
    with (HERE / name).open("a") as file:
        file.write(f"{value}\\n")


def wait_for(name):
    while not (HERE / name).exists():
        time.sleep(0.02)


@dg.asset
def quick():
    note("quick", f"{os.getpid()} {VERSION}")


@dg.asset
def raising():
    raise ValueError("the reason of this failure")


@dg.asset
def patient():
    note("patient", os.getpid())
    wait_for("go")
    note("done", os.getpid())


@dg.asset
def stubborn():
    note("stubborn", os.getpid())
    while True:
        try:
            time.sleep(120)
        except BaseException:
            note("ignored", os.getpid())


@dg.asset(pool="models")
def pooled():
    note("pooled", os.getpid())
    wait_for("go")


@dg.asset
def vandal():
    os.chdir("/")
    os.umask(0)
    os.environ["LEFT_BY_A_RUN"] = "yes"
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.modules["left_by_a_run"] = sys
    threading.Thread(target=time.sleep, args=(0.2,)).start()
    os._exit(0)


@dg.asset
def crashing():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


@dg.asset
def surroundings():
    import numpy

    umask = os.umask(0o22)
    os.umask(umask)
    note("surroundings", [os.getcwd(), oct(umask), os.environ.get("LEFT_BY_A_RUN"), "left_by_a_run" in sys.modules,
                          threading.active_count(), os.getsid(0) == os.getpid(), sys.stdin.read()])
    note("random", numpy.random.random())


assets = [quick, raising, patient, stubborn, pooled, vandal, crashing, surroundings]
defs = dg.Definitions(
    assets=assets,
    jobs=[
        *(dg.define_asset_job(f"{a.key.path[-1]}_job", [a], executor_def=dg.in_process_executor) for a in assets),
        dg.define_asset_job("steps_job", [patient], executor_def=warm_executor),
        dg.define_asset_job("stubborn_steps_job", [stubborn], executor_def=warm_executor),
    ],
)
"""


class Launches:
    """A Dagster home with a code location, and its runs.

    Args:
        folder: Where home and code are made.
        database: URL of the PostgreSQL database for runs, events and schedules; they are in files when None.
        options: Configuration of the launcher.
    """

    def __init__(self, folder: Path, database: str | None = None, **options: Any) -> None:
        self.code = folder / "code"
        self.code.mkdir()
        self.module = f"location_{uuid.uuid4().hex}"
        self.file = self.code / f"{self.module}.py"
        self.file.write_text(LOCATION)
        self.home = folder / "home"
        config = local_instance(self.home)
        config["run_launcher"]["config"] = {"preload": [], **options}
        if database is not None:
            config = on_postgres(config, database)
        (folder / "dagster.yaml").write_text(yaml.safe_dump(config))
        initialise_home(self.home, folder / "dagster.yaml")
        self.instance = dg.DagsterInstance.from_config(str(self.home))
        self._repository = ReconstructableRepository.for_file(str(self.file), "defs", str(self.code))
        self._job_names = {job.name for job in self._repository.get_definition().get_all_jobs()}

    @property
    def launcher(self) -> WarmRunLauncher:
        launcher = self.instance.run_launcher
        assert isinstance(launcher, WarmRunLauncher)
        return launcher

    @property
    def server_pid(self) -> int:
        assert self.launcher._server is not None
        return self.launcher._server.pid

    def create(self, job_name: str) -> str:
        job = self._repository.get_reconstructable_job(job_name)
        return self.instance.create_run_for_job(job.get_definition(), job_code_origin=job.get_python_origin()).run_id

    def launch(self, job_name: str) -> str:
        run_id = self.create(job_name)
        self.launch_created(run_id)
        return run_id

    def launch_created(self, run_id: str) -> None:
        os.environ.pop("PYTEST_CURRENT_TEST", None)  # it differs in each test, and a fork server has one environment
        self.instance.launch_run(run_id, None)  # pyright: ignore[reportArgumentType] - not needed by this launcher

    def launch_again(self, run_id: str) -> None:
        """Ask the launcher alone for a process, as if it were asked twice."""
        os.environ.pop("PYTEST_CURRENT_TEST", None)
        self.launcher.launch_run(LaunchRunContext(dagster_run=self.run(run_id), workspace=None))

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        return self.run(run_id).status

    def run(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def finish(self, run_id: str) -> dg.DagsterRunStatus:
        wait_until(lambda: self.run(run_id).is_finished, f"the end of run {run_id}")
        return self.status(run_id)

    def notes(self, name: str) -> list[str]:
        path = self.code / name
        return path.read_text().splitlines() if path.exists() else []

    def first_note(self, name: str) -> str:
        """Return the first line of a note as soon as it is there."""
        wait_until(lambda: self.notes(name), f"a note {name!r}")
        return self.notes(name)[0]

    def go(self) -> None:
        """Let the patient assets end."""
        (self.code / "go").touch()

    def messages(self, run_id: str) -> str:
        """Return all that the run's log says, with the errors' stacks."""
        texts = []
        for entry in self.instance.all_logs(run_id):
            texts.append(entry.user_message or entry.message)
            data = entry.dagster_event.event_specific_data if entry.dagster_event else None
            error = getattr(data, "error", None)
            if error:
                texts.append(error.to_string())
        return "\n".join(texts)

    def close(self) -> None:
        """End all and make sure that nothing is left running."""
        self.go()
        servers = [s for s in [self.launcher._server, *self.launcher._former] if s]
        self.instance.dispose()
        for server in servers:
            assert server.has_ended(TIME_LIMIT_SECONDS), f"fork server {server.pid} is still there"


@contextmanager
def launches(folder: Path, database: str | None = None, **options: Any) -> Iterator[Launches]:
    opened = Launches(folder, database, **options)
    try:
        yield opened
    finally:
        opened.close()


def wait_until(condition: Callable[[], Any], what: str, seconds: float = TIME_LIMIT_SECONDS) -> Any:
    """Return what the condition gives as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.02)
    return found


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def assert_ends(pid: int) -> None:
    wait_until(lambda: not is_alive(pid), f"the end of process {pid}")
