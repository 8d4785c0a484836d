"""CPU that one more run costs, by launcher and code location: python -m tests.benchmarks.bench_run_cost.

A program opens a Dagster home and a workspace (a code server for the location), launches n runs one after another
and waits for each. Its CPU is user and system time of the whole process tree: the program, the code server, the
fork server, the runs and their steps. The cost of a run is the slope between two counts; what is left is the cost
of starting all that once.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import adopt_orphans, run_measured

ROOT = Path(__file__).resolve().parents[2]
PARTITION = "JFK|2013-01"
_WARM = "run_launcher:\n  module: resources.warm_launcher\n  class: WarmRunLauncher\n"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to launch one kind of run.

    Attributes:
        label: For the table.
        module: Module of the code location.
        asset: Key of the asset that a run materializes.
        warm: Whether the local dagster.yaml's launcher is used, Dagster's default otherwise.
        counts: The two numbers of runs.
    """

    label: str
    module: str
    asset: str
    warm: bool
    counts: tuple[int, int]


_LIGHT, _FLIGHTS = "tests.benchmarks.light_location", "deployments.flights.definitions"
_RAW_DATA = "flights/arrival_delay/raw_data"
CONTENDERS = {
    "light": Contender(label="light run, DefaultRunLauncher", module=_LIGHT, asset="light", warm=False, counts=(1, 4)),
    "light_warm": Contender(
        label="light run, WarmRunLauncher", module=_LIGHT, asset="light", warm=True, counts=(2, 12)
    ),
    "flights": Contender(
        label="flights raw_data, DefaultRunLauncher", module=_FLIGHTS, asset=_RAW_DATA, warm=False, counts=(1, 3)
    ),
    "flights_warm": Contender(
        label="flights raw_data, WarmRunLauncher", module=_FLIGHTS, asset=_RAW_DATA, warm=True, counts=(2, 8)
    ),
}


def _run(name: str, count: int) -> None:
    """Launch so many runs in the home of this process's profile and wait for each."""
    import dagster as dg
    from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import ModuleTarget
    from dagster._utils.hosted_user_process import recon_job_from_origin

    contender = CONTENDERS[name]
    key = dg.AssetKey(contender.asset.split("/"))
    target = ModuleTarget(
        module_name=contender.module, attribute=None, working_directory=str(ROOT), location_name="measured"
    )
    with (
        dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance,
        WorkspaceProcessContext(instance, target) as process,
    ):
        workspace = process.create_request_context()
        repository = next(iter(workspace.get_code_location("measured").get_repositories().values()))
        remote = repository.get_full_job(IMPLICIT_ASSET_JOB_NAME)
        origin = remote.get_python_origin()
        job = recon_job_from_origin(origin).get_subset(asset_selection=frozenset([key])).get_definition()
        for _ in range(count):
            run = instance.create_run_for_job(
                job,
                asset_selection=frozenset([key]),
                tags=job.get_tags_for_partition_key(PARTITION, selected_asset_keys={key}),
                job_code_origin=origin,
                remote_job_origin=remote.get_remote_origin(),
            )
            instance.launch_run(run.run_id, workspace)
            _wait_for_success(instance, run.run_id)


def _wait_for_success(instance: Any, run_id: str) -> None:
    while True:
        run = instance.get_run_by_id(run_id)
        if run.is_finished:
            break
        time.sleep(0.2)
    if not run.is_success:
        raise SystemExit(f"run {run_id} ended as {run.status.value}")


def _prepare(name: str, state: Path) -> dict[str, str]:
    """Make a home and the flights' files, and return the environment to measure in."""
    from deployments.flights.land import land
    from resources.dagster_home import LOCAL_INSTANCE, initialise_home
    from resources.profiles import QUIET

    config = LOCAL_INSTANCE.read_text(encoding="utf-8")
    if not CONTENDERS[name].warm:
        if _WARM not in config:
            raise SystemExit(f"{LOCAL_INSTANCE} has no WarmRunLauncher to take out")
        config = config.replace(_WARM, "")
    (state / "instance.yaml").write_text(config, encoding="utf-8")
    initialise_home(state / "dagster", state / "instance.yaml")
    land(state / "landing", ["2013-01"])
    return {
        **QUIET,
        "ML_ASSETS_STATE": str(state),
        "DAGSTER_HOME": str(state / "dagster"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }


def _measure(name: str, rounds: int) -> dict[str, float]:
    least: dict[int, tuple[float, float]] = {}
    for _ in range(rounds):
        for count in CONTENDERS[name].counts:
            with tempfile.TemporaryDirectory() as folder:
                environment = _prepare(name, Path(folder))
                argv = [sys.executable, "-m", __spec__.name, "--run", name, str(count)]
                cost = run_measured(argv, log=Path(folder) / "output.log", environment=environment)
                least[count] = min(least.get(count, (1e9, 1e9)), (cost.cpu, cost.wall))
    few, many = CONTENDERS[name].counts
    slope = [(least[many][k] - least[few][k]) / (many - few) for k in (0, 1)]
    return {"cpu_run": slope[0], "wall_run": slope[1], "cpu_fixed": least[few][0] - few * slope[0]}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=1, help="the least of so many measurements counts")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--run", nargs=2, metavar=("CONTENDER", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        _run(options.run[0], int(options.run[1]))
        return
    adopt_orphans()
    figures = {name: _measure(name, options.rounds) for name in options.only}
    if options.json:
        print(json.dumps(figures, indent=2))  # noqa: T201 a benchmark prints its result
        return
    rows = [f"{'':40}{'CPU s a run':>12}{'wall s a run':>14}{'CPU s once':>12}"]
    rows += [
        f"{CONTENDERS[name].label:40}{row['cpu_run']:12.2f}{row['wall_run']:14.2f}{row['cpu_fixed']:12.1f}"
        for name, row in figures.items()
    ]
    print("\n".join(rows))  # noqa: T201 a benchmark prints its result


if __name__ == "__main__":
    main()
