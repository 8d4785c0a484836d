"""The flights pipeline with two GPU variants and a search of 20 trials on one GPU, with and without faults."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster import DagsterEventType as Type

from deployments.flights.land import land
from ml_assets.cli.engine import PlannedRun, encode
from resources.data_store import ParquetDataStore
from tests.kubernetes.conftest import ROOT, write_instance
from tests.kubernetes.double import FakeKube, Image, NodeSpec, ProcessKubelet
from tests.kubernetes.pod_jobs import GPU_TAINT, IMAGE, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PIPELINE, MONTH = ("gpu_flights", "arrival_delay"), "2013-02"
TRIALS = 20
NEW_WORKER = "The run has a new worker"
COMPUTE = {"profile": "gpu-small", "cores": 1, "memory_gib": 3, "checkpoint": True}
VARIANTS = {
    "logistic": {
        "estimator": "sklearn.linear_model.LogisticRegression",
        "params": {"max_iter": 60, "C": 0.1},
        "preprocessing": {"numeric": "standardize", "missing": "median", "categorical": "ordinal"},
        "compute": {**COMPUTE, "checkpoint": False},
    },
    "boosting": {
        "estimator": "sklearn.ensemble.HistGradientBoostingClassifier",
        "params": {"max_iter": 60, "min_samples_leaf": 200, "early_stopping": False},
        "preprocessing": {"categorical": "ordinal"},
        "compute": COMPUTE,
        "search": {
            "trials": TRIALS,
            "folds": 1,
            "metric": "log_loss",
            "space": {
                "estimator.learning_rate": {"float": [0.02, 0.3], "log": True},
                "estimator.max_leaf_nodes": {"int": [4, 15]},
            },
        },
    },
}
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
        worker.wait(400)
        with self.instance() as instance:
            found = instance.get_runs(limit=1)
            assert found, (self.folder / f"worker-{len(self.workers) - 1}.log").read_text()[-3000:]
            run = found[0]
            assert run.status == dg.DagsterRunStatus.SUCCESS, "\n".join(self.story())

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

    def running_pod(self, step: str) -> str:
        """Wait for the pod of a step to run, and return its name."""

        def pods() -> list[str]:
            return [
                run.name
                for run in self.nodes.running.values()
                if run.alive and run.pod["metadata"]["labels"]["dagster/op"].endswith(step)
            ]

        return wait_for(pods, lambda: "\n".join(self.story()), seconds=240)[0]

    def document(self, *stage: str) -> dict[str, Any]:
        return ParquetDataStore(str(self.state / "data")).read_document((*PIPELINE, *stage), MONTH)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code location, and a landing zone with two months."""
    folder = tmp_path_factory.mktemp("prepared")
    code = folder / "code" / "gpu_flights"
    shutil.copytree(ROOT / "deployments" / "flights", code, ignore=shutil.ignore_patterns("__pycache__"))
    (code / "definitions.py").write_text(DEFINITIONS)
    description = code / "defs" / "arrival_delay" / "defs.yaml"
    head, _, rest = description.read_text().partition("  variants:\n")  # as text: `on:` is true for a YAML library
    tail = rest[rest.index("  selection:") :]
    variants = textwrap.indent(yaml.safe_dump({"variants": VARIANTS}, sort_keys=False), "  ")
    head = head.replace("  team: flights\n", "  team: gpu_flights\n")
    description.write_text(f"{head}{variants}\n{tail}")
    land(folder / "landing", ["2013-01", MONTH])
    return folder


@pytest.fixture
def build(prepared: Path, tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    """Builds installations, one after the other."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def build(name: str) -> Site:
            folder = tmp_path / name
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
            }
            kube = stack.enter_context(FakeKube(namespaces=("default", "flights")))
            kubeconfig = kube.write_kubeconfig(folder / "kubeconfig")
            image = Image(path=(str(Path(sys.executable).parent),), workdir=str(ROOT), env=environment)
            machine = NodeSpec("gpu-1", cpu="4", memory="8Gi", gpus=1, labels={"pool": "gpu"}, taints=[GPU_TAINT])
            nodes = stack.enter_context(ProcessKubelet(kubeconfig, [machine], {IMAGE: image}, folder / "nodes"))
            site = Site(folder, kube, kubeconfig, nodes, environment)
            stack.callback(lambda: [(worker.kill(), worker.wait()) for worker in site.workers])
            (site.state / "dagster").mkdir(parents=True)
            write_instance(site.state / "dagster", kubeconfig, "flights")
            site.run(["raw_data", "features"], "EWR|2013-01", f"LGA|{MONTH}")
            site.run(["row_index"], "2013-01", MONTH)
            return site

        yield build


MODELS = ["training_set", "models/logistic", "models/boosting", "candidate"]


def _disturb(site: Site, worker: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Kill the run's worker as the search begins, and two pods under its successor's eyes; return the successor.

    The pod of the search has nearly all of its work before it when the worker dies, so it outlives the change.
    """
    pod = site.running_pod("boosting")
    worker.send_signal(signal.SIGKILL)
    worker.wait(30)
    with site.instance() as instance:
        run = instance.get_runs(limit=1)[0]
    successor = site.resume(run)
    wait_for(lambda: any(NEW_WORKER in line for line in site.story()), "the new worker", seconds=120)
    site.kube.evict("flights", pod)
    wait_for(lambda: site.running_pod("boosting") != pod, "another pod", seconds=120)
    site.kube.preempt("flights", site.running_pod("candidate"))
    return successor


def test_faults_on_one_gpu_change_nothing_in_the_result(build: Callable[[str], Site]) -> None:
    sites = {}
    for name in ("calm", "stormy"):
        site = sites[name] = build(name)
        worker = site.start(MODELS, MONTH, MONTH)
        if name == "stormy":
            worker = _disturb(site, worker)
        site.finish(worker)
        assert site.nodes.max_gpu_in_use == {"gpu-1": 1}
        spans = sorted((entry["start"], entry["end"]) for entry in site.nodes.history if entry["gpus"])
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))

    calm, stormy = sites["calm"], sites["stormy"]
    assert len(stormy.nodes.history) == len(calm.nodes.history) + 2
    for stage in (("models", "logistic"), ("models", "boosting"), ("candidate",)):
        assert stormy.document(*stage)["prediction_digest"] == calm.document(*stage)["prediction_digest"], stage
    searched = stormy.document("models", "boosting")["search"]
    assert len(searched["trials"]) == TRIALS
    assert json.dumps(searched, sort_keys=True) == json.dumps(
        calm.document("models", "boosting")["search"], sort_keys=True
    )
    with stormy.instance() as instance:
        (run,) = instance.get_runs(limit=1)
        ended = {Type.STEP_FAILURE, Type.STEP_UP_FOR_RETRY}
        assert not instance.get_records_for_run(run.run_id, of_type=ended).records
        told = [entry.message for entry in instance.all_logs(run.run_id)]
    assert sum("lost its pod" in message for message in told) == 2
    assert sum(NEW_WORKER in message for message in told) >= 1
