"""A Dagster run launcher for one machine that forks each run from a process that has imported what runs need.

    run_launcher:
      module: resources.warm_launcher
      class: WarmRunLauncher

A run sees the code of its location as it is on disk when it is launched, in a process and session of its own.
Runs go on when the process that launched them, or the fork server, ends.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from dagster import Array, DagsterRun, DagsterRunStatus, Field, Float, Noneable, String
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher.base import (  # noqa: TID251 the launcher interface
    CheckRunHealthResult,
    LaunchRunContext,
    RunLauncher,
    WorkerStatus,
)
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin  # noqa: TID251 tells where a run's code is
from dagster._serdes import ConfigurableClass, serialize_value
from dagster._serdes.config_class import ConfigurableClassData

import ml_assets
import resources
from ml_assets.errors import MlAssetsError
from resources.fork_server_process import (
    CodeChangedError,
    ForkServerGoneError,
    ForkServerProcess,
    ForkServerRefusedError,
)
from resources.run_processes import process_of
from resources.run_worker import RunRequest, claims_of, record_end

_ATTEMPTS = 3
"""One with the server there is, one when that one is gone or outdated, and one for code that changed meanwhile."""

_NOT_BEGUN = (DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING)
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


class WarmRunLauncher(RunLauncher, ConfigurableClass):
    """Launches runs through a fork server that belongs to this process and starts with the first launch.

    Args:
        preload: Modules the fork server imports beside Dagster's own; None for those that most steps import.
        kill_after_seconds: How long a run may take to stop when it is asked to.
        inst_data: Where this launcher is configured.
    """

    def __init__(
        self,
        preload: Sequence[str] | None = None,
        kill_after_seconds: float = 60.0,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__()
        self._preload = preload
        self._kill_after_seconds = kill_after_seconds
        self._inst_data = inst_data
        self._lock = threading.Lock()
        self._server: ForkServerProcess | None = None
        self._former: list[ForkServerProcess] = []
        self._launched: deque[str] = deque(maxlen=1000)

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """Return where this launcher is configured."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return the schema of `config` in dagster.yaml."""
        return {
            "preload": Field(Noneable(Array(String)), default_value=None),
            "kill_after_seconds": Field(Float, default_value=60.0),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Build from the `config` of dagster.yaml."""
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the process of a run and return at once.

        Raises:
            MlAssetsError: If the run's code is not on this machine or not for this Python, or no process for it
                can be started.
        """
        run = context.dagster_run
        _require_local_code(run)
        request = RunRequest(run_id=run.run_id, instance=serialize_value(self._instance.get_ref()))
        with self._lock:
            self._start(request)
        self._launched.append(run.run_id)

    def warm_up(self) -> None:
        """Start the fork server without waiting for it, so that the first launch need not; cheap to call again."""
        with self._lock:
            self._fit_server()

    def _start(self, request: RunRequest) -> None:
        """Ask the fork server; replace it when it is gone or outdated.

        A server that was lost may or may not have started the run. Asking another one is safe: the process that
        comes second finds the run claimed or begun and leaves it alone.
        """
        reason = ""
        for _ in range(_ATTEMPTS):
            server = self._fit_server()
            try:
                server.start_run(request)
            except CodeChangedError as error:
                reason = f"its code changed while it was imported: {error}"
                self._replace(server)
            except ForkServerGoneError as error:
                reason = str(error)
                server.kill()
                self._replace(server)
            except ForkServerRefusedError as error:
                self._replace(server)
                raise MlAssetsError(
                    f"run {request.run_id}: the fork server cannot serve: {error}. Correct `run_launcher` in "
                    "dagster.yaml."
                ) from error
            else:
                return
        raise MlAssetsError(
            f"run {request.run_id}: {_ATTEMPTS} fork servers were asked for its process and none started one; of "
            f"the last: {reason}. See the output of this process for what it wrote, then launch the run again."
        )

    def _fit_server(self) -> ForkServerProcess:
        self._former = [server for server in self._former if not server.has_ended()]
        if self._server and not self._server.is_fit():
            self._replace(self._server)
        if self._server is None:
            self._server = ForkServerProcess(self._preload)
        return self._server

    def _replace(self, server: ForkServerProcess) -> None:
        server.let_go()
        self._former.append(server)
        self._server = None

    def terminate(self, run_id: str) -> bool:
        """Ask a run to stop, from whichever process of this machine; kill it when it does not within the limit.

        Returns:
            Whether the run will stop, or has.
        """
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        pid = claims_of(self._instance).holder(run_id)
        if pid is not None:
            self._interrupt(run_id, pid)
            return True
        if run.status in _NOT_BEGUN:  # its process, when it comes, sees that the run is to be cancelled
            return True
        return self._end_without_process(run)

    def _interrupt(self, run_id: str, pid: int) -> None:
        """Send SIGTERM to a run's process, and have its session killed if it lives on."""
        descriptor = -1
        try:
            if sys.platform == "linux":
                descriptor = os.pidfd_open(pid)
                if claims_of(self._instance).holder(run_id) != pid:  # it ended, and the id may be another's by now
                    return
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            else:
                os.kill(pid, signal.SIGTERM)
            _kill_later(pid, descriptor, self._kill_after_seconds)
        except ProcessLookupError:  # it has just ended by itself
            return
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _end_without_process(self, run: DagsterRun) -> bool:
        process = self._known_process(run)
        if process is not None and not process.lives():
            with claims_of(self._instance).held(run.run_id) as mine:
                if mine:
                    record_end(self._instance, run.run_id, f"The process of this run (pid {process.pid}) is gone.")
            return True
        where = "another machine or program" if process is None else f"process {process.pid}"
        self._instance.report_engine_event(
            f"This launcher did not start the run, which {where} carries out; stop it there.", run, cls=type(self)
        )
        return False

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Return that Dagster's monitoring may ask whether a run's process lives."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return whether the process of a run lives; a run of which no process is known counts as running."""
        pid = claims_of(self._instance).holder(run.run_id)
        if pid is not None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(pid))
        process = self._known_process(run)
        if process is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "no process of this run is known on this machine")
        if process.lives():
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(process.pid))
        return CheckRunHealthResult(WorkerStatus.FAILED, f"The process of this run (pid {process.pid}) is gone.")

    def _known_process(self, run: DagsterRun) -> Any:
        record = self._instance.get_run_record_by_id(run.run_id)
        return None if record is None else process_of(self._instance, run, record.create_timestamp.timestamp())

    def join(self, timeout: int = 30) -> None:
        """Wait for the runs that were launched here.

        Raises:
            MlAssetsError: If one has not finished within so many seconds.
        """
        deadline = time.monotonic() + timeout
        while left := sorted(run_id for run_id in self._launched if not self._is_finished(run_id)):
            if time.monotonic() > deadline:
                raise MlAssetsError(f"runs {', '.join(left[:5])} have not finished within {timeout} seconds.")
            time.sleep(0.05)

    def _is_finished(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        return run is None or run.is_finished

    def dispose(self) -> None:
        """Let the fork server go; it ends when its runs have."""
        with self._lock:
            if self._server:
                self._replace(self._server)
            for server in self._former:
                server.has_ended(seconds=1.0)


def _require_local_code(run: DagsterRun) -> None:
    origin = run.job_code_origin
    if origin is None:
        raise MlAssetsError(
            f"run {run.run_id}: it does not say where its code is; expected a code location that is loaded from a "
            "Python module or file. Launch it from a workspace, or execute it in its own process."
        )
    remote = run.remote_job_origin
    location = None if remote is None else remote.repository_origin.code_location_origin
    if isinstance(location, GrpcServerCodeLocationOrigin) and location.host not in _THIS_MACHINE:
        raise MlAssetsError(
            f"run {run.run_id}: its code location {location.location_name!r} is served by {location.host}; expected "
            "code on this machine. Use DefaultRunLauncher in dagster.yaml for locations on other machines."
        )
    executable = Path(origin.repository_origin.executable_path).absolute()
    if executable.parent != Path(sys.executable).absolute().parent:
        raise MlAssetsError(
            f"run {run.run_id}: its code location is loaded by {executable}; expected {sys.executable}, which "
            "launches it. Use one Python environment for both, or DefaultRunLauncher in dagster.yaml."
        )
    _require_one_project(run, getattr(origin.repository_origin.code_pointer, "working_directory", None))


def _require_one_project(run: DagsterRun, working_directory: str | None) -> None:
    """Refuse code beside another copy of the project: its run would silently get this one's modules."""
    for package in (ml_assets, resources):
        ours = Path(package.__path__[0])
        theirs = Path(working_directory or ".", ours.name)
        if theirs.joinpath("__init__.py").exists() and not theirs.samefile(ours):
            raise MlAssetsError(
                f"run {run.run_id}: its code lies beside {theirs}; expected {ours}, which the launcher has imported. "
                "Start the daemon from the checkout that the code location belongs to, or use DefaultRunLauncher."
            )


def _kill_later(pid: int, descriptor: int, seconds: float) -> None:
    """Start the program that kills a process after so many seconds; it does not need this process."""
    program = Path(__file__).with_name("kill_later.py")
    subprocess.run(  # noqa: S603 - arguments built here
        [sys.executable, "-I", "-S", str(program), str(pid), str(descriptor), str(seconds)],
        check=True,
        pass_fds=[descriptor] if descriptor >= 0 else [],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
