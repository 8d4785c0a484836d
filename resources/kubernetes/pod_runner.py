"""The pods of one run's steps in a Kubernetes cluster, for the executor."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dagster import DagsterInstance, DagsterRun
from dagster._core.executor.step_delegating import StepHandlerContext  # noqa: TID251 what step handlers are given

from ml_assets.executors.pods import PodLaunch, PodLook, StepDemand
from resources.kubernetes.access import Cluster, ClusterAccess, open_client, require_launcher
from resources.kubernetes.pod_looks import explained, look_at

_LAST_LINES = 20


class KubernetesPods:
    """A `PodRunner` over dagster-k8s's client and step handler.

    Args:
        access: Which cluster.
        instance: Dagster's instance; its run launcher says what pods have in common.
        run: The run whose steps these are.

    Raises:
        MlAssetsError: If the run launcher is not dagster-k8s's, or the cluster's configuration cannot be read.
    """

    def __init__(self, access: ClusterAccess, instance: DagsterInstance, run: DagsterRun) -> None:
        from resources.kubernetes.step_jobs import StepJobs

        launcher = require_launcher(instance)
        client, reach = open_client(access, launcher)
        self._cluster = Cluster(client)
        self._jobs = StepJobs(reach, instance_id(instance))
        self._run_id = run.run_id
        self._namespaces: dict[str, str] = {}

    def job_name(self, step_key: str, number: int) -> str:
        """Return the name of the Job of a step's start."""
        from resources.kubernetes.step_jobs import job_name

        return job_name(self._run_id, step_key, number)

    def start(self, context: StepHandlerContext, launch: PodLaunch, demand: StepDemand) -> bool:
        """Create the Job of a step; return whether it was there already.

        Raises:
            PodRefusedError: If the cluster does not take it.
            ClusterAwayError: If it does not answer.
            MlAssetsError: If nothing says which image or namespace the pod has.
        """
        job, namespace = self._jobs.build(context, launch, demand)
        self._namespaces[launch.job] = namespace
        return self._cluster.create_job(namespace, job)

    def look(self, jobs: Sequence[str]) -> Mapping[str, PodLook]:
        """Return what becomes of Jobs that were started here."""
        looks = {job: look_at(None, []) for job in jobs}
        selector = f"dagster/run-id={self._run_id}"
        for namespace in sorted({self._namespaces[job] for job in jobs if job in self._namespaces}):
            found = {job["metadata"]["name"]: job for job in self._cluster.jobs(namespace, selector)}
            pods: dict[str, list[Any]] = {}
            for pod in self._cluster.pods(namespace, selector):
                pods.setdefault((pod["metadata"].get("labels") or {}).get("job-name", ""), []).append(pod)
            for job in jobs:
                if self._namespaces.get(job) == namespace:
                    looks[job] = look_at(found.get(job), pods.get(job, []))
        return looks

    def explain(self, job: str, look: PodLook) -> PodLook:
        """Return the same look with what the cluster's events say of it."""
        events = self._cluster.events(self._namespaces[job], job)
        if look.pod is not None:
            events += self._cluster.events(self._namespaces[job], look.pod)
        elif pod := _pod_that_was(events):  # gone with all that it said of itself
            events += self._cluster.events(self._namespaces[job], pod)
            look = replace(look, pod=pod)
        return explained(look, events)

    def last_words(self, look: PodLook) -> str:
        """Return the last lines that a pod printed; empty when there are none."""
        if look.pod is None:
            return ""
        namespace = next((n for job, n in self._namespaces.items() if look.pod.startswith(job)), None)
        return "" if namespace is None else self._cluster.log(namespace, look.pod, _LAST_LINES)

    def remove(self, job: str, *, at_once: bool = False) -> None:
        """Delete a Job with its pods; nothing happens when it is gone."""
        namespace = self._namespaces.get(job)
        if namespace is None:  # it was never asked for
            return
        pods = self._cluster.pods(namespace, f"job-name={job}") if at_once else []
        self._cluster.delete_job(namespace, job)
        for pod in pods:
            self._cluster.delete_pod(namespace, pod["metadata"]["name"])


def instance_id(instance: DagsterInstance) -> str:
    """Return what tells this Dagster instance from others that may use the same namespace."""
    storage: Any = instance.run_storage
    return storage.get_run_storage_id()


def _pod_that_was(events: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the name of the pod that a Job's events say was created."""
    for event in events:
        if event.get("reason") == "SuccessfulCreate":
            return (event.get("message") or "").rpartition("Created pod: ")[2] or None
    return None
