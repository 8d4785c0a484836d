"""One trial in a process of its own: forked, tied to the life of the one that leads the search, telling by a pipe.

A forked process has the leader's data without a copy. The leader must not have computed on several OpenMP threads
before, or its children would wait for threads that a fork does not copy; a step that searches first has not.
"""

import ctypes
import gc
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, Protocol

from ml_assets.errors import StoreError
from ml_assets.interfaces import TrialResult


class Progress(Protocol):
    """Is told how far a trial has come, in the trial's process."""

    def fold(self, index: int, value: float) -> None:
        """Take the metric of a finished fold."""
        ...

    def resumed(self, fold: int, step: int) -> None:
        """Take that the training of a fold goes on from a step that an earlier process saved."""
        ...


Work = Callable[[Progress], TrialResult]

_FORK = multiprocessing.get_context("fork")
_PR_SET_PDEATHSIG = 1
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class TrialProcess:
    """The leader's handle on the process that evaluates one trial.

    Args:
        number: The trial's number.
        work: Evaluates it, in the process.
        threads: Numeric threads that it may use.

    Attributes:
        result: What it said in the end; None while it runs, and when it died.
        resumed: (fold, step) of the training that it went on with; None when it began each at its beginning.
        problem: What it said of its death, if it could.
    """

    def __init__(self, number: int, work: Work, *, threads: int) -> None:
        self.number = number
        self.result: TrialResult | None = None
        self.resumed: tuple[int, int] | None = None
        self.problem = ""
        reader, writer = _FORK.Pipe(duplex=False)
        self._reader: Connection | None = reader
        self._process = _FORK.Process(target=_run, args=(work, writer, threads, os.getpid()))
        self._process.start()
        writer.close()

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid or 0

    @property
    def waitables(self) -> list[Any]:
        """Return what to wait for: its pipe while it is open, and its end."""
        return [self._process.sentinel, *([self._reader] if self._reader else [])]

    def finished_folds(self) -> Iterator[tuple[int, float]]:
        """Yield the folds that it told of since the last call, without waiting; sets `result` and `resumed`."""
        while self._reader and self._reader.poll():
            try:
                message = json.loads(self._reader.recv_bytes())
            except (EOFError, OSError):  # it has gone, perhaps in the middle of a message
                self._reader.close()
                self._reader = None
                return
            if "fold" in message:
                yield message["fold"], message["value"]
            elif "resumed" in message:
                self.resumed = message["resumed"][0], message["resumed"][1]
            elif "problem" in message:
                self.problem = message["problem"]
            else:
                reports = {int(step): value for step, value in message["reports"]}
                self.result = TrialResult(**{**message, "reports": reports})

    def has_ended(self) -> bool:
        """Return whether the process has gone."""
        return self._process.exitcode is not None

    def death(self) -> str:
        """Return how it died, in words."""
        code = self._process.exitcode or 0
        if self.problem:
            return self.problem
        if code >= 0:
            return f"its process ended with exit code {code}"
        hint = ", perhaps for lack of memory" if -code == signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-code).name}{hint}"

    def end(self) -> None:
        """Kill it if it lives, and wait until it has gone."""
        self._process.kill()
        self._process.join()
        if self._reader:
            self._reader.close()
        self._reader = None


def _run(work: Work, connection: Connection, threads: int, leader: int) -> None:
    """Evaluate the trial and say what came of it; the process's main function."""
    _die_with(leader)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # the leader's handlers are for steps
    gc.freeze()
    _limit_threads(threads)
    started = time.perf_counter()

    pipe = _Pipe(connection)
    tell = pipe.tell
    try:
        result = work(pipe)
    except (StoreError, OSError, MemoryError) as error:  # says nothing of the parameters: it is tried again
        tell({"problem": _words(error)})
        os._exit(1)
    except Exception as error:  # noqa: BLE001 - whatever an estimator raises is told as the trial's failure
        result = TrialResult(state="failed", reason=_words(error))
    result = replace(result, seconds=round(time.perf_counter() - started, 3))
    tell({**vars(result), "reports": list(result.reports.items()), "marks": dict(result.marks)})


class _Pipe:
    """Implements `Progress`: tells the process that evaluates the study."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def tell(self, message: dict[str, Any]) -> None:
        self._connection.send_bytes(json.dumps(message).encode())

    def fold(self, index: int, value: float) -> None:
        self.tell({"fold": index, "value": value})

    def resumed(self, fold: int, step: int) -> None:
        self.tell({"resumed": [fold, step]})


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]


def _limit_threads(threads: int) -> None:
    from threadpoolctl import ThreadpoolController

    for variable in _THREAD_VARIABLES:
        os.putenv(variable, str(threads))  # for libraries that are loaded later
    for library in ThreadpoolController().lib_controllers:
        if library.num_threads != threads:  # asking OpenBLAS again starts threads, which spin before they sleep
            library.set_num_threads(threads)


def _die_with(leader: int) -> None:
    """Have Linux kill this process when the leader dies, however that happens: nobody would hear what it finds."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != leader:  # it died between the fork and the line above
        os._exit(1)
