"""What pods for light steps cost: python -m tests.benchmarks.bench_pods.

The same job of light steps and two GPU steps, once with every step as a pod (dagster-k8s's `k8s_job_executor`) and once
with the light steps forked from the run's worker, on the cluster double with one GPU. Both sides run their worker as a
process of this machine and their step pods on the double's nodes; both poll the event log as often. The rounds take
turns. Wall time is that of the run's worker. CPU is that of the worker, its forked steps and the pods' containers.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg

from tests.kubernetes.double import FakeKube, Image, NodeSpec, ProcessKubelet

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example/team:1.0"
NAMESPACE = "team"
GPU_SECONDS = 1.0
POLL_SECONDS = "0.2"
CONTENDERS = {"pods": "every step a pod (k8s_job_executor)", "ours": "light steps forked, GPU steps in pods"}


def bench_job(contender: str, n_light: int) -> dg.JobDefinition:
    """Return a job of `n_light` light steps in front of two GPU steps, and one light step behind them."""
    from ml_assets.compute import op_tags
    from ml_assets.interfaces import StepResources

    light = op_tags(StepResources(cores=1, memory_gib=0.5))
    heavy = op_tags(StepResources(cores=1, memory_gib=1, gpus=1))

    def step(name: str, upstream: list[str], tags: dict[str, Any], seconds: float) -> dg.AssetsDefinition:
        def body() -> None:
            time.sleep(seconds)

        return dg.asset(name=name, deps=upstream, op_tags=tags)(body)

    names = [f"light_{i}" for i in range(n_light)]
    assets = [
        *(step(name, [], light, 0.0) for name in names),
        *(step(name, names, heavy, GPU_SECONDS) for name in ("first", "second")),
        step("last", ["first", "second"], light, 0.0),
    ]
    jobs = [dg.define_asset_job("job", "*")]
    return dg.Definitions(assets=assets, jobs=jobs, executor=_executor(contender)).resolve_job_def("job")


def _executor(contender: str) -> dg.ExecutorDefinition:
    if contender == "pods":
        from dagster_k8s import k8s_job_executor

        return k8s_job_executor
    from ml_assets.executors.warm_executor import build_executor
    from resources.kubernetes.access import ClusterAccess

    rules = {"event_seconds": float(POLL_SECONDS)}
    return build_executor(ClusterAccess().pods).configured({"memory_mib": 2048, "pods": rules})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run.

    Attributes:
        wall: Seconds of the run's worker, from its start to its end.
        cpu: CPU seconds of worker, forked steps and containers.
        pods: Pods started for steps.
    """

    wall: float
    cpu: float
    pods: int


def measure(contender: str, n_light: int, kubeconfig: Path, nodes: ProcessKubelet, folder: Path) -> Outcome:
    """Run the job once in a fresh home."""
    from tests.kubernetes.conftest import write_instance

    home = folder / "home"
    folder.mkdir()
    write_instance(home, kubeconfig, NAMESPACE)
    before = len(nodes.history)
    code = (
        "import dagster as dg, sys\n"
        f"args = {(contender, n_light)!r}\n"
        f"job = dg.build_reconstructable_job('tests.benchmarks.bench_pods', 'bench_job', args, {{}}, {str(ROOT)!r})\n"
        f"with dg.DagsterInstance.from_config({str(home)!r}) as instance:\n"
        "    sys.exit(not dg.execute_job(job, instance).success)\n"
    )
    environment = {
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "DAGSTER_STEP_DELEGATING_EXECUTOR_SLEEP_SECONDS": POLL_SECONDS,
    }
    started = time.monotonic()
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log
        )
        # of the worker and the forked steps that it has waited for, and of no other child of this process
        _, status, usage = os.wait4(worker.pid, 0)
    worker.returncode = os.waitstatus_to_exitcode(status)
    if worker.returncode:
        raise SystemExit((folder / "worker.log").read_text()[-3000:])
    wall = time.monotonic() - started
    while nodes.running:  # the last pod ends a moment after its step
        time.sleep(0.05)
    ended = nodes.history[before:]
    cpu = usage.ru_utime + usage.ru_stime + sum(entry["cpu"] for entry in ended)
    return Outcome(wall=wall, cpu=cpu, pods=len(ended))


def compare(n_light: int, rounds: int, say: Callable[[str], object]) -> dict[str, Outcome]:
    """Run both in turn, and return the medians."""
    found: dict[str, list[Outcome]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as temporary, FakeKube(namespaces=("default", NAMESPACE)) as kube:
        folder = Path(temporary)
        kubeconfig = kube.write_kubeconfig(folder / "kubeconfig")
        image = Image(path=(str(Path(sys.executable).parent),), workdir=str(ROOT), env={"PYTHONPATH": str(ROOT)})
        machines = [NodeSpec("cpu-1", cpu="4", memory="16Gi"), NodeSpec("gpu-1", cpu="4", memory="16Gi", gpus=1)]
        with ProcessKubelet(kubeconfig, machines, {IMAGE: image}, folder / "nodes") as nodes:
            for i in range(rounds):
                for name in CONTENDERS:
                    outcome = measure(name, n_light, kubeconfig, nodes, folder / f"{name}-{i}")
                    found[name].append(outcome)
                    say(f"round {i + 1}, {name}: {outcome}")
    return {
        name: Outcome(
            wall=median(o.wall for o in outcomes),
            cpu=median(o.cpu for o in outcomes),
            pods=round(median(o.pods for o in outcomes)),
        )
        for name, outcomes in found.items()
    }


def main() -> None:
    """Print both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--light", type=int, default=8, help="light steps in front of the GPU steps")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    medians = compare(options.light, options.rounds, lambda line: sys.stdout.write(f"{line}\n"))
    sys.stdout.write(
        f"{options.light + 1} light steps and 2 GPU steps of {GPU_SECONDS:.0f} s, median of {options.rounds}:\n"
    )
    for name, outcome in medians.items():
        sys.stdout.write(
            f"  {CONTENDERS[name]}: {outcome.wall:.1f} s, {outcome.cpu:.1f} s of CPU, {outcome.pods} pods\n"
        )
    ours, pods = medians["ours"], medians["pods"]
    sys.stdout.write(f"  ours / pods: wall {ours.wall / pods.wall:.2f}, CPU {ours.cpu / pods.cpu:.2f}\n")


if __name__ == "__main__":
    main()
