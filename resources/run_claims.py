"""Claims on runs: at most one process of this machine executes a run, and anyone can ask which one it is."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from ml_assets.file_locks import for_the_owner, is_locked


class RunClaims:
    """Locked files, one a run, that hold the id of the process that locked them.

    The operating system gives a lock up when its process ends, however that happens: a locked file is proof that
    its process is alive, and that the id in it is that of no other process. A file without a lock was left behind
    by a killed process and means nothing. A file appears locked and with its content, so nobody ever reads an
    older process's id from it; whoever only looks uses a shared lock, which keeps no other one from looking.

    Args:
        folder: Where the files lie, on a local file system; made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def held(self, run_id: str) -> Iterator[bool]:
        """Hold the claim on a run for the block; the block gets False when another process holds it.

        Processes forked in the block do not hold it: a step that outlives its run keeps no claim.
        """
        descriptor = self._take(run_id)
        if descriptor is None:
            yield False
            return
        held = [descriptor]
        os.register_at_fork(after_in_child=lambda: [os.close(held.pop()) for _ in list(held)])
        try:
            yield True
        finally:
            if held:  # empty in a forked process that leaves the block too
                self._path(run_id).unlink(missing_ok=True)
                os.close(held.pop())

    def holder(self, run_id: str) -> int | None:
        """Return the id of the live process that holds the claim on a run, or None when nobody does."""
        try:
            file = self._path(run_id).open("rb")
        except FileNotFoundError:
            return None
        with file:
            return int(file.read()) if is_locked(file.fileno()) else None

    def _take(self, run_id: str) -> int | None:
        """Return a descriptor that holds the claim, or None when another process has it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # who can open the mutex can hold up every run
        path, draft = self._path(run_id), self._folder / "draft"
        with open(self._folder / "mutex", "wb", opener=for_the_owner) as mutex:
            fcntl.flock(mutex, fcntl.LOCK_EX)
            if self.holder(run_id) is not None:
                return None
            descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, str(os.getpid()).encode())
            draft.replace(path)
            return descriptor

    def _path(self, run_id: str) -> Path:
        return self._folder / f"{quote(run_id, safe='')}.claim"
