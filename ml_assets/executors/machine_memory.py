"""Memory that the forked steps of all runs on one machine share: how much is free, and which run's turn it is."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ml_assets.file_locks import for_the_owner, is_locked

_STEP, _WAIT = "step", "wait"
_ASLEEP_SECONDS = 20.0
"""A run that waits says so all the time; one that has not for so long, as while it is stopped, keeps nobody waiting."""
_SAY_SECONDS = 2.0
_TURN_SECONDS = 1.0
"""How long a run keeps its place in line once there is enough for it; then its step waits for something else."""


class _Mark(NamedTuple):
    """A file of the folder, by its name: its kind, how many MiB it is about, since when, and of which process."""

    kind: str
    mib: int
    since: int
    pid: int

    @property
    def name(self) -> str:
        return "-".join(map(str, self))


class MachineMemory:
    """Locked files: one for each step that runs, and one for each run that waits for memory, of all runs here.

    The operating system gives a lock up when its process ends, however that happens. So a file that is locked stands
    for a live process, and one that is not means nothing. A step's file is locked by a descriptor that its process
    inherits. Only processes that go on hold memory, and none of them waits for another's, so nobody waits for ever: who
    waits is served by age, and what those before it wait for counts as taken, so that a large step is not overtaken by
    the small ones of other runs.

    Args:
        folder: Where the files lie, on a local file system; made when missing.
        total_mib: What there is, in MiB.
    """

    def __init__(self, folder: Path, total_mib: int) -> None:
        self._folder, self._total = folder, total_mib
        self._since: int | None = None
        self._place: tuple[_Mark, int] | None = None
        self._asked = self._said = 0.0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def free(self) -> int:
        """Return how much memory a step of this run may take now, in MiB."""
        before = time.monotonic_ns() if self._since is None else self._since
        taken = (mark.mib for mark in self._live() if mark.kind == _STEP or mark.since < before)
        return max(0, self._total - sum(taken))

    def take(self, mib: int) -> int | None:
        """Return a descriptor that holds so much memory until all processes that have it open end, or None.

        None means that another run was faster.
        """
        with self._alone():
            if mib > self.free():
                return None
            self._sweep()
            descriptor = self._lock(self._mark(_STEP, mib, time.monotonic_ns()))
        self.leave()
        return descriptor

    def wait(self, mib: int | None) -> None:
        """Stand in line for so much memory; call it all the time while that holds, and with None while there is enough.

        Whoever has once stood in line keeps the age of its place until it takes memory or leaves.
        """
        now = time.monotonic()
        if mib is None:
            if now - self._asked > _TURN_SECONDS:
                self._give_place_up()
            return
        self._asked = now
        if self._place is not None and self._place[0].mib != mib:
            self._give_place_up()
        if self._place is None:
            with self._alone():
                self._since = self._since or time.monotonic_ns()
                mark = self._mark(_WAIT, mib, self._since)
                self._place, self._said = (mark, self._lock(mark)), now
        elif now - self._said > _SAY_SECONDS:
            self._said = now
            os.utime(self._place[1])

    def leave(self) -> None:
        """Stand in line no longer."""
        self._since = None
        self._give_place_up()

    def _give_place_up(self) -> None:
        if self._place is not None:
            (mark, descriptor), self._place = self._place, None
            self._path(mark).unlink(missing_ok=True)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # steps that were forked meanwhile have it open, too
            os.close(descriptor)

    def _live(self) -> Iterator[_Mark]:
        for mark in self._marks():
            with suppress(FileNotFoundError), self._path(mark).open("rb") as file:
                asleep = mark.kind == _WAIT and time.time() - os.fstat(file.fileno()).st_mtime > _ASLEEP_SECONDS
                if not asleep and is_locked(file.fileno()):
                    yield mark

    def _sweep(self) -> None:
        """Remove the files of processes that have ended; nobody makes new ones meanwhile."""
        dead = set(self._marks()) - set(self._live())
        for mark in dead:
            with suppress(FileNotFoundError), self._path(mark).open("rb") as file:
                if not is_locked(file.fileno()):
                    self._path(mark).unlink(missing_ok=True)

    def _marks(self) -> list[_Mark]:
        parts = [path.name.split("-") for path in self._folder.iterdir()]
        return [_Mark(words[0], *map(int, words[1:])) for words in parts if words[0] in (_STEP, _WAIT)]

    def _mark(self, kind: str, mib: int, since: int) -> _Mark:
        return _Mark(kind, mib, since, os.getpid())

    def _lock(self, mark: _Mark) -> int:
        descriptor = os.open(self._path(mark), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with open(self._folder / "mutex", "wb", opener=for_the_owner) as mutex:
            fcntl.flock(mutex, fcntl.LOCK_EX)
            yield

    def _path(self, mark: _Mark) -> Path:
        return self._folder / mark.name
