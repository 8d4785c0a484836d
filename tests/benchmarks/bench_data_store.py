"""Time and size of the data store against bare pyarrow; run `python -m tests.benchmarks.bench_data_store`.

Bare pyarrow writes to a temporary name and renames it, with its own defaults and the store's compression, and
reads the same columns back. The store does that, and the digest, the checksums, the flush to the disk and the
pointer. Repetitions are interleaved, so that a busy machine slows both alike; medians are compared.
"""
# ruff: noqa: T201 - a benchmark prints its table

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from resources.data_store import ParquetDataStore

ASSET = ("bench", "store", "raw_data")
GOAL = 1.3
SOME_COLUMNS = ["month", "dep_delay", "carrier", "score_0", "departed_at"]


def flights_like(n_rows: int, seed: int) -> pa.Table:
    """Return 20 columns as pipelines have them: calendar, delays with nulls, codes, texts, scores, an id."""
    rng = np.random.default_rng(seed)
    second = np.sort(rng.integers(0, 365 * 86_400, n_rows))
    departed = np.datetime64("2013-01-01T00:00:00", "us") + second.astype("timedelta64[s]")
    delay = np.round(rng.gamma(1.2, 14, n_rows) - 12)
    carriers = np.array(["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "VX"], dtype=object)
    tails = np.array([f"N{number:05d}" for number in rng.integers(0, 99_999, 4_000)], dtype=object)
    airports = np.array([f"A{number:02d}" for number in range(100)], dtype=object)
    columns: dict[str, object] = {
        "row_id": second * 1_000_003 + np.arange(n_rows),
        "month": (second // (30 * 86_400)).astype(np.int64) + 1,
        "day": (second // 86_400 % 30).astype(np.int64) + 1,
        "hour": (second // 3600 % 24).astype(np.int8),
        "scheduled": (second // 300 * 5 % 1440).astype(np.int64),
        "dep_delay": pa.array(delay, mask=rng.random(n_rows) < 0.03),
        "arr_delay": pa.array(delay + np.round(rng.normal(-4, 17, n_rows)), mask=rng.random(n_rows) < 0.03),
        "air_time": np.round(rng.gamma(3, 50, n_rows)),
        "distance": rng.integers(80, 4_983, n_rows),
        "carrier": rng.choice(carriers, n_rows),
        "origin": rng.choice(np.array(["EWR", "JFK", "LGA"], dtype=object), n_rows),
        "dest": pa.array(rng.choice(airports, n_rows), pa.large_string()),
        "tail": pa.array(rng.choice(tails, n_rows), pa.large_string()),
        "cabin": pa.array(rng.choice(airports[:4], n_rows)).dictionary_encode(),
        "cancelled": rng.random(n_rows) < 0.02,
        "score_0": rng.normal(size=n_rows),
        "score_1": rng.normal(size=n_rows),
        "score_2": pa.array(rng.normal(size=n_rows).astype(np.float32)),
        "flown_on": pa.array(departed.astype("datetime64[D]")),
        "departed_at": pa.array(departed, pa.timestamp("us", tz="America/New_York")),
    }
    return pa.table(columns)


def measure(actions: dict[str, Callable[[int], object]], repetitions: int) -> dict[str, tuple[float, float]]:
    """Return the median wall and processor seconds of each action, run in turns after one run to warm up."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
    for repetition in range(repetitions + 1):
        for name, action in actions.items():
            wall, cpu = time.perf_counter(), time.process_time()
            action(repetition)
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (statistics.median(wall for wall, _ in runs[1:]), statistics.median(cpu for _, cpu in runs[1:]))
        for name, runs in seconds.items()
    }


def compare(folder: Path, table: pa.Table, repetitions: int) -> list[tuple[str, float]]:
    """Print one block of ratios for a table and return them as (what, ratio)."""
    store = ParquetDataStore(str(folder / "store"))
    bare = folder / "bare.parquet"

    def write_bare(_: int) -> None:
        pq.write_table(table, folder / "bare.tmp", compression="zstd")
        (folder / "bare.tmp").replace(bare)

    def write_store(repetition: int) -> None:
        store.write(ASSET, f"run-{repetition}", table)

    seconds = measure(
        {
            "write, bare": write_bare,
            "write, store": write_store,
            "write again, store": lambda _: store.write(ASSET, "run-0", table),
            "read, bare": lambda _: pq.read_table(bare),
            "read, store": lambda _: store.read(ASSET, "run-0"),
            "read 5 columns, bare": lambda _: pq.read_table(bare, columns=SOME_COLUMNS),
            "read 5 columns, store": lambda _: store.read(ASSET, "run-0", columns=SOME_COLUMNS),
        },
        repetitions,
    )
    described = store.describe(ASSET, "run-0")
    assert described is not None
    sizes = f"{bare.stat().st_size / 1e6:.2f} MB bare, {described.n_bytes / 1e6:.2f} MB in the store"
    print(f"\n{table.num_rows:,} rows × {table.num_columns} columns, {repetitions} repetitions; {sizes}")
    print(f"{'':<16}{'bare ms':>18}{'store ms':>18}{'ratio':>16}   (wall / processor)")
    ratios = []
    for what, base in (
        ("write", "write"),
        ("write again", "write"),
        ("read", "read"),
        ("read 5 columns", "read 5 columns"),
    ):
        (bare_wall, bare_cpu), (wall, cpu) = seconds[f"{base}, bare"], seconds[f"{what}, store"]
        print(
            f"{what:<16}{1e3 * bare_wall:>9.1f}{1e3 * bare_cpu:>9.1f}{1e3 * wall:>9.1f}{1e3 * cpu:>9.1f}"
            f"{wall / bare_wall:>8.2f}{cpu / bare_cpu:>8.2f}"
        )
        ratios += [(f"{what}, wall", wall / bare_wall), (f"{what}, processor", cpu / bare_cpu)]
    return ratios


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both sizes; the exit status is 1 when a ratio is above the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    options = parser.parse_args(arguments)
    print(f"pyarrow {pa.__version__}, Python {sys.version.split()[0]}; goal: at most {GOAL} × bare pyarrow")
    missed = []
    for n_rows, repetitions in ((27_000, 41), (1_000_000, 9)):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            ratios = compare(Path(folder), flights_like(n_rows, seed=n_rows), repetitions)
            missed += [f"{n_rows:,} rows, {what}: {ratio:.2f}" for what, ratio in ratios if ratio > GOAL]
    print("\nabove the goal: " + ("; ".join(missed) if missed else "none"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
