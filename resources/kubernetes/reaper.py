"""Removes what runs that are over have left: Jobs whose pods hold GPUs for nobody, and pool slots."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dagster import DagsterInstance

from ml_assets.errors import MlAssetsError
from ml_assets.executors.pods import ClusterAwayError
from resources.kubernetes.access import Cluster, ClusterAccess, open_client
from resources.kubernetes.pod_looks import Object
from resources.kubernetes.pod_runner import instance_id

_INSTANCE_LABEL = "ml-assets/instance"
_RUN_LABEL = "dagster/run-id"
_STEP_LABEL = "dagster/op"
_GRACE = timedelta(seconds=60)
"""A run that has just ended looks after its last pods itself."""


@dataclass(frozen=True, kw_only=True)
class Reaped:
    """A Job that was removed.

    Attributes:
        namespace: Where it was.
        job: Its name.
        step: The step it was for, as its label has it.
        run_id: The step's run.
        why: Why nobody needs it, in words.
    """

    namespace: str
    job: str
    step: str
    run_id: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Reaper:
    """Looks for Jobs of steps whose run is over.

    Attributes:
        instance: Dagster's instance; Jobs of other instances are left alone.
        cluster: Where to look.
        namespaces: Where to look in it.
        keep: How long a Job that has ended stays, so that people can read its log.
        grace: How long a run must be over before Jobs of its that have not ended are removed.
    """

    instance: DagsterInstance
    cluster: Cluster
    namespaces: Sequence[str]
    keep: timedelta = timedelta(days=1)
    grace: timedelta = _GRACE

    def reap(self) -> list[Reaped]:
        """Remove the Jobs of runs that are over, free their pool slots, and return the Jobs.

        Raises:
            ClusterAwayError: If the cluster does not answer.
            PodRefusedError: If it does not let us look or remove.
        """
        self._free_slots()
        return list(self._jobs())

    def _jobs(self) -> Iterator[Reaped]:
        selector = f"{_INSTANCE_LABEL}={instance_id(self.instance)},{_RUN_LABEL}"
        for namespace in self.namespaces:
            for job in self.cluster.jobs(namespace, selector):  # before the runs: one that is over then is over
                labels = job["metadata"]["labels"]
                why = self._why(labels[_RUN_LABEL], ended=_has_ended(job))
                if why is None:
                    continue
                name = job["metadata"]["name"]
                self.cluster.delete_job(namespace, name)
                yield Reaped(
                    namespace=namespace,
                    job=name,
                    step=labels.get(_STEP_LABEL, ""),
                    run_id=labels[_RUN_LABEL],
                    why=why,
                )

    def _why(self, run_id: str, *, ended: bool) -> str | None:
        record = self.instance.get_run_record_by_id(run_id)
        if record is None:
            return "its run was deleted"
        run = record.dagster_run
        if not run.is_finished:
            return None
        over_since = record.update_timestamp.replace(tzinfo=record.update_timestamp.tzinfo or UTC)
        if datetime.now(UTC) - over_since < (self.keep if ended else self.grace):
            return None
        return f"its run is over ({run.status.value})"

    def _free_slots(self) -> None:
        storage = self.instance.event_log_storage
        if not storage.supports_global_concurrency_limits:
            return
        for run_id in storage.get_concurrency_run_ids():  # those that wait for a slot count too
            run = self.instance.get_run_by_id(run_id)
            if run is None or run.is_finished:
                storage.free_concurrency_slots_for_run(run_id)


def open_reaper(
    access: ClusterAccess,
    instance: DagsterInstance,
    namespaces: Sequence[str] = (),
    *,
    keep: timedelta = timedelta(days=1),
    grace: timedelta = _GRACE,
) -> Reaper:
    """Return the reaper of an instance.

    Args:
        access: Which cluster.
        instance: Dagster's instance.
        namespaces: Where to look; empty: where the run launcher puts runs.
        keep: How long a Job that has ended stays.
        grace: How long a run must be over before its other Jobs are removed.

    Raises:
        MlAssetsError: If nothing says where to look.
    """
    from dagster_k8s import K8sRunLauncher

    launcher = instance.run_launcher if isinstance(instance.run_launcher, K8sRunLauncher) else None
    places = list(namespaces) or ([launcher.job_namespace] if launcher is not None else [])
    if not places:
        raise MlAssetsError(
            "The instance's run launcher is not dagster-k8s's, so nothing says where its pods are; name the namespaces."
        )
    client, _ = open_client(access, launcher)
    return Reaper(instance=instance, cluster=Cluster(client), namespaces=places, keep=keep, grace=grace)


def reap(
    access: ClusterAccess | None,
    instance: DagsterInstance,
    namespaces: Sequence[str] = (),
    *,
    keep: timedelta = timedelta(days=1),
    grace: timedelta = _GRACE,
) -> list[str]:
    """Do what `Reaper.reap` does, and return a line of text for each Job that was removed.

    Raises:
        MlAssetsError: If no cluster is set, nothing says where to look, or the cluster does not answer or let us.
    """
    reaper = open_reaper(require_cluster(access), instance, namespaces, keep=keep, grace=grace)
    try:
        return [f"{one.namespace}/{one.job} of step {one.step} (run {one.run_id}): {one.why}" for one in reaper.reap()]
    except ClusterAwayError as error:
        raise MlAssetsError(
            f"The cluster's API does not answer ({error}). Nothing more was removed; try again."
        ) from error


def require_cluster(access: ClusterAccess | None) -> ClusterAccess:
    """Return the cluster.

    Raises:
        MlAssetsError: If none is set.
    """
    if access is None:
        raise MlAssetsError(
            "No cluster is set; expected ML_ASSETS_KUBERNETES to be 1 or the path of a kubeconfig file. Without one, "
            "steps have no pods and there is nothing to remove."
        )
    return access


def _has_ended(job: Object) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)
