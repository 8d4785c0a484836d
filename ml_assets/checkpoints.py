"""Checkpoints of trainings: their file format, which of them are kept, and the key that binds them to their input."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ml_assets.digest import document_digest
from ml_assets.errors import StoreError
from ml_assets.interfaces import AssetPath, Checkpoint
from ml_assets.store_paths import partition_path

__all__ = ["Checkpoint", "CheckpointFiles", "NoCheckpoint", "StoredCheckpoint", "checkpoint_key", "pack", "unpack"]

KEPT = 2
"""States of one training that are kept: the newest, and the one before in case the newest is damaged."""
MAX_BYTES = 2 * 1024**3
"""Largest state that is stored, in bytes."""
STALE_SECONDS = 30 * 24 * 3600
"""Age after which a state can only be what a training left that was given up or changed."""

_MAGIC = b"ml_assets checkpoint 1\n"
_DIGEST_BYTES = 32
_LENGTH_BYTES = 8
_KEY_DIGITS = 32
_NAME = re.compile(r"(\d{12})\.(\d+)\.checkpoint")  # step, time of writing


class CheckpointFiles(Protocol):
    """The files of one training's folder, and of the folders beside it; each appears whole or not at all."""

    def names(self) -> list[str]:
        """Return the names of the files, those too that killed writers left."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's content; raises FileNotFoundError."""
        ...

    def publish(self, name: str, content: bytes) -> None:
        """Write a file, in the place of an older one at once."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens when it is gone."""
        ...

    def neighbours(self) -> list[str]:
        """Return the files of the folders beside this one, as `../<folder>/<name>`, which `remove` takes too."""
        ...


class StoredCheckpoint:
    """A `Checkpoint` over the files of a folder.

    Each state is one file: a digest over all that follows, then a description, then the contents. A file's name has
    its step and when it was written.

    Args:
        key: What it is the checkpoint of; a state that was copied here from another key is not used.
        files: The folder.
        max_bytes: Largest state that is stored.
        now: Gives the time in seconds since the epoch.
    """

    def __init__(
        self, key: str, files: CheckpointFiles, *, max_bytes: int = MAX_BYTES, now: Callable[[], float] = time.time
    ) -> None:
        self._key, self._files, self._max_bytes, self._now = key, files, max_bytes, now
        self._problems: list[str] = []

    @property
    def problems(self) -> Sequence[str]:
        """Return what was found damaged so far, a sentence each."""
        return tuple(self._problems)

    def save(self, step: int, files: Mapping[str, bytes]) -> None:
        """Keep the state after so many steps; see `Checkpoint.save`."""
        if not 0 <= step < 10**12:
            raise StoreError(f"the checkpoint's step is {step}; expected a whole number of rounds or epochs from 0")
        content = pack(self._key, step, files)
        if len(content) > self._max_bytes:
            raise StoreError(
                f"the checkpoint after step {step} of {self._key} has {len(content):,} bytes; at most "
                f"{self._max_bytes:,} are stored. Save less, such as weights without the data"
            )
        name = f"{step:012d}.{int(self._now())}.checkpoint"
        with _explained(f"the checkpoint after step {step} of {self._key} could not be written"):
            self._files.publish(name, content)
            self._drop_but(name)

    def load(self) -> tuple[int, dict[str, bytes]] | None:
        """Return the newest whole state, or None; see `Checkpoint.load`."""
        with _explained(f"the checkpoints of {self._key} cannot be read"):
            for name in sorted(self._steps(), reverse=True):
                try:
                    return unpack(self._key, self._files.read(name))
                except FileNotFoundError:
                    continue  # another process cleared it meanwhile
                except ValueError as error:
                    self._problems.append(f"the checkpoint {name} of {self._key} was not used: {error}")
        return None

    def clear(self) -> None:
        """Remove everything of this training, and what others left beside it long ago."""
        with _explained(f"the checkpoints of {self._key} could not be removed"):
            for name in self._files.names():
                self._files.remove(name)
            for path in self._files.neighbours():
                written = _NAME.search(path)
                if written and self._now() - int(written[2]) > STALE_SECONDS:
                    self._files.remove(path)

    def _steps(self) -> list[str]:
        return [name for name in self._files.names() if _NAME.fullmatch(name)]

    def _drop_but(self, written: str) -> None:
        """Remove all but the state that was just written and the ones before it that are kept."""
        earlier = sorted((n for n in self._steps() if n[:12] < written[:12]), reverse=True)
        for name in set(self._steps()) - {written, *earlier[: KEPT - 1]}:
            self._files.remove(name)


class NoCheckpoint:
    """A `Checkpoint` that keeps nothing: for trainings that nobody resumes."""

    problems: Sequence[str] = ()

    def save(self, step: int, files: Mapping[str, bytes]) -> None:
        """Keep nothing."""

    def load(self) -> None:
        """Return None."""

    def clear(self) -> None:
        """Remove nothing."""


def checkpoint_key(asset: AssetPath, partition: str, content: Mapping[str, Any]) -> str:
    """Return the key of one training of one asset's partition.

    Args:
        asset: Path of the asset that is trained, such as ("flights", "arrival_delay", "models", "forest").
        partition: Its partition key.
        content: JSON-ready values of all that decides the training's course: versions of data and code, params, seed.

    >>> checkpoint_key(("shop", "returns", "models", "forest"), "2024-02", {"seed": 7})
    'shop/returns/models/forest/2024-02/beced1fe696351bb996169a4f1987ca1'
    """
    return f"{partition_path(asset, partition)}/{document_digest(dict(content))[:_KEY_DIGITS]}"


def pack(key: str, step: int, files: Mapping[str, bytes]) -> bytes:
    """Return a state as the content of one file."""
    sizes = {name: len(content) for name, content in files.items()}
    head = json.dumps({"key": key, "step": step, "files": sizes}).encode()
    body = b"".join((len(head).to_bytes(_LENGTH_BYTES, "big"), head, *files.values()))
    return b"".join((_MAGIC, hashlib.sha256(body).digest(), body))


def unpack(key: str, content: bytes) -> tuple[int, dict[str, bytes]]:
    """Return (step, files) of a state.

    Raises:
        ValueError: If it is damaged, is of another release's format, or of another key.
    """
    if not content.startswith(_MAGIC):
        raise ValueError("it is damaged, or another release of ml_assets wrote it")
    start = len(_MAGIC) + _DIGEST_BYTES
    body = memoryview(content)[start:]
    if hashlib.sha256(body).digest() != content[len(_MAGIC) : start]:
        raise ValueError("it is damaged: its content does not have the digest that was stored with it")
    end = _LENGTH_BYTES + int.from_bytes(body[:_LENGTH_BYTES], "big")
    head = json.loads(bytes(body[_LENGTH_BYTES:end]))
    if head["key"] != key:
        raise ValueError(f"it belongs to {head['key']}")
    files: dict[str, bytes] = {}
    for name, size in head["files"].items():
        files[name] = bytes(body[end : end + size])
        end += size
    return head["step"], files


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what a disk or an object store refuses into a StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what}: {error}. Check that the store can be reached, the space and the rights") from error
