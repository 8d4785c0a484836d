"""Checkpoints in a folder and in an object store: the suite, and what stays when a writer is killed."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from ml_assets.errors import StoreError
from ml_assets.interfaces import Checkpoint
from ml_assets.testing.checkpoints import KEY, CheckpointSuite, Damage
from resources.checkpoints import FOLDER, CheckpointFolder

ROOT = Path(__file__).parents[2]


def flip(root: str) -> Damage:
    def damage(key: str, step: int) -> None:
        file_system, path = fsspec.url_to_fs(root)
        (file,) = file_system.glob(f"{path}/{FOLDER}/{key}/{step:012d}.*.checkpoint")
        content = bytearray(file_system.cat_file(file))
        content[len(content) // 2] ^= 1
        file_system.pipe_file(file, bytes(content))

    return damage


class TestLocalFolder(CheckpointSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> CheckpointFolder:
        return CheckpointFolder(str(tmp_path), max_bytes=100_000)

    @pytest.fixture
    def damage(self, tmp_path: Path) -> Damage:
        return flip(str(tmp_path))


class TestObjectStore(CheckpointSuite):
    @pytest.fixture
    def root(self) -> Iterator[str]:
        root = f"memory://{uuid.uuid4().hex}"
        yield root
        fsspec.filesystem("memory").rm(root, recursive=True)

    @pytest.fixture
    def store(self, root: str) -> CheckpointFolder:
        fsspec.filesystem("memory").makedirs(root, exist_ok=True)
        return CheckpointFolder(root, max_bytes=100_000)

    @pytest.fixture
    def damage(self, root: str) -> Damage:
        return flip(root)


def test_clear_leaves_no_folder_and_no_temporary_file(tmp_path: Path) -> None:
    checkpoint = CheckpointFolder(str(tmp_path)).open(KEY)
    checkpoint.save(1, {"state": b"1"})
    folder = tmp_path / FOLDER / KEY
    (folder / ".000000000002.1700000000.checkpoint.1700000000.abc.tmp").write_bytes(b"half")

    checkpoint.clear()

    assert not folder.exists()


@pytest.mark.parametrize("key", ["", "a//b", "../a", "a/../../b", "a\\b"])
def test_a_key_that_could_leave_the_folder_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(StoreError, match="the checkpoint's key is"):
        CheckpointFolder(str(tmp_path)).open(key)


def test_a_folder_that_refuses_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file where the folder should be")

    with pytest.raises(StoreError, match=r"could not be written: .* Check that the store can be reached"):
        CheckpointFolder(str(tmp_path)).open(KEY).save(1, {"state": b"1"})


class HttpError(Exception):
    """What the library of an object store raises: no OSError."""


class Refusing(MemoryFileSystem):
    """An object store that answers every request with an error of its own."""

    protocol = "refusing"
    cachable = False

    def refuse(self, *_: Any, **__: Any) -> Any:
        raise HttpError("403: the account may not do this")

    pipe_file = find = ls = open = rm_file = refuse


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            lambda checkpoint: checkpoint.save(1, {"state": b"1"}),
            "the checkpoint after step 1 of .* could not be written",
        ),
        (lambda checkpoint: checkpoint.load(), "the checkpoints of .* cannot be read"),
        (lambda checkpoint: checkpoint.clear(), "the checkpoints of .* could not be removed"),
    ],
    ids=["save", "load", "clear"],
)
def test_an_object_stores_own_error_is_told_with_what_to_do(
    call: Callable[[Checkpoint], Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_registry, "refusing", Refusing)

    with pytest.raises(StoreError, match=rf"{expected}: HttpError: 403: .* Check that the store can be reached"):
        call(CheckpointFolder("refusing://bucket").open(KEY))


WRITER = """
    import sys
    from resources.checkpoints import CheckpointFolder
    checkpoint = CheckpointFolder(sys.argv[1]).open(sys.argv[2])
    found = checkpoint.load()
    step = 0 if found is None else found[0]
    print("started", flush=True)
    while True:
        step += 1
        checkpoint.save(step, {"state": step.to_bytes(8, "big") * 20_000})
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_the_older_or_the_newer_state_whole(
    tmp_path: Path,
) -> None:
    steps, moments = [0], random.Random(5)  # noqa: S311 - moments to kill at, not secrets
    for _ in range(12):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path), KEY],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"started\n"
        time.sleep(moments.uniform(0.0, 0.5))
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait(timeout=30)
        writer.stdout.close()

        checkpoint = CheckpointFolder(str(tmp_path)).open(KEY)
        found = checkpoint.load()
        if found is not None:
            assert found[1] == {"state": found[0].to_bytes(8, "big") * 20_000}
            steps.append(found[0])
        assert not checkpoint.problems
    assert steps == sorted(steps)
    assert steps[-1] > 0
