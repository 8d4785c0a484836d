"""CPU that one more trivial asset costs a run, by executor: python -m tests.benchmarks.bench_step_cost.

A run is one program (open the instance, load the code, execute a chain of n assets that do nothing). Its CPU
is user and system time of the whole process tree; the cost of a step is the slope between two lengths.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from tests.benchmarks.measure import adopt_orphans, run_measured

PRELOAD = [
    "pandas",
    "pyarrow.parquet",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "mlflow.sklearn",
    "great_expectations",
]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to run the chain.

    Attributes:
        label: For the table.
        lengths: The two chain lengths.
        local_home: Whether the home has the local dagster.yaml; Dagster's defaults otherwise.
        preload: Whether the run process imports PRELOAD.
    """

    label: str
    lengths: tuple[int, int]
    local_home: bool
    preload: bool


CONTENDERS = {
    "spawn": Contender(label="Dagster multiprocess (default)", lengths=(5, 10), local_home=False, preload=False),
    "in_process": Contender(label="Dagster in one process", lengths=(10, 50), local_home=False, preload=False),
    "in_process_local": Contender(
        label="in one process, local dagster.yaml", lengths=(10, 50), local_home=True, preload=False
    ),
    "warm_bare": Contender(label="warm, nothing preloaded", lengths=(10, 50), local_home=True, preload=False),
    "warm": Contender(label="warm, libraries preloaded", lengths=(10, 50), local_home=True, preload=True),
}


def _executor(name: str) -> dg.ExecutorDefinition:
    if name == "spawn":
        return dg.multiprocess_executor
    if name.startswith("in_process"):
        return dg.in_process_executor
    from ml_assets.executors.warm_executor import warm_executor

    return warm_executor.configured({"preload": PRELOAD if CONTENDERS[name].preload else []})


def chain_job(executor_name: str, length: int) -> dg.JobDefinition:
    """Return a job of `length` assets, each of which returns its upstream's number plus one."""

    def link(i: int) -> dg.AssetsDefinition:
        if i == 0:
            return dg.asset(name="step_0")(lambda: 0)
        body: Callable[[Any], Any] = lambda upstream: upstream + 1  # noqa: E731
        return dg.asset(name=f"step_{i}", ins={"upstream": dg.AssetIn(f"step_{i - 1}")})(body)

    definitions = dg.Definitions(
        assets=[link(i) for i in range(length)],
        jobs=[dg.define_asset_job("chain", "*")],
        executor=_executor(executor_name),
    )
    return definitions.resolve_job_def("chain")


def _run_chain(executor_name: str, length: int, home: str) -> None:
    job = dg.build_reconstructable_job(
        "tests.benchmarks.bench_step_cost", "chain_job", (executor_name, length), {}, str(Path.cwd())
    )
    with dg.DagsterInstance.from_config(home) as instance, dg.execute_job(job, instance) as result:
        if not result.success:
            raise SystemExit(f"the chain of {length} with {executor_name} failed")


def _measure(name: str, rounds: int) -> dict[str, float]:
    from resources.dagster_home import initialise_home

    contender = CONTENDERS[name]
    least: dict[int, tuple[float, float]] = {}
    for _ in range(rounds):
        for length in contender.lengths:
            with tempfile.TemporaryDirectory() as home:
                if contender.local_home:
                    initialise_home(Path(home))
                else:
                    (Path(home) / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
                    dg.DagsterInstance.from_config(home).dispose()
                argv = [sys.executable, "-m", __spec__.name, "--run", name, str(length), home]
                cost = run_measured(argv, log=Path(home) / "output.log")
                least[length] = min(least.get(length, (1e9, 1e9)), (cost.cpu, cost.wall))
    short, long = contender.lengths
    slope = [(least[long][k] - least[short][k]) / (long - short) for k in (0, 1)]
    return {
        "cpu_step": slope[0],
        "wall_step": slope[1],
        "cpu_fixed": least[short][0] - short * slope[0],
        "wall_fixed": least[short][1] - short * slope[1],
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=1, help="the least of so many measurements counts")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--run", nargs=3, metavar=("EXECUTOR", "LENGTH", "HOME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        executor_name, length, home = options.run
        _run_chain(executor_name, int(length), home)
        return
    adopt_orphans()
    figures = {name: _measure(name, options.rounds) for name in options.only}
    if options.json:
        print(json.dumps(figures, indent=2))  # noqa: T201 a benchmark prints its result
        return
    head = f"{'':36}{'ms of CPU a step':>18}{'ms of wall':>12}{'fixed CPU s a run':>19}{'fixed wall s':>14}"
    rows = [
        f"{CONTENDERS[name].label:36}{1000 * row['cpu_step']:18.0f}{1000 * row['wall_step']:12.0f}"
        f"{row['cpu_fixed']:19.1f}{row['wall_fixed']:14.1f}"
        for name, row in figures.items()
    ]
    print("\n".join([head, *rows]))  # noqa: T201 a benchmark prints its result


if __name__ == "__main__":
    main()
