"""An installation of the flights pipeline under another name, with variants of a test's own, on a cluster double."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from deployments.flights.land import land
from ml_assets.cli.engine import PlannedRun, encode
from resources.data_store import ParquetDataStore
from tests.kubernetes.conftest import ROOT, write_instance
from tests.kubernetes.double import FakeKube, Image, NodeSpec, ProcessKubelet
from tests.kubernetes.pod_jobs import IMAGE, wait_for
from tests.kubernetes.trial_gate import VARIABLE, Gate

PIPELINE, MONTH = ("gpu_flights", "arrival_delay"), "2013-02"
DEFINITIONS = """import gpu_flights.defs
from ml_assets.components.team import load_team
from resources.profiles import current_profile

profile = current_profile()
defs = load_team(
    gpu_flights.defs, services=profile.services(), executor=profile.executor(), project_root=profile.project_root
)
"""


@dataclass
class Site:
    """An installation: its state, its cluster with one GPU, and the workers of its runs."""

    folder: Path
    kube: FakeKube
    kubeconfig: Path
    nodes: ProcessKubelet
    environment: dict[str, str]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def gate(self) -> Gate:
        """Return the gate that trials of `trial_gate.ESTIMATOR` pass."""
        return Gate(Path(self.environment[VARIABLE]))

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.state / "dagster"))

    def start(self, assets: Sequence[str], first: str, last: str) -> subprocess.Popen[bytes]:
        """Start the worker of a run."""
        keys = tuple("/".join((*PIPELINE, asset)) for asset in assets)
        run = PlannedRun(module="gpu_flights.definitions", assets=keys, first=first, last=last, title="run")
        code = (
            "import sys\n"
            "from pathlib import Path\n"
            "from ml_assets.cli.engine import carry_out, decode\n"
            f"carry_out(iter([decode({encode(run)!r})]), Path({str(self.folder)!r}), sys.stdout)\n"
        )
        return self._worker([sys.executable, "-c", code])

    def resume(self, run: dg.DagsterRun) -> subprocess.Popen[bytes]:
        """Start another worker for a run, as Dagster's monitoring does."""
        from dagster._grpc.types import ResumeRunArgs

        with self.instance() as instance:
            args = ResumeRunArgs(run.job_code_origin, run.run_id, instance.get_ref(), None).get_command_args()
        return self._worker([sys.executable, "-m", "dagster", *args[args.index("api") :]])

    def _worker(self, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self.environment, "ML_ASSETS_KUBERNETES": str(self.kubeconfig)}
        with (self.folder / f"worker-{len(self.workers)}.log").open("wb") as log:
            worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        self.workers.append(worker)
        return worker

    def finish(self, worker: subprocess.Popen[bytes]) -> None:
        worker.wait(900)
        with self.instance() as instance:
            found = instance.get_runs(limit=1)
            assert found, (self.folder / f"worker-{len(self.workers) - 1}.log").read_text()[-3000:]
            run = found[0]
            assert run.status == dg.DagsterRunStatus.SUCCESS, "\n".join(self.story())
        # A step's success is known a moment before its pod ends, and only then it is in the nodes' history.
        wait_for(lambda: not self.nodes.running, "the last pods to end", seconds=120)

    def run(self, assets: Sequence[str], first: str, last: str) -> None:
        self.finish(self.start(assets, first, last))

    def story(self) -> list[str]:
        with self.instance() as instance:
            run = instance.get_runs(limit=1)[0]
            entries = instance.all_logs(run.run_id)
        failed = [
            str(e.dagster_event.step_failure_data.error)[-2000:]
            for e in entries
            if e.dagster_event and e.dagster_event.is_step_failure
        ]
        log = (self.folder / f"worker-{len(self.workers) - 1}.log").read_text()[-1500:]
        return [*[f"{e.step_key or '-'}: {e.message}" for e in entries][-30:], *failed, log]

    def told(self) -> list[str]:
        """Return all messages of the newest run."""
        with self.instance() as instance:
            run = instance.get_runs(limit=1)[0]
            return [entry.message for entry in instance.all_logs(run.run_id)]

    def running_pod(self, step: str, other_than: str = "") -> str:
        """Wait for the pod of a step to run, one of another name if that is given, and return its name."""

        def pods() -> list[str]:
            return [
                run.name
                for run in list(self.nodes.running.values())
                if run.alive and run.pod["metadata"]["labels"]["dagster/op"].endswith(step) and run.name != other_than
            ]

        return wait_for(pods, lambda: "\n".join(self.story()), seconds=480)[0]

    def document(self, *stage: str) -> dict[str, Any]:
        return ParquetDataStore(str(self.state / "data")).read_document((*PIPELINE, *stage), MONTH)


def write_code(folder: Path, variants: Mapping[str, Any]) -> None:
    """Write the code location below `code`, and a landing zone with two months below `landing`."""
    code = folder / "code" / "gpu_flights"
    shutil.copytree(ROOT / "deployments" / "flights", code, ignore=shutil.ignore_patterns("__pycache__"))
    (code / "definitions.py").write_text(DEFINITIONS)
    describe(folder, variants)
    land(folder / "landing", ["2013-01", MONTH])


def describe(folder: Path, variants: Mapping[str, Any]) -> None:
    """Put other variants in the place of those of the pipeline's description."""
    description = folder / "code" / "gpu_flights" / "defs" / "arrival_delay" / "defs.yaml"
    head, _, rest = description.read_text().partition("  variants:\n")  # as text: `on:` is true for a YAML library
    tail = rest[rest.index("  selection:") :]
    text = textwrap.indent(yaml.safe_dump({"variants": dict(variants)}, sort_keys=False), "  ")
    head = head.replace("  team: flights\n", "  team: gpu_flights\n")
    description.write_text(f"{head}{text}\n{tail}")


@contextmanager
def installation(prepared: Path, folder: Path, nodes: Sequence[NodeSpec]) -> Iterator[Site]:
    """Yield an installation with its features made.

    Args:
        prepared: Where the code and the landing zone are.
        folder: Of its state, new.
        nodes: Of its cluster.
    """
    folder.mkdir()
    environment = {
        "PYTHONPATH": f"{prepared / 'code'}{os.pathsep}{ROOT}",
        "ML_ASSETS_STATE": str(folder / "state"),
        "ML_ASSETS_LANDING": str(prepared / "landing"),
        "ML_ASSETS_PODS": "look_seconds=0.5,event_seconds=0.3",
        "ML_ASSETS_MEMORY_MIB": "2500",
        "ML_ASSETS_CORES": "2",
        "DAGSTER_HOME": str(folder / "state" / "dagster"),
        "OMP_NUM_THREADS": "1",
        VARIABLE: str(folder / "gate"),
    }
    with ExitStack() as stack:
        kube = stack.enter_context(FakeKube(namespaces=("default", "flights")))
        kubeconfig = kube.write_kubeconfig(folder / "kubeconfig")
        image = Image(path=(str(Path(sys.executable).parent),), workdir=str(ROOT), env=environment)
        kubelet = stack.enter_context(ProcessKubelet(kubeconfig, list(nodes), {IMAGE: image}, folder / "nodes"))
        site = Site(folder, kube, kubeconfig, kubelet, environment)
        stack.callback(lambda: [(worker.kill(), worker.wait()) for worker in site.workers])
        (site.state / "dagster").mkdir(parents=True)
        write_instance(site.state / "dagster", kubeconfig, "flights")
        site.run(["raw_data", "features"], "EWR|2013-01", f"LGA|{MONTH}")
        site.run(["row_index"], "2013-01", MONTH)
        yield site
