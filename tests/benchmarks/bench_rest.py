"""CPU of the real daemon and code server at rest: `python -m tests.benchmarks.bench_rest [--pipelines 0 10 100]`.

A team of copies of flights' arrival_delay, all of them with arrivals and retraining, in one code location; a landing
folder with a year of files that were all made already (Dagster is told so; the files are known to the inbox's cursor
after the first look); nothing new happens. The daemon runs with the project's own settings. After it has come to rest
the CPU of its whole process tree is taken over some minutes, as a share of one core. The row 0 is a location without
any pipeline: what Dagster takes by itself. `bench_automation_rest` has the sensors one by one.
"""
# ruff: noqa: T201 - a benchmark prints its table

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from deployments.flights.land import MONTHS
from resources.dagster_home import initialise_home
from tests.benchmarks.bench_load import ROOT, team

GROUPS = ("EWR", "JFK", "LGA")
GOAL = 0.05
WORKSPACE = "load_from:\n  - python_module:\n      module_name: {module}\n      location_name: {name}\n"


def tell(instance: dg.DagsterInstance, name: str, count: int) -> None:
    """Tell Dagster that everything that the conditions look at has been made."""
    for number in range(count):
        path = [name, f"pipeline_{number:03}"]
        for month in MONTHS:
            for group in GROUPS:
                for stage in ("raw_data", "features"):
                    event = dg.AssetMaterialization([*path, stage], partition=f"{group}|{month}")
                    instance.report_runless_asset_event(event)
            instance.report_runless_asset_event(dg.AssetMaterialization([*path, "row_index"], partition=month))


def tree(pid: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield pid
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == pid:
                yield from tree(int(folder.name))


def cpu_seconds(pid: int) -> float:
    """Return user and system seconds of a process and all below it, with those of children that ended."""
    total = 0
    for one in set(tree(pid)):
        try:
            fields = (Path("/proc") / str(one) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, count: int, settle: float, seconds: float) -> float:
    """Return the share of one core that daemon and code server take with so many pipelines."""
    folder.mkdir()
    (folder / f"team_{count}" / f"team_{count}" / "defs").mkdir(parents=True)
    place = team(folder, count)
    home = folder / "state" / "dagster"
    initialise_home(home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        tell(instance, f"team_{count}", count)
    workspace = folder / "workspace.yaml"
    workspace.write_text(WORKSPACE.format(module=place.module, name=f"team_{count}"), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(place.folder), str(ROOT)]),
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "ML_ASSETS_STATE": str(folder / "state"),
    }
    with (folder / "daemon.log").open("wb") as log:
        command = [sys.executable, "-m", "resources.daemon", "run", "-w", str(workspace)]
        daemon = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        time.sleep(settle)
        before, started = cpu_seconds(daemon.pid), time.monotonic()
        time.sleep(seconds)
        used = cpu_seconds(daemon.pid) - before
        if daemon.poll() is not None:
            raise SystemExit(f"the daemon ended; see {folder / 'daemon.log'}")
        return used / (time.monotonic() - started)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)


def main() -> None:
    """Measure one team after the other and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pipelines", type=int, nargs="*", default=[0, 10, 100])
    parser.add_argument("--settle", type=float, default=90, help="seconds before measuring")
    parser.add_argument("--seconds", type=float, default=120, help="seconds of measuring")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(f"{'pipelines':>10}{'share of a core':>18}")
        for count in options.pipelines:
            share = measure(Path(name) / str(count), count, options.settle, options.seconds)
            print(f"{count:>10}{share:>17.1%}", flush=True)
    print(f"goal for 100: {GOAL:.0%}")


if __name__ == "__main__":
    main()
