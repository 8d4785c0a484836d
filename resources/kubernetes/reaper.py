"""Removes what runs that are over have left: Jobs whose pods hold GPUs for nobody, and pool slots."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from dagster import DagsterInstance

from ml_assets.errors import LeftoverError, MlAssetsError
from ml_assets.executors.pods import ClusterAwayError, PodRefusedError
from resources.kubernetes.access import Cluster, ClusterAccess, open_client
from resources.kubernetes.pod_looks import Object
from resources.kubernetes.pod_runner import instance_id

_T = TypeVar("_T")
_INSTANCE_LABEL = "ml-assets/instance"
_RUN_LABEL = "dagster/run-id"
_STEP_LABEL = "dagster/op"
_GRACE = timedelta(seconds=60)
"""A run that has just ended looks after its last pods itself."""
_SILENCE_SECONDS = 60.0
"""A cluster that has let nothing succeed for so long counts as away: each question may take seconds to fail."""
_MOST_TOLD = 20
"""So many problems are told one by one."""


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

    def __str__(self) -> str:
        """Return a line of text about it."""
        return f"{self.namespace}/{self.job} of step {self.step} (run {self.run_id}): {self.why}"


class ReapError(LeftoverError):
    """Not all could be removed that should be; `reaped` is what was, and the message tells both."""

    def __init__(self, problems: Sequence[str], reaped: Sequence[Reaped]) -> None:
        self.problems, self.reaped = tuple(problems), tuple(reaped)
        more = len(problems) - _MOST_TOLD
        lines = [
            "Not all Jobs that nobody needs could be removed:",
            *(f"  {problem}" for problem in problems[:_MOST_TOLD]),
            *([f"  and {more} more"] if more > 0 else []),
            "Removed were:" if reaped else "Nothing was removed.",
            *(f"  {one}" for one in reaped),
            "Remove the cause and try again.",
        ]
        super().__init__("\n".join(lines))


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

        A Job that cannot be removed, or a namespace that cannot be looked into, keeps no other from being removed.

        Raises:
            ReapError: If the cluster did not answer or did not let us look or remove; it holds what was removed.
        """
        self._free_slots()
        selector = f"{_INSTANCE_LABEL}={instance_id(self.instance)},{_RUN_LABEL}"
        reaped, attempts = list[Reaped](), _Attempts()
        for namespace in self.namespaces:
            # Before the runs: one that is over then is over.
            for job in attempts.make(lambda place=namespace: self.cluster.jobs(place, selector)) or []:
                found = self._left_over(namespace, job)
                if found is not None and attempts.make(lambda one=found: self._remove(one)):
                    reaped.append(found)
        if attempts.is_away:
            attempts.problems.insert(0, f"The cluster has not answered for {_SILENCE_SECONDS:g} s; no more was tried.")
        if attempts.problems:
            raise ReapError(attempts.problems, reaped)
        return reaped

    def _left_over(self, namespace: str, job: Object) -> Reaped | None:
        labels = job["metadata"]["labels"]
        run_id = labels[_RUN_LABEL]
        why = self._why(run_id, ended=_has_ended(job))
        if why is None:
            return None
        name, step = job["metadata"]["name"], labels.get(_STEP_LABEL, "")
        return Reaped(namespace=namespace, job=name, step=step, run_id=run_id, why=why)

    def _remove(self, one: Reaped) -> bool:
        self.cluster.delete_job(one.namespace, one.job)
        return True

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


@dataclass(kw_only=True)
class _Attempts:
    """Asks the cluster one thing after the other, and goes on when one fails.

    Attributes:
        problems: What failed, in words.
        silent_since: Since when the cluster has not done what it was asked, as of `time.monotonic`; None when it does.
        is_away: Whether it is not asked any more.
    """

    problems: list[str] = field(default_factory=list)
    silent_since: float | None = None
    is_away: bool = False

    def make(self, attempt: Callable[[], _T]) -> _T | None:
        """Return an answer; None when there is none, or when the cluster is not asked any more because it is away."""
        if self.is_away:
            return None
        try:
            answer = attempt()
        except PodRefusedError as error:
            self.problems.append(str(error))
            self.silent_since = None
            return None
        except ClusterAwayError as error:
            now = time.monotonic()
            self.problems.append(f"The cluster did not do it: {error}")
            self.silent_since = self.silent_since or now
            self.is_away = now - self.silent_since >= _SILENCE_SECONDS
            return None
        self.silent_since = None
        return answer


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
        MlAssetsError: If no cluster is set or nothing says where to look.
        ReapError: If the cluster did not answer or did not let us look or remove; the message tells what was removed.
    """
    reaper = open_reaper(require_cluster(access), instance, namespaces, keep=keep, grace=grace)
    return [str(one) for one in reaper.reap()]


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
