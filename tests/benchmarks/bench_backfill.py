"""Data of a year of flights, 36 partitions, ours against raw Dagster: python -m tests.benchmarks.bench_backfill.

Ours is `ml-assets backfill … --data-only`: raw data and features in one range run, with expectations, versions,
verdicts and profiles. Raw Dagster is tests/benchmarks/raw_dagster_flights.py backfilled by its daemon with Dagster's
own settings, a run for each partition (or, with --partitions, for some, scaled up to 36). Goal: a fifth of its wall
time and CPU.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from deployments.flights.land import MONTHS, land
from tests.benchmarks.measure import Cost, adopt_orphans, run_measured

ROOT = Path(__file__).parents[2]
ALL = 36
_LIMIT_SECONDS = 1500

_DRIVER = """
import subprocess, sys, time
import dagster as dg
module, count, log = sys.argv[1], int(sys.argv[2]), sys.argv[3]
from tests.benchmarks.raw_dagster_flights import PARTITIONS
with dg.DagsterInstance.get() as instance:
    pass  # a fresh home is made by one process alone
with open(log, "ab") as output:
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", module]
    daemon = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        keys = sorted(PARTITIONS.get_partition_keys())[:count]
        subprocess.run([sys.executable, "-m", "dagster", "job", "backfill", "-m", module, "-j", "data", "--noprompt",
                        "--partitions", ",".join(keys)], check=True, stdout=output, stderr=output)
        with dg.DagsterInstance.get() as instance:
            deadline = time.monotonic() + LIMIT
            while time.monotonic() < deadline:
                runs = instance.get_runs()
                if len(runs) >= count and all(run.is_finished for run in runs):
                    break
                time.sleep(1)
            failed = [run for run in runs if run.status.value != "SUCCESS"]
            if failed or len(runs) != count:
                sys.exit(f"{len(failed)} of {len(runs)} runs failed, {count} were asked for")
    finally:
        daemon.terminate()
        daemon.wait(60)
"""


def raw(folder: Path, count: int) -> Cost:
    """Return what raw Dagster's backfill of `count` partitions costs, its daemon's start included."""
    home = folder / "raw"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    environment = {
        "DAGSTER_HOME": str(home),
        "RAW_OUT": str(home / "out"),
        "RAW_LANDING": str(folder / "landing"),
        "PYTHONPATH": str(ROOT),
    }
    code = _DRIVER.replace("LIMIT", str(_LIMIT_SECONDS))
    argv = [sys.executable, "-c", code, "tests.benchmarks.raw_dagster_flights", str(count), str(folder / "raw.log")]
    return run_measured(argv, log=folder / "driver.log", cwd=ROOT, environment=environment)


def ours(folder: Path) -> Cost:
    """Return what `ml-assets backfill` of all partitions costs, with an empty state to begin with."""
    environment = {"ML_ASSETS_STATE": str(folder / "state"), "ML_ASSETS_LANDING": str(folder / "landing")}
    command = [str(Path(sys.executable).with_name("ml-assets")), "backfill", "flights/arrival_delay"]
    argv = [*command, "--from", MONTHS[0], "--to", MONTHS[-1], "--data-only"]
    return run_measured(argv, log=folder / "ours.log", cwd=ROOT, environment=environment)


def main() -> None:
    """Print both costs and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=ALL, help="partitions that raw Dagster makes, of 36")
    count = parser.parse_args().partitions
    adopt_orphans()
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        land(folder / "landing")
        own, theirs = ours(folder), raw(folder, count)
    scale = ALL / count
    lines = [
        f"ours, {ALL} partitions:        {own.cpu:6.1f} s CPU  {own.wall:6.1f} s wall",
        f"raw Dagster, {count} partitions: {theirs.cpu:6.1f} s CPU  {theirs.wall:6.1f} s wall",
        f"ours ÷ raw: CPU {own.cpu / theirs.cpu / scale:.3f}, wall {own.wall / theirs.wall / scale:.3f}; goal 0.2",
    ]
    print("\n".join(lines))  # noqa: T201 a benchmark prints its result


if __name__ == "__main__":
    main()
