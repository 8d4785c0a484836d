"""Which world a process runs in: the only reader of the environment, and the binder of resources."""

import os
import pwd
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import dagster as dg

from ml_assets.compute import GPUS_POOL
from ml_assets.delivery.push import Push
from ml_assets.errors import MlAssetsError
from ml_assets.executors.warm_executor import build_executor
from ml_assets.interfaces import Machine
from ml_assets.sharing.report import QueueReport
from ml_assets.sources import LandingZone
from ml_assets.stages.step import Services
from resources.alert_channels import AlertChannels
from resources.checkpoints import CheckpointFolder
from resources.data_store import ParquetDataStore
from resources.dossiers import DossierFiles
from resources.expectations import GreatExpectationsValidator
from resources.kubernetes.access import ClusterAccess, cluster_access, pod_rules
from resources.ledger import SqlLedger
from resources.ledger.alerts import SqlAlerts
from resources.ledger.anchor import AnchorFiles
from resources.ledger.inbox import SqlInbox
from resources.ledger.spend import SqlSpend
from resources.machine_gpus import usable_gpus
from resources.model_registry import QUIET_ENVIRONMENT, MlflowRegistry
from resources.policy_files import PolicyFiles
from resources.serving_check import CleanProcessServingCheck
from resources.studies import SqlStudies

PROJECT_ROOT = Path(__file__).resolve().parent.parent
QUIET = {
    "DAGSTER_DISABLE_TELEMETRY": "1",
    **QUIET_ENVIRONMENT,
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes, for evaluations of language models
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HAMILTON_TELEMETRY_ENABLED": "false",
    "HAMILTON_AUTOLOAD_EXTENSIONS": "0",
    "GIT_PYTHON_REFRESH": "quiet",
    # For how many turns OpenMP's threads spin while they wait for each other: by default so many that steps which share
    # cores may take ten times as long, and with none a fit that is alone takes five times as long.
    "GOMP_SPINCOUNT": "1000",
}
PRELOAD = (
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "pyarrow.csv",
    "pyarrow.compute",
    "resources.heavy_libraries",
)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Where this process keeps its data and records.

    Attributes:
        project_root: The repository's root.
        state: Folder of everything that is made here: data, MLflow, ledger, Dagster's home.
        data_url: Root of the data store, a folder or fsspec URL.
        landing_url: Root of the landing zone, a folder or fsspec URL.
        policy_url: Root of the policy tree, a folder or fsspec URL.
        trial_people: A further file of people, for trying things out on one machine; None where the policy tree
            is the only authority.
        ledger_url: SQLAlchemy URL of the ledger; may hold a password and is not shown.
        mlflow_url: MLflow tracking URI; may hold a password and is not shown.
        mlflow_artifacts: Root of MLflow's artefacts when it has no server of its own.
        dossier_url: Folder of the decisions' HTML dossiers, or an fsspec URL.
        anchor_url: Folder or fsspec URL outside of the ledger for the heads of its chains; None when there is none.
        keys_folder: Where people's private keys lie; never read by a worker.
        user: Who works at this command line.
        cores: Most processor cores that the steps of one run use together; all there are when None.
        gpus: GPUs of this machine that steps may use, as CUDA names them.
        memory_mib: Memory in MiB that forked steps share, of all runs here or, with a cluster, of one; a step that asks
            for more gets a pod where there is one. What the worker's container has when None.
        cluster: Where steps that need more than their run's worker get a pod; None: all steps are forked.
        pods: Times and limits of pods, as the executor's config `pods` takes them.
        inbox_token: What events over HTTP must bring; a secret, not shown. None: nothing is served.
        alert_webhook: Where alerts are posted as JSON; a secret, not shown.
        alert_slack: Where alerts are posted as Slack takes them; a secret, not shown.
    """

    project_root: Path
    state: Path
    data_url: str
    landing_url: str
    policy_url: str
    trial_people: Path | None
    ledger_url: str = field(repr=False)
    mlflow_url: str = field(repr=False)
    mlflow_artifacts: str | None
    dossier_url: str
    anchor_url: str | None
    keys_folder: Path
    user: str
    cores: int | None = None
    gpus: tuple[str, ...] = ()
    memory_mib: int | None = None
    cluster: ClusterAccess | None = None
    pods: Mapping[str, float] = field(default_factory=dict)
    inbox_token: str | None = field(default=None, repr=False)
    alert_webhook: str | None = field(default=None, repr=False)
    alert_slack: str | None = field(default=None, repr=False)

    @property
    def dagster_home(self) -> Path:
        """Return the folder of Dagster's instance."""
        return self.state / "dagster"

    def services(self) -> Services:
        """Return what pipelines run with; nothing is opened yet."""
        return Services(
            data_store=ParquetDataStore(self.data_url),
            ledger=SqlLedger(self.ledger_url),
            model_registry=MlflowRegistry(self.mlflow_url, self.mlflow_artifacts),
            validator=GreatExpectationsValidator(),
            policy=self.policy_source(self.policy_url),
            landing=LandingZone(root=self.landing_url),
            serving_check=CleanProcessServingCheck(
                self.mlflow_url, self.mlflow_artifacts, environment=dict(os.environ)
            ),
            dossiers=DossierFiles(self.dossier_url),
            inbox=SqlInbox(self.ledger_url),
            alerts=SqlAlerts(self.ledger_url),
            notifier=AlertChannels(webhook=self.alert_webhook, slack=self.alert_slack),
            machine=Machine(gpus=len(self.gpus)),
            checkpoints=CheckpointFolder(self.data_url),
            studies=SqlStudies(self.ledger_url),
        )

    def policy_source(self, url: str) -> PolicyFiles:
        """Return another policy tree with the same people for trying things out."""
        return PolicyFiles(url, trial_people=None if self.trial_people is None else str(self.trial_people))

    def spend(self) -> SqlSpend:
        """Return what steps cost."""
        return SqlSpend(self.ledger_url)

    def queue_report(self) -> QueueReport:
        """Return what waits in Dagster's run queue and why, as its daemon would decide now; nothing is changed."""
        from resources.fair_queue import queue_report

        with self._instance() as instance:
            return queue_report(instance, self.policy_source(self.policy_url), self.spend())

    def anchors(self, url: str | None = None) -> AnchorFiles | None:
        """Return where the heads of the ledger's chains are kept outside of it, or None."""
        place = url or self.anchor_url
        return None if place is None else AnchorFiles(place)

    def push(self, location: str) -> Push:
        """Return what takes events of a code location up and submits their runs."""
        from resources.run_submission import QueuedSubmission

        instance = self._instance()
        submission = QueuedSubmission(instance, self.project_root / "workspace.yaml", location)
        return Push(services=self.services(), submission=submission)

    def serve_inbox(self, pushes: Sequence[Push], *, host: str, port: int, ready: Callable[[int], None]) -> None:
        """Serve the inbox over HTTP until interrupted; `ready` is told the port."""
        from resources.inbox_server import build_app, serve

        serve(build_app(pushes, self.inbox_token), host=host, port=port, ready=ready)

    def executor(self) -> dg.ExecutorDefinition:
        """Return the executor whose steps are forked from the run's warm process, or get pods where they need more."""
        config: dict[str, object] = {"preload": list(PRELOAD), "gpus": list(self.gpus), "pods": dict(self.pods)}
        if self.cores is not None:
            config["max_concurrent"] = self.cores
        if self.memory_mib is not None:
            config["memory_mib"] = self.memory_mib
        cluster = self.cluster
        built = build_executor() if cluster is None else build_executor(cluster.pods, cluster.require)
        return built.configured(config, name="warm")

    def reap(self, namespaces: Sequence[str], *, keep_seconds: float, grace_seconds: float) -> list[str]:
        """Remove Jobs of runs that are over from the cluster, free their pool slots, and return a line for each Job.

        Raises:
            MlAssetsError: If no cluster is set, or it does not answer.
        """
        from resources.kubernetes.reaper import reap, require_cluster

        require_cluster(self.cluster)
        with self._instance() as instance:
            keep, grace = timedelta(seconds=keep_seconds), timedelta(seconds=grace_seconds)
            return reap(self.cluster, instance, namespaces, keep=keep, grace=grace)

    def _instance(self) -> dg.DagsterInstance:
        """Open Dagster's instance, which must be there already."""
        if not (self.dagster_home / "dagster.yaml").is_file():
            raise MlAssetsError(
                f"There is no Dagster instance in {self.dagster_home}: nothing was run here yet. `ml-assets demo`, "
                "`ml-assets backfill` and `ml-assets dev` make one; one that is elsewhere is found by ML_ASSETS_STATE."
            )
        return dg.DagsterInstance.from_config(str(self.dagster_home))

    def activate(self) -> None:
        """Make this process, and those it starts, use this profile's Dagster home, with telemetry off."""
        os.environ.update(self.environment())

    def initialise(self) -> None:
        """Create the Dagster home, the ledger and the MLflow database before several processes open them at once.

        Runs that were killed with all their processes are marked as failed first: nobody else would notice.
        """
        from resources.abandoned_runs import end_abandoned_runs
        from resources.dagster_home import initialise_home

        initialise_home(self.dagster_home)
        with dg.DagsterInstance.from_config(str(self.dagster_home)) as instance:
            end_abandoned_runs(instance)
            if self.cluster is None:  # a cluster's GPUs are not this machine's
                instance.event_log_storage.set_concurrency_slots(GPUS_POOL, len(self.gpus))
        services = self.services()
        services.ledger.decisions(("", ""))
        MlflowRegistry(self.mlflow_url, self.mlflow_artifacts).initialise()

    def daemon_command(self, workspace: Path) -> list[str]:
        """Return the command that runs Dagster's daemon here."""
        return [sys.executable, "-m", "resources.daemon", "run", "-w", str(workspace)]

    def tracker_command(self, port: int) -> list[str] | None:
        """Return the command that serves MLflow's UI on this profile's store, or None when a server is used."""
        if self.mlflow_url.startswith("http"):
            return None
        return [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ]

    def environment(self) -> dict[str, str]:
        """Return the variables that a service started by the command line needs beside the inherited ones."""
        return {
            **QUIET,
            "DAGSTER_HOME": str(self.dagster_home),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.project_root), os.environ.get("PYTHONPATH")])),
            "ML_ASSETS_STATE": str(self.state),
            # For `mlflow server`: a URI may hold a password, which a command line would show to every process.
            "MLFLOW_BACKEND_STORE_URI": self.mlflow_url,
            "MLFLOW_DEFAULT_ARTIFACT_ROOT": self.mlflow_artifacts or "",
        }


def current_profile() -> Profile:
    """Return the profile that the environment describes; with an empty environment all is below ./state.

    ML_ASSETS_STATE, ML_ASSETS_DATA, ML_ASSETS_LANDING, ML_ASSETS_POLICIES, ML_ASSETS_LEDGER, MLFLOW_TRACKING_URI,
    ML_ASSETS_MLFLOW_ARTIFACTS, ML_ASSETS_DOSSIERS, ML_ASSETS_ANCHOR, ML_ASSETS_KEYS, ML_ASSETS_CORES, ML_ASSETS_GPUS,
    ML_ASSETS_MEMORY_MIB, ML_ASSETS_KUBERNETES, ML_ASSETS_PODS,
    ML_ASSETS_INBOX_TOKEN, ML_ASSETS_ALERT_WEBHOOK and ML_ASSETS_ALERT_SLACK are read.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    read = os.environ.get
    state = Path(read("ML_ASSETS_STATE") or PROJECT_ROOT / "state").resolve()
    cores = read("ML_ASSETS_CORES")
    if cores and not (cores.isdigit() and int(cores) > 0):
        raise MlAssetsError(
            f"ML_ASSETS_CORES is {cores!r}; expected a positive whole number, or nothing for all cores."
        )
    memory_mib = read("ML_ASSETS_MEMORY_MIB")
    if memory_mib and not (memory_mib.isdigit() and int(memory_mib) > 0):
        raise MlAssetsError(
            f"ML_ASSETS_MEMORY_MIB is {memory_mib!r}; expected a positive whole number of MiB, or nothing for "
            "what there is."
        )
    mlflow = read("MLFLOW_TRACKING_URI")
    policies = read("ML_ASSETS_POLICIES")
    return Profile(
        project_root=PROJECT_ROOT,
        state=state,
        data_url=read("ML_ASSETS_DATA") or str(state / "data"),
        landing_url=read("ML_ASSETS_LANDING") or str(state / "landing"),
        policy_url=policies or str(PROJECT_ROOT / "policies"),
        # Whoever can write the state folder could make himself a reviewer there: only where nothing is at stake.
        trial_people=None if policies else state / "people.yaml",
        ledger_url=read("ML_ASSETS_LEDGER") or f"sqlite:///{state / 'ledger.db'}",
        mlflow_url=mlflow or f"sqlite:///{state / 'mlflow' / 'mlflow.db'}",
        mlflow_artifacts=read("ML_ASSETS_MLFLOW_ARTIFACTS")
        or (None if mlflow and mlflow.startswith("http") else str(state / "mlflow" / "artifacts")),
        dossier_url=read("ML_ASSETS_DOSSIERS") or str(state / "dossiers"),
        anchor_url=read("ML_ASSETS_ANCHOR") or None,
        keys_folder=Path(read("ML_ASSETS_KEYS") or Path.home() / ".config" / "ml-assets" / "keys"),
        user=_user(),
        cores=int(cores) if cores else None,
        gpus=usable_gpus(read("ML_ASSETS_GPUS"), read("CUDA_VISIBLE_DEVICES")),
        memory_mib=int(memory_mib) if memory_mib else None,
        cluster=cluster_access(read("ML_ASSETS_KUBERNETES")),
        pods=pod_rules(read("ML_ASSETS_PODS")),
        inbox_token=read("ML_ASSETS_INBOX_TOKEN") or None,
        alert_webhook=read("ML_ASSETS_ALERT_WEBHOOK") or None,
        alert_slack=read("ML_ASSETS_ALERT_SLACK") or None,
    )


def _user() -> str:
    """Return the name of the account that this process runs under, from the system and not from the environment."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an account without an entry, as in some containers
        return f"uid-{os.getuid()}"
