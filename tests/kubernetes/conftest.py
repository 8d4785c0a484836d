"""A cluster double for a session of tests, and a Dagster home whose runs have their pods in a namespace of its own."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster import DagsterEventType as Type

from resources.dagster_home import initialise_home
from tests.kubernetes.double import FakeKube, Image, NodeSpec, ProcessKubelet
from tests.kubernetes.pod_jobs import GPU_TAINT, IMAGE, notes, wait_for
from tests.postgres_server import postgres_config

ROOT = Path(__file__).parents[2]
MODULE = "tests.kubernetes.pod_jobs"
NODES = [
    NodeSpec("cpu-1", cpu="4", memory="8Gi"),
    NodeSpec("gpu-1", cpu="4", memory="8Gi", gpus=1, labels={"pool": "gpu"}, taints=[GPU_TAINT]),
]


@dataclass
class Cluster:
    """The double: its API server, its nodes, and the kubeconfig that leads there."""

    kube: FakeKube
    nodes: ProcessKubelet
    kubeconfig: Path
    batch: Any = None
    core: Any = None

    def __post_init__(self) -> None:
        import kubernetes

        config = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(config_file=str(self.kubeconfig), client_configuration=config)
        client = kubernetes.client.ApiClient(config)
        self.batch, self.core = kubernetes.client.BatchV1Api(client), kubernetes.client.CoreV1Api(client)
        self.scheduling = kubernetes.client.SchedulingV1Api(client)


@pytest.fixture(scope="session")
def pod_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    image = Image(
        path=(str(Path(sys.executable).parent),),
        workdir=str(ROOT),
        env={"PYTHONPATH": str(ROOT), "DAGSTER_STEP_DELEGATING_EXECUTOR_SLEEP_SECONDS": "0.2"},
    )
    with FakeKube() as kube:
        kubeconfig = kube.write_kubeconfig(folder / "kubeconfig")
        with ProcessKubelet(kubeconfig, NODES, {IMAGE: image}, folder / "nodes") as nodes:
            yield Cluster(kube, nodes, kubeconfig)


@dataclass
class World:
    """One Dagster home and one namespace, with what the tests ask of both; `began` is the double's revision then."""

    cluster: Cluster
    home: Path
    notes_folder: str
    namespace: str
    instance: dg.DagsterInstance
    began: int
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str, *args: Any) -> subprocess.Popen[bytes]:
        """Start a run worker in a process of its own."""
        code = (
            f"import dagster as dg\n"
            f"args = {(self.notes_folder, *args)!r}\n"
            f"job = dg.build_reconstructable_job({MODULE!r}, {name!r}, args, {{}}, {str(ROOT)!r})\n"
            f"with dg.DagsterInstance.from_config({str(self.home)!r}) as instance:\n"
            f"    dg.execute_job(job, instance)\n"
        )
        return self._worker([sys.executable, "-c", code])

    def resume(self, run: dg.DagsterRun) -> subprocess.Popen[bytes]:
        """Start another worker for a run, as Dagster's monitoring does."""
        from dagster._grpc.types import ResumeRunArgs

        args = ResumeRunArgs(
            job_origin=run.job_code_origin,
            run_id=run.run_id,
            instance_ref=self.instance.get_ref(),
            set_exit_code_on_failure=None,
        ).get_command_args()
        return self._worker([sys.executable, "-m", "dagster", *args[args.index("api") :]])

    def _worker(self, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "DAGSTER_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        with (self.home.parent / f"worker-{len(self.workers)}.log").open("wb") as log:
            worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        self.workers.append(worker)
        return worker

    def run(self, name: str, *args: Any) -> dg.DagsterRun:
        """Carry a run out and return it."""
        return self.end_of(self.start(name, *args))

    def end_of(self, worker: subprocess.Popen[bytes], seconds: float = 480) -> dg.DagsterRun:
        """Wait for a worker to end and return its run."""
        try:
            worker.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError("\n".join(self.story())) from None
        return self.the_run()

    def the_run(self) -> dg.DagsterRun:
        (run,) = wait_for(self.instance.get_runs, "a run")
        return run

    def notes(self, name: str) -> list[Any]:
        return notes(self.notes_folder, name)

    def noted(self, name: str) -> Any:
        """Wait for the first note of a name and return it."""
        return wait_for(lambda: self.notes(name), lambda: f"note {name}:\n" + "\n".join(self.story()))[0]

    def events(self, *types: Type) -> list[dg.DagsterEvent]:
        records = self.instance.get_records_for_run(self.the_run().run_id, of_type=set(types)).records
        return [record.event_log_entry.get_dagster_event() for record in records]

    def told(self, step: str | None = None) -> list[str]:
        """Return the engine events of a step, or all."""
        events = self.events(Type.ENGINE_EVENT)
        return [event.message or "" for event in events if step is None or event.step_key == step]

    def story(self) -> list[str]:
        run = self.instance.get_runs()
        entries = self.instance.all_logs(run[0].run_id) if run else []
        logs = [path.read_text(errors="replace")[-2000:] for path in self.home.parent.glob("worker-*.log")]
        return [f"{entry.step_key or '-'}: {entry.message}" for entry in entries][-25:] + logs

    def jobs(self) -> dict[str, Any]:
        """Return the Jobs of steps by name that are there now.

        When a run is over, it removes the Job of a pod that takes long to end: `jobs_made` has that one too.
        """
        selector = "app.kubernetes.io/component=step_worker"
        items = self.cluster.batch.list_namespaced_job(self.namespace, label_selector=selector).items
        return {item.metadata.name: item for item in items}

    def jobs_made(self) -> dict[str, dict[str, Any]]:
        """Return the Jobs of steps by name, as the API has them in JSON, whether or not they are there still."""
        made = {
            change.key.name: change.after
            for change in self.cluster.kube.store.since(self.began)
            if change.key.plural == "jobs" and change.key.namespace == self.namespace and change.after is not None
        }
        of_step = ("app.kubernetes.io/component", "step_worker")
        return {name: job for name, job in made.items() if of_step in (job["metadata"].get("labels") or {}).items()}

    def alive(self, *phases: str) -> list[str]:
        """Return the pods of the namespace in these phases; without any, those whose processes run or will."""
        pods = self.cluster.core.list_namespaced_pod(self.namespace).items
        return [pod.metadata.name for pod in pods if pod.status.phase in (phases or ("Running", "Pending"))]

    def wait_for_pods_to_end(self) -> None:
        """Wait until no pod runs: a step's success is known a moment before its process has gone."""
        wait_for(lambda: not self.alive(), lambda: f"the pods to end: {self.alive()}")

    def slots(self) -> int:
        """Return how many slots of the pool are taken."""
        return self.instance.event_log_storage.get_concurrency_info("gpus").active_slot_count


def write_instance(home: Path, kubeconfig: Path, namespace: str, **extra: Any) -> None:
    """Make a Dagster home whose runs have their pods in a namespace of a cluster."""
    config = {
        "storage": {
            "custom": {
                "module": "resources.dagster_storage",
                "class": "LocalSqliteStorage",
                "config": {"base_dir": str(home)},
            }
        },
        "run_launcher": {
            "module": "dagster_k8s",
            "class": "K8sRunLauncher",
            "config": {
                "load_incluster_config": False,
                "kubeconfig_file": str(kubeconfig),
                "service_account_name": "default",
                "instance_config_map": "dagster-instance",
                "dagster_home": str(home),
                "job_image": IMAGE,
                "job_namespace": namespace,
            },
        },
        "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
        "concurrency": {"pools": {"granularity": "op", "default_limit": 4}},
        "run_monitoring": {"enabled": True, "max_resume_run_attempts": 2, "poll_interval_seconds": 2},
        "telemetry": {"enabled": False},
        **extra,
    }
    source = home.parent / "dagster.yaml"
    source.write_text(yaml.safe_dump(config))
    initialise_home(home, source)


ON_BOTH_STORAGES = pytest.mark.parametrize(
    "settings", ["files", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
"""A test with this mark is carried out with Dagster's storages in files, and in a PostgreSQL database."""


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a home's dagster.yaml says of its storages, where it is not what `write_instance` writes."""
    if getattr(request, "param", "files") == "files":
        return {}
    return {"storage": {"postgres": postgres_config(request.getfixturevalue("postgres_database"))}}


@pytest.fixture
def world(pod_cluster: Cluster, tmp_path: Path, settings: dict[str, Any]) -> Iterator[World]:
    cluster = pod_cluster
    namespace = "team-" + uuid.uuid4().hex[:6]
    notes_folder = tmp_path / "notes"
    notes_folder.mkdir()
    cluster.core.create_namespace({"metadata": {"name": namespace}})
    write_instance(tmp_path / "home", cluster.kubeconfig, namespace, **settings)
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        instance.event_log_storage.set_concurrency_slots("gpus", 4)
        world = World(cluster, tmp_path / "home", str(notes_folder), namespace, instance, cluster.kube.store.revision)
        yield world
        for worker in world.workers:
            worker.kill()
            worker.wait()
    cluster.batch.delete_collection_namespaced_job(namespace, propagation_policy="Background")
    for pod in cluster.core.list_namespaced_pod(namespace).items:
        _delete(cluster, namespace, pod.metadata.name)
    wait_for(lambda: not cluster.core.list_namespaced_pod(namespace).items, "the pods to go")


def _delete(cluster: Cluster, namespace: str, pod: str) -> None:
    import kubernetes

    try:
        cluster.core.delete_namespaced_pod(pod, namespace, grace_period_seconds=0)
    except kubernetes.client.ApiException as error:
        if error.status != 404:
            raise
