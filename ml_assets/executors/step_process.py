"""One step in a process forked from the run process: what the child does, and the parent's handle on it."""

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from dagster import DagsterEvent, DagsterExecutionInterruptedError, DagsterInstance, DagsterRun, MetadataValue
from dagster._core.definitions.job_base import IJob  # noqa: TID251 what the executor interface hands over
from dagster._core.execution.api import (  # noqa: TID251 runs a plan of one step; the public API runs jobs
    execute_plan_iterator,
)
from dagster._core.execution.context_creation_job import (  # noqa: TID251 logs before the plan is there
    create_context_free_log_manager,
)
from dagster._core.execution.plan.plan import ExecutionPlan  # noqa: TID251 the executor interface's own type
from dagster._core.execution.plan.state import KnownExecutionState  # noqa: TID251 outputs and attempts so far
from dagster._core.execution.retries import RetryMode  # noqa: TID251 the executor interface's own type
from dagster._core.instance import InstanceRef  # noqa: TID251 the address of an instance
from dagster._core.system_config.objects import ResolvedRunConfig  # noqa: TID251 a plan's subset needs it
from dagster._serdes import deserialize_value, serialize_value
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster._utils.interrupts import capture_interrupts
from dagster_shared.error import SerializableErrorInfo
from threadpoolctl import ThreadpoolController

from ml_assets.executors.demands import Share

_FORK = multiprocessing.get_context("fork")
_FINISHED = b""
_PR_SET_PDEATHSIG = 1
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Message = DagsterEvent | SerializableErrorInfo


@dataclass(frozen=True, kw_only=True)
class StepCommand:
    """All that a child needs, inherited through the fork and never serialised.

    Attributes:
        instance_ref: Where the child opens its own Dagster instance.
        dagster_run: The run.
        job: The job, whose definition the run process has loaded.
        plan: The run's execution plan.
        step_key: The step to execute.
        known_state: Outputs produced and attempts made so far.
        run_config: The run's configuration.
        retry_mode: The executor's; the child leaves retries to it.
        share: What it takes of the run's worker; its numeric libraries use as many threads as it has cores.
        gpus: GPUs it may use, as CUDA names them, separated by commas; None to leave that as it is.
        memory_hold: Descriptor that holds its memory among the runs of this machine until its process ends.
        thread_pools: Numeric libraries loaded before the fork.
    """

    instance_ref: InstanceRef
    dagster_run: DagsterRun
    job: IJob
    plan: ExecutionPlan
    step_key: str
    known_state: KnownExecutionState
    run_config: Mapping[str, object]
    retry_mode: RetryMode
    share: Share
    gpus: str | None = None
    memory_hold: int | None = None
    thread_pools: ThreadpoolController


class StepProcess:
    """The run process's handle on one step's process.

    Attributes:
        step_key: The step it executes.
        share: What it takes of the run's worker until the process has gone.
        started_at: When it was forked, as of `time.monotonic`.
        finished_at: When the child said that it sent everything; None before. Without that its end is a crash.
        killed: Whether the run process has ended it.
    """

    def __init__(self, command: StepCommand) -> None:
        self.step_key = command.step_key
        self.share = command.share
        self.finished_at: float | None = None
        self.killed = False
        reader, writer = _FORK.Pipe(duplex=False)
        self._reader: Connection | None = reader
        self._process = _FORK.Process(target=_run_step, args=(command, writer, os.getpid()))
        self.started_at = time.monotonic()
        try:
            self._process.start()
        finally:
            writer.close()
            if command.memory_hold is not None:  # from here on the child alone holds it
                os.close(command.memory_hold)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid or 0

    @property
    def finished(self) -> bool:
        """Return whether the child said that it sent everything."""
        return self.finished_at is not None

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, minus the signal's number when one ended it, None while it runs."""
        return self._process.exitcode

    @property
    def waitables(self) -> list[Any]:
        """Return what to wait for: the pipe while it is open, and the end of the process."""
        return [self._process.sentinel, *([self._reader] if self._reader else [])]

    def messages(self) -> Iterator[Message]:
        """Yield what has arrived, without waiting."""
        while self._reader and self._reader.poll():
            try:
                data = self._reader.recv_bytes()
            except (EOFError, OSError):  # the child has gone, perhaps in the middle of a message
                self._close()
                return
            if data == _FINISHED:
                self.finished_at = time.monotonic()
                self._close()
                return
            yield deserialize_value(data.decode(), (DagsterEvent, SerializableErrorInfo))

    def interrupt(self) -> None:
        """Ask the step to stop, as a cancelled run does; nothing happens when it has ended."""
        self._process.terminate()

    def kill(self) -> None:
        """End the step at once, without a word from it."""
        self.killed = True
        self._process.kill()

    def _close(self) -> None:
        if self._reader:
            self._reader.close()
        self._reader = None


def _run_step(command: StepCommand, connection: Connection, parent_pid: int) -> None:
    """Execute the step and send its events; the child's main function.

    multiprocessing ends a forked child with os._exit after joining its threads: exit handlers that were
    registered in the run process do not run here.
    """
    _die_with_parent(parent_pid)
    if (hold := command.memory_hold) is not None:  # a process that outlives the step keeps no memory from others
        os.register_at_fork(after_in_child=lambda: os.close(hold))
    gc.freeze()
    with capture_interrupts():
        try:
            limit_threads(command.share.cores, command.thread_pools)
            if command.gpus is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = command.gpus  # noqa: TID251 - set, for CUDA and torch, not read
            _reseed()
            for event in _step_events(command):
                connection.send_bytes(serialize_value(event).encode())
        except (Exception, KeyboardInterrupt, DagsterExecutionInterruptedError):  # noqa: BLE001 told to the parent
            error = serializable_error_info_from_exc_info(sys.exc_info())
            connection.send_bytes(serialize_value(error).encode())
        connection.send_bytes(_FINISHED)
        connection.close()


def _step_events(command: StepCommand) -> Iterator[DagsterEvent]:
    run = command.dagster_run
    with DagsterInstance.from_ref(command.instance_ref) as instance:
        yield DagsterEvent.step_worker_started(
            create_context_free_log_manager(instance, run),
            run.job_name,
            message=f'Executing step "{command.step_key}" in a forked process.',
            metadata={
                "pid": MetadataValue.text(str(os.getpid())),
                "cores": MetadataValue.int(command.share.cores),
                "memory_mib": MetadataValue.int(command.share.memory_mib),
            },
            step_key=command.step_key,
        )
        yield from execute_plan_iterator(
            _plan_of_one_step(command),
            command.job,
            run,
            run_config=command.run_config,
            retry_mode=command.retry_mode.for_inner_plan(),
            instance=instance,
        )


def _plan_of_one_step(command: StepCommand) -> ExecutionPlan:
    job_def = command.job.get_definition()
    return command.plan._replace(known_state=command.known_state).build_subset_plan(
        [command.step_key], job_def, ResolvedRunConfig.build(job_def, command.run_config)
    )


def limit_threads(cores: int, thread_pools: ThreadpoolController) -> None:
    """Hold BLAS, OpenMP and Arrow to `cores` threads in this process.

    Libraries loaded later read the variables, as do programs the step starts; setting them through putenv
    leaves `os.environ` (and what joblib derives from it) as it was.
    """
    for variable in _THREAD_VARIABLES:
        os.putenv(variable, str(cores))
    for library in thread_pools.lib_controllers:
        if library.num_threads != cores:  # asking OpenBLAS again starts threads, which spin before they sleep
            library.set_num_threads(cores)
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow:
        pyarrow.set_cpu_count(cores)


def _reseed() -> None:
    """Give NumPy's global generator fresh entropy, or all forked steps would draw alike.

    Python's own `random` does this by itself.
    """
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random:
        numpy_random.seed()


def _die_with_parent(parent_pid: int) -> None:
    """Have Linux kill this process when the run process dies, however that happens.

    Elsewhere the next event that cannot be sent ends the step.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died between the fork and the line above
        os._exit(1)
