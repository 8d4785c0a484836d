"""Whether processes that are forked from this one could compute with OpenMP, or would wait for ever."""

import ctypes
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

_LOOK_SECONDS = 2.0
"""A child that could compute is done within some milliseconds; one that cannot never is."""


def fork_is_safe(look_seconds: float = _LOOK_SECONDS) -> bool:
    """Return whether a process forked from the calling thread could run an OpenMP loop on several threads.

    libgomp keeps the threads of a loop for the next one. A fork copies the record of them and not the threads, and
    the child's first loop on two or more threads waits for them for ever; one on a single thread does not. Which
    threads of a process are libgomp's cannot be seen, so this tries it: it forks a child that runs an empty loop in
    each OpenMP library that is loaded. Threads of OpenBLAS and Arrow, which both mend themselves at a fork, do not
    count, nor do locks that other Python threads hold.

    It takes about 20 ms, and `look_seconds` when the answer is no. It says nothing of what is computed afterwards:
    ask just before forking. Without fork on this system the answer is no.

    Args:
        look_seconds: How long the child may take, in seconds; on a machine so busy that this is too short, the answer
            is no though it could be yes.

    Returns:
        Whether children may use as many threads as they like. When not, hold each of them to one, or do not fork.
    """
    if not hasattr(os, "fork"):
        return False
    loops = _parallel_loops()
    return not loops or _ends(loops, look_seconds)


def _parallel_loops() -> list[Any]:
    """Return what starts a loop, for each loaded library that has it: libgomp, and others that speak its protocol."""
    from threadpoolctl import ThreadpoolController

    loops = []
    for library in ThreadpoolController().lib_controllers:
        if library.user_api == "openmp":
            with suppress(OSError, AttributeError):
                loops.append(ctypes.CDLL(library.filepath).GOMP_parallel)
    return loops


def _ends(loops: Sequence[Any], look_seconds: float) -> bool:
    """Return whether a forked child comes to the end of all loops in time."""
    nothing = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p)  # its threads may not need the interpreter's lock
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for loop in loops:
                loop(nothing, None, 2, 0)
            os.write(writer, b"!")
        finally:
            os._exit(0)
    os.close(writer)
    try:
        return bool(wait([reader], look_seconds)) and os.read(reader, 1) == b"!"
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):  # as where SIGCHLD is ignored
            os.waitpid(child, 0)
