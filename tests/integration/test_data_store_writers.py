"""Writers of one partition that are killed or compete: every version that can be seen is whole."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from ml_assets.digest import table_digest
from resources.data_store import ParquetDataStore
from tests.e2e.programs import wait_for

WRITER = """
    import os, signal, sys
    import pyarrow as pa
    import pyarrow.parquet
    from resources.data_store import ParquetDataStore

    root, seed, n_writes, kill_at = sys.argv[1], *map(int, sys.argv[2:])
    steps = 0

    def step(event, arguments):
        global steps
        if event in ("open", "os.rename", "os.remove", "os.listdir", "os.mkdir", "os.fsync"):
            steps += 1
            if steps == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    flush = os.fsync
    def audited_flush(descriptor):
        sys.audit("os.fsync")
        flush(descriptor)
    os.fsync = audited_flush

    def table(number):
        rows = range(50_000)
        return pa.table({"number": [number] * len(rows), "row": rows, "text": [f"r{row}" for row in rows]})

    tables = [table(seed + number) for number in range(min(n_writes, 20))]
    store = ParquetDataStore(root)
    print("ready", flush=True)
    sys.addaudithook(step)
    for number in range(n_writes):
        store.write(("team", "raw"), "2013-01", tables[number % len(tables)])
"""
ASSET = ("team", "raw")


def start_writer(root: Path, *, seed: int, n_writes: int, kill_at: int = 0) -> subprocess.Popen[str]:
    """Start a process that writes tables whose `number` is the seed and up; return it when ready."""
    arguments = [
        sys.executable,
        "-c",
        textwrap.dedent(WRITER),
        str(root),
        *map(str, (seed, n_writes, kill_at)),
    ]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdout.close()
    return process


def number_of(store: ParquetDataStore, data_version: str | None = None) -> int:
    """Return the number of a table that is whole, or fail."""
    table = store.read(ASSET, "2013-01", data_version=data_version)
    assert data_version in (None, table_digest(table))
    assert store.describe(ASSET, "2013-01", data_version=table_digest(table)) is not None
    assert table.num_rows == 50_000
    (number,) = table.column("number").unique().to_pylist()
    return number


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> ParquetDataStore:
    return ParquetDataStore(str(root))


def test_a_writer_killed_at_any_step_leaves_a_whole_version(store: ParquetDataStore, root: Path) -> None:
    start_writer(root, seed=0, n_writes=1).wait()
    old = store.describe(ASSET, "2013-01")
    assert old is not None
    outcomes, status = [0], -signal.SIGKILL
    while status == -signal.SIGKILL and len(outcomes) < 100:
        step = len(outcomes)
        status = start_writer(root, seed=step, n_writes=1, kill_at=step).wait()
        outcomes.append(number_of(store))
        assert outcomes[-1] in (step, outcomes[-2])
        assert number_of(store, old.data_version) == 0
        assert store.partitions(ASSET) == ["2013-01"]
    assert status == 0
    assert outcomes[1] == 0
    assert outcomes[-1] == len(outcomes) - 1 > 5


def test_a_writer_killed_at_any_time_leaves_a_whole_version(store: ParquetDataStore, root: Path) -> None:
    rng = np.random.default_rng(7)
    start_writer(root, seed=0, n_writes=1).wait()
    for seed in range(1000, 13_000, 1000):
        process = start_writer(root, seed=seed, n_writes=100_000)
        wait_for("its first version", lambda s=seed: number_of(store) >= s, timeout_seconds=300, every_seconds=0.01)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert seed <= number_of(store) < seed + 20
        assert store.partitions(ASSET) == ["2013-01"]
    for path in (root / "team" / "raw" / "2013-01").glob("*.parquet"):
        number_of(store, path.stem)


def test_of_two_writers_at_once_both_versions_stay(store: ParquetDataStore, root: Path) -> None:
    start_writer(root, seed=0, n_writes=1).wait()
    writers = [start_writer(root, seed=seed, n_writes=20) for seed in (100, 200)]
    reads = 0
    while any(process.poll() is None for process in writers):
        number_of(store)
        reads += 1
    assert [process.returncode for process in writers] == [0, 0]
    assert reads > 2
    paths = (root / "team" / "raw" / "2013-01").glob("*.parquet")
    kept = sorted(number_of(store, path.stem) for path in paths)
    assert kept == [0, *range(100, 120), *range(200, 220)]
    assert number_of(store) in (119, 219)
    assert not list((root / "team" / "raw" / "2013-01").glob("*.tmp"))
