"""A process without threads that has imported what runs need, and forks a process for each run it is asked for.

It reads requests, one a line, from standard input and answers each with a line of JSON on standard output.
When its input ends it takes no more requests, waits for the runs it has started, and ends. It never imports
the code of a code location: each run's process loads that itself, as it is on disk then.

`python -m resources.fork_server '["module to import", …]'`, or `null` for the modules that most steps import.
"""

import gc
import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import IO, Any

from ml_assets.errors import MlAssetsError
from ml_assets.executors.preload import threads_lost_by_fork, warm_up
from resources.loaded_code import LoadedCode
from resources.profiles import PRELOAD, QUIET
from resources.run_worker import COMPLETE, RunRequest, carry_out, record_crash

_LOOK_SECONDS = 1.0
"""How often ended processes are looked for; one that left a forked process behind does not tell by itself."""

_START_METHOD = "fork" if sys.platform == "linux" else "spawn"
"""macOS forbids its frameworks in a forked process: there each run starts a new interpreter, as Dagster does."""

_RUN_PATH = (
    "dagster._cli.api",
    "dagster._core.definitions.external_asset",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "dagster._core.execution.api",
    "dagster._core.system_config.composite_descent",
    "dagster._core.workspace.autodiscovery",
    "dagster._utils.test.definitions",
    "dagster.components.core.snapshot",
    "dagster_shared.yaml_utils.sample_yaml",
    "ml_assets.components",
    "ml_assets.components.team",
    "ml_assets.executors.step_process",
    "ml_assets.executors.warm_executor",
    "multiprocessing.popen_fork",
    "resources.dagster_storage",
)
"""What is imported on the way from a run's id to its first step, beside the code of the location."""


@dataclass(kw_only=True)
class ForkServer:
    """The processes of the runs in progress, and the code they were forked with.

    Attributes:
        code: The imported code, to tell when it is no longer that on disk.
        running: Each live process, its request, and whether it executes the run or records its crash.
    """

    code: LoadedCode
    running: dict[BaseProcess, tuple[RunRequest, bool]] = field(default_factory=dict)

    def serve(self, requests: IO[bytes], replies: IO[bytes]) -> None:
        """Answer requests until the input ends, and return when no run is in progress any more."""
        channels: list[IO[bytes]] = [requests, replies]
        asking = True
        while asking or self.running:
            waited = [process.sentinel for process in self.running]
            asked = [requests.fileno()] if asking else []
            ready = wait([*waited, *asked], _LOOK_SECONDS if self.running else None)
            self._look_after_ended(channels)
            if requests.fileno() in ready:
                line = requests.readline()
                asking = bool(line) and self._answer(line, channels)

    def _answer(self, line: bytes, channels: list[IO[bytes]]) -> bool:
        """Start the run of a request and say which process it has; return whether anybody listens."""
        changed = self.code.changed()
        if changed:
            return say(channels[1], changed=changed[:5])
        return say(channels[1], pid=self._start(RunRequest.decode(line), channels).pid)

    def _start(self, request: RunRequest, channels: list[IO[bytes]], exit_code: int | None = None) -> BaseProcess:
        context = multiprocessing.get_context(_START_METHOD)
        inherited = channels if _START_METHOD == "fork" else []
        process = context.Process(target=_work, args=(request, inherited, exit_code), name=f"run {request.run_id}")
        process.start()
        self.running[process] = (request, exit_code is None)
        return process

    def _look_after_ended(self, channels: list[IO[bytes]]) -> None:
        for process in [process for process in self.running if process.exitcode is not None]:
            request, executed = self.running.pop(process)
            exit_code = process.exitcode
            process.close()
            if executed and exit_code is not None and exit_code != COMPLETE:
                self._start(request, channels, exit_code)


def _work(request: RunRequest, channels: list[IO[bytes]], exit_code: int | None) -> None:
    for channel in channels:  # or the server's owner would wait for this process when the server is gone
        channel.close()
    if exit_code is None:
        carry_out(request)
    record_crash(request, exit_code or 0)


def say(replies: IO[bytes], **facts: Any) -> bool:
    """Write one line of JSON; return whether the owner was there to read it."""
    try:
        replies.write(json.dumps(facts).encode() + b"\n")
        replies.flush()
    except BrokenPipeError:
        return False
    return True


def _keep_channels() -> tuple[IO[bytes], IO[bytes]]:
    """Return standard input and output for the server alone; what it imports gets neither."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def main() -> None:
    """Import the modules named by the first argument and serve."""
    began_ns = time.time_ns()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the owner, whose end is noticed
    requests, replies = _keep_channels()
    wanted = json.loads(sys.argv[1])
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)  # noqa: TID251 - set for what is imported next, not read
    try:
        warm_up([*_RUN_PATH, *(PRELOAD if wanted is None else wanted)])
    except MlAssetsError as error:
        say(replies, error=str(error))
        return
    lost = threads_lost_by_fork()
    if lost:
        say(replies, error=f"importing what runs need started threads ({', '.join(lost)}), which runs would miss")
        return
    server = ForkServer(code=LoadedCode.remember(began_ns))
    if say(replies, ready=os.getpid()):
        server.serve(requests, replies)
    gc.freeze()
    os._exit(0)  # not waiting for what libraries registered for the end of a program: they did no work here


if __name__ == "__main__":
    main()
