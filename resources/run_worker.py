"""What the process of one run does, and what is recorded of a run whose process ended before its time."""

import importlib
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.instance import InstanceRef  # noqa: TID251 the address of an instance
from dagster._serdes import deserialize_value
from dagster._utils import get_run_crash_explanation
from dagster._utils.interrupts import capture_interrupts

from resources.run_claims import RunClaims

COMPLETE = 64
"""Exit code of a process that recorded how its run ended. An `os._exit(0)` of the run's own code is not that."""

_WAITING = (DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING)


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A run to execute.

    Attributes:
        run_id: The run, which the instance has recorded together with the place of its code.
        instance: The instance's address, serialised by Dagster.
    """

    run_id: str
    instance: str

    def encode(self) -> bytes:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Return the request that `encode` wrote."""
        return cls(**json.loads(line))

    def open_instance(self) -> DagsterInstance:
        """Open the instance."""
        return DagsterInstance.from_ref(deserialize_value(self.instance, InstanceRef))


def claims_of(instance: DagsterInstance) -> RunClaims:
    """Return the claims on an instance's runs."""
    return RunClaims(Path(instance.root_directory) / "run_claims")


def carry_out(request: RunRequest) -> None:
    """Execute a run in this process, as `dagster api execute_run` does, and end the process.

    The process may have been forked from one that serves many runs: it leaves that one's session, and its
    random numbers are its own. A run that another process executes, or that has begun before, is not executed.

    Raises:
        SystemExit: At the end, with `COMPLETE`.
    """
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _reseed()
    importlib.invalidate_caches()  # the folders of the code may have been read before they were changed
    with capture_interrupts(), request.open_instance() as instance, claims_of(instance).held(request.run_id) as mine:
        if mine:
            _execute(instance, request.run_id)
    sys.exit(COMPLETE)


def _execute(instance: DagsterInstance, run_id: str) -> None:
    from dagster._cli.api import _execute_run_command_body

    run = instance.get_run_by_id(run_id)
    if run is None:  # deleted while it waited
        return
    if run.status in _WAITING:
        _execute_run_command_body(run_id, instance, lambda _: None, set_exit_code_on_failure=False)
    record_end(instance, run_id, f"The process of this run (pid {os.getpid()}) ended without saying how.")


def record_crash(request: RunRequest, exit_code: int) -> None:
    """Record the end of a run whose process ended with an exit code other than `COMPLETE`, and end this process.

    Raises:
        SystemExit: At the end, with `COMPLETE`.
    """
    explanation = get_run_crash_explanation("The process of this run", exit_code)
    with request.open_instance() as instance, claims_of(instance).held(request.run_id) as mine:
        if mine:
            record_end(instance, request.run_id, explanation)
    sys.exit(COMPLETE)


def record_end(instance: DagsterInstance, run_id: str, explanation: str) -> None:
    """Record that a run has ended and free its pool slots, unless it says so itself or waits in the queue.

    Call it with the claim on the run held: nobody executes it then.
    """
    run = instance.get_run_by_id(run_id)
    if run is None or run.status not in (*_WAITING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING):
        return
    if run.status == DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, f"{explanation} It had been asked to stop.")
    else:
        instance.report_run_failed(run, explanation)
    instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def _reseed() -> None:
    """Give NumPy's global generator fresh entropy, or all runs would draw alike; Python's own does so by itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random:
        numpy_random.seed()
