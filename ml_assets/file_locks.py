"""Locked files: proof that a process is alive, which the operating system takes back however it ends."""

import fcntl
import os


def for_the_owner(path: str, flags: int) -> int:
    """Open a file that nobody else may open, as an `opener`: who can open a mutex can hold up whoever waits for it."""
    return os.open(path, flags, 0o600)


def is_locked(descriptor: int) -> bool:
    """Return whether another process holds an exclusive lock on an open file; who only looks keeps no other from it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
