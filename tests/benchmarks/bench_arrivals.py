"""CPU seconds of looking at a landing folder with many files: the first look, a full look, and a tick without change.

Usage: python -m tests.benchmarks.bench_arrivals [FILES]
"""

import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from ml_assets.arrivals.listing import Cursor, Scan, scan
from ml_assets.arrivals.pattern import ArrivalPattern
from ml_assets.periods import Periods, parse_key
from ml_assets.sources import LandingZone

ROUNDS = 5


def main(n_files: int) -> None:
    """Print a table."""
    periods = Periods(every="day", first=parse_key("2000-01-01", "day"), end=None, timezone="UTC")
    groups = tuple(f"g{i:03d}" for i in range(100))
    pattern = ArrivalPattern(folder="in", segments=("{time}_{group}.csv",), periods=periods, groups=groups)
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder, "in"), periods, groups, n_files)
        landing, now = LandingZone(root=folder), datetime.now(UTC) + timedelta(seconds=60)
        empty = Cursor()
        first = scan(landing, pattern, empty, now=now)
        cursor = empty.after(first, first.candidates)
        later = now + timedelta(seconds=61)
        rows = {
            "first look, all files new": _cpu(lambda: scan(landing, pattern, empty, now=now)),
            "full look, nothing new": _cpu(lambda: scan(landing, pattern, cursor, now=later)),
            "tick without change, cursor read and written": _cpu(lambda: _tick(landing, pattern, cursor.text, now)),
        }
    sys.stdout.write(f"{n_files:,} files; cursor {len(cursor.text):,} bytes; median of {ROUNDS}\n")
    for name, seconds in rows.items():
        sys.stdout.write(f"{name:46} {seconds * 1000:9.2f} ms CPU\n")


def _fill(folder: Path, periods: Periods, groups: tuple[str, ...], n_files: int) -> None:
    folder.mkdir()
    for number in range(n_files):
        time_key = periods.shift("2000-01-01", number // len(groups))
        (folder / f"{time_key}_{groups[number % len(groups)]}.csv").write_bytes(b"a\n1\n")


def _tick(landing: LandingZone, pattern: ArrivalPattern, text: str, now: datetime) -> Scan:
    cursor = Cursor.read(text)
    found = scan(landing, pattern, cursor, now=now + timedelta(seconds=5))
    if cursor.after(found, ()).text != text:
        raise SystemExit("the tick was not idle")
    return found


def _cpu(work: Callable[[], object]) -> float:
    """Return the median CPU seconds of some work."""
    costs: list[float] = []
    for _ in range(ROUNDS):
        before = time.process_time()
        work()
        costs.append(time.process_time() - before)
    return median(costs)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
