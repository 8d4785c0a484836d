"""Kills a process with all of its session after some seconds, unless it has ended by then.

A program of its own, so that whoever asked for it need not live that long: `kill_later.py PID PIDFD SECONDS`.
It is started with `python -I -S` and uses the standard library alone.
"""

import os
import select
import signal
import sys
import time
from contextlib import suppress


def _ends_within(pid: int, descriptor: int, seconds: float) -> bool:
    if descriptor >= 0:  # a descriptor of the process itself: no other one can be taken for it
        return bool(select.select([descriptor], [], [], seconds)[0])
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.2)
    return False


def main() -> None:
    """Leave the caller, wait, and kill."""
    if os.fork():
        os._exit(0)
    pid, descriptor, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    if not _ends_within(pid, descriptor, seconds):
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
