"""The owner's handle on a fork server: starting it, asking it for a run, and letting it go."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, cast

from resources.run_environment import run_environment
from resources.run_worker import RunRequest

_PROJECT_ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 180.0
_REPLY_SECONDS = 60.0


class ForkServerGoneError(Exception):
    """The fork server ended or did not answer; whether it started the run is not known."""


class ForkServerRefusedError(Exception):
    """The fork server cannot work, and a new one would not either."""


class CodeChangedError(Exception):
    """The fork server holds code that is no longer on disk; it started nothing. `paths` are some of the files."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        super().__init__(", ".join(paths))


class ForkServerProcess:
    """A fork server that this process has started and alone can ask.

    Args:
        preload: Modules that it imports beside those every run needs; None for those that most steps import.
    """

    def __init__(self, preload: Sequence[str] | None) -> None:
        self._world = world()
        environment = run_environment(self._world[1])
        places = [environment.get("PYTHONPATH"), str(_PROJECT_ROOT)]
        environment["PYTHONPATH"] = os.pathsep.join(place for place in places if place)
        self._process = subprocess.Popen(  # noqa: S603 - arguments built here
            [sys.executable, "-m", "resources.fork_server", json.dumps(preload)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
        self._ready = False

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def is_fit(self) -> bool:
        """Return whether it lives, and its environment and working folder are still this process's own."""
        return self._process.poll() is None and self._world == world()

    def start_run(self, request: RunRequest) -> int:
        """Have a run's process started and return its id.

        Raises:
            CodeChangedError: If another fork server must be started first.
            ForkServerGoneError: If it does not answer.
            ForkServerRefusedError: If it cannot import what it should.
        """
        if not self._ready:
            self._receive(_START_SECONDS)
            self._ready = True
        try:
            self._process.stdin.write(request.encode())  # pyright: ignore[reportOptionalMemberAccess] - a pipe
        except BrokenPipeError as error:
            raise ForkServerGoneError("it had ended") from error
        return self._receive(_REPLY_SECONDS)["pid"]

    def let_go(self) -> None:
        """Close its input: it takes no more requests and ends when the runs it has started have ended."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def kill(self) -> None:
        """End it at once; runs it has started go on."""
        self._process.kill()
        self.let_go()

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Return whether it has ended, waiting so long for it at most."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _receive(self, seconds: float) -> dict[str, Any]:
        replies = cast("Any", self._process.stdout)
        if not wait([replies], seconds):
            raise ForkServerGoneError(f"it did not answer within {seconds:.0f} seconds")
        line = replies.readline()
        if not line.endswith(b"\n"):
            raise ForkServerGoneError(f"it ended with code {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise ForkServerRefusedError(reply["error"])
        if "changed" in reply:
            raise CodeChangedError(reply["changed"])
        return reply


def world() -> tuple[str, dict[str, str]]:
    """Return this process's working folder and environment; its runs get them, without the secrets that none needs."""
    return (os.getcwd(), dict(os.environ))  # noqa: PTH109, TID251 - passed on, not read
