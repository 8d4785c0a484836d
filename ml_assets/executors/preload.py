"""What a run process holds in common for all its steps before it forks, and whether it is fit to fork."""

import gc
import importlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import ThreadpoolController

from ml_assets.errors import MlAssetsError

_FORK_SAFE_NATIVE_THREADS = ("jemalloc_bg_thd",)
_RUN_WORKER_THREADS = ("termination-handler", "kill-on-cancel", "run-metrics", "QueueFeederThread")
"""What Dagster itself starts in a run process; the last tells the code server that the run has begun."""


@dataclass(frozen=True, kw_only=True)
class WarmState:
    """What every forked step inherits.

    Attributes:
        thread_pools: Handles of the BLAS and OpenMP libraries that were loaded before the first fork.
        import_seconds: Wall time the preload took; 0.0 when everything was imported already.
    """

    thread_pools: ThreadpoolController
    import_seconds: float


def warm_up(modules: Sequence[str]) -> WarmState:
    """Import the modules and set the garbage collector aside for what exists now.

    `gc.freeze` keeps collections in the children from writing into (and so copying) the shared pages.

    Raises:
        MlAssetsError: If a module cannot be imported.
    """
    started = time.perf_counter()
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MlAssetsError(
                f"executor config `preload`: module {name!r} cannot be imported ({error}); expected the name "
                "of an installed module. Install it in this environment or remove it from `preload`."
            ) from error
    import_seconds = time.perf_counter() - started
    thread_pools = ThreadpoolController()
    gc.freeze()
    return WarmState(thread_pools=thread_pools, import_seconds=import_seconds)


def threads_lost_by_fork() -> list[str]:
    """Return the names of live Python threads that user code or a library started in this process.

    A fork copies the calling thread alone: work these do is missing in the steps, and a lock that one of
    them holds at that moment stays locked there. Dagster's own run-worker threads are known to be harmless.
    """
    return sorted(
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
        and thread is not threading.current_thread()
        and not thread.name.startswith(_RUN_WORKER_THREADS)
    )


def native_pool_threads() -> int | None:
    """Return how many native threads outlive a fork in this process, or None where that cannot be told.

    OpenBLAS ends its threads at a fork and starts them again when needed. What is left beside Python's own
    threads is in practice a libgomp pool, which a child inherits as a dead one and then waits for, for ever.
    Call it just after a fork.
    """
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        return None
    python = {str(thread.native_id) for thread in threading.enumerate()}
    names = [(task / "comm").read_text(encoding="utf-8").strip() for task in tasks.iterdir() if task.name not in python]
    return sum(not name.startswith(_FORK_SAFE_NATIVE_THREADS) for name in names)
