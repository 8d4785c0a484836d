"""The way to a cluster: which one, dagster-k8s's own client for it, and its failures in an executor's words."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dagster import DagsterInstance, DagsterRun

from ml_assets.errors import MlAssetsError
from ml_assets.executors.pods import ClusterAwayError, PodRefusedError, PodRules, PodRunner
from resources.kubernetes.pod_looks import waits_for_quota

TIMEOUT_SECONDS = (3.0, 10.0)
"""For a connection, and for an answer: an executor must not stand still for long."""
_AWAY = frozenset({401, 408, 409, 429, 500, 502, 503, 504})
"""Answers after which the same question may be answered otherwise; some clusters say 401 for a moment."""
_SERVICE_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_NOT_FOUND = 404
_CONFLICT = 409


@dataclass(frozen=True, kw_only=True)
class ClusterAccess:
    """Which cluster holds the pods of steps.

    Attributes:
        kubeconfig: A kubeconfig file; None: as Dagster's K8sRunLauncher is configured, or this pod's own cluster.
    """

    kubeconfig: Path | None = None

    def pods(self, instance: DagsterInstance, run: DagsterRun) -> PodRunner:
        """Return the pods of a run; Kubernetes' libraries are imported now.

        Raises:
            MlAssetsError: If the run launcher is not dagster-k8s's, or the cluster's configuration cannot be read.
        """
        from resources.kubernetes.pod_runner import KubernetesPods

        return KubernetesPods(self, instance, run)

    def require(self, instance: DagsterInstance) -> None:
        """Refuse a run with steps in pods where it is known beforehand that there is no way to the cluster.

        Kubernetes' libraries are not imported for it.

        Raises:
            MlAssetsError: If the run launcher is not dagster-k8s's, or what leads to the cluster is not there.
        """
        data = instance.get_ref().run_launcher_data
        config: Mapping[str, Any] = {} if data is None else data.config_dict
        if data is None or not data.module_name.startswith("dagster_k8s"):
            require_launcher(instance)  # it may be derived from dagster-k8s's
        launchers = config.get("kubeconfig_file")
        if launchers is None and config.get("load_incluster_config", True):
            launchers = str(_SERVICE_TOKEN)
        for file in (self.kubeconfig, launchers):  # what is read from a variable is not known here
            if isinstance(file, Path | str) and not Path(file).is_file():
                raise _unreachable(f"there is no file {file}")


def cluster_access(setting: str | None) -> ClusterAccess | None:
    """Return the cluster that a setting names.

    Args:
        setting: "1" for the cluster of Dagster's run launcher; the path of a kubeconfig file; "0" or nothing for none.

    Raises:
        MlAssetsError: If there is no such file.
    """
    if not setting or setting == "0":
        return None
    if setting == "1":
        return ClusterAccess()
    kubeconfig = Path(setting)
    if not kubeconfig.is_file():
        raise MlAssetsError(
            f"ML_ASSETS_KUBERNETES is {setting!r} and there is no such file; expected 1 for the cluster of Dagster's "
            "run launcher, the path of a kubeconfig file, or nothing to fork all steps."
        )
    return ClusterAccess(kubeconfig=kubeconfig)


def pod_rules(setting: str | None) -> dict[str, float | int]:
    """Return the times and limits of pods that a setting gives, such as "pending_seconds=900,free_starts=8".

    Raises:
        MlAssetsError: If a name is unknown or a value is no number.
    """
    known = {entry.name: entry.type for entry in fields(PodRules)}
    rules: dict[str, float | int] = {}
    for part in filter(None, (setting or "").replace(" ", "").split(",")):
        name, _, text = part.partition("=")
        number = re.fullmatch(r"\d+" if known.get(name) is int else r"\d+(\.\d+)?", text)
        if name not in known or number is None:
            raise MlAssetsError(
                f"ML_ASSETS_PODS has {part!r}; expected name=number, separated by commas, such as "
                f"pending_seconds=900. The names are {', '.join(known)}."
            )
        rules[name] = int(text) if known[name] is int else float(text)
    return rules


class Cluster:
    """dagster-k8s's client, whose answers are JSON and whose failures are `ClusterAwayError` or `PodRefusedError`.

    Args:
        client: A DagsterKubernetesClient.
    """

    def __init__(self, client: Any) -> None:
        self._batch = client.batch_api
        self._core = client.core_api

    def create_job(self, namespace: str, body: Any) -> bool:
        """Create a Job (a V1Job); return whether one of that name was there already.

        Raises:
            PodRefusedError: If the cluster does not take it.
        """
        name = body.metadata.name
        with _failures(f"Kubernetes Job {name} in namespace {namespace}"):
            try:
                self._batch.create_namespaced_job(namespace, body, _request_timeout=TIMEOUT_SECONDS)
            except Exception as error:
                if getattr(error, "status", None) != _CONFLICT:
                    raise
                return True
        return False

    def jobs(self, namespace: str | None, selector: str) -> list[Mapping[str, Any]]:
        """Return the Jobs with these labels; of all namespaces when it is None."""
        if namespace is None:
            return self._items(self._batch.list_job_for_all_namespaces, label_selector=selector)
        return self._items(self._batch.list_namespaced_job, namespace, label_selector=selector)

    def pods(self, namespace: str, selector: str) -> list[Mapping[str, Any]]:
        """Return the pods with these labels."""
        return self._items(self._core.list_namespaced_pod, namespace, label_selector=selector)

    def events(self, namespace: str, name: str) -> list[Mapping[str, Any]]:
        """Return the events of an object."""
        return self._items(self._core.list_namespaced_event, namespace, field_selector=f"involvedObject.name={name}")

    def log(self, namespace: str, pod: str, lines: int) -> str:
        """Return the last lines that a pod's container printed; empty when there are none or they are gone."""
        with _failures(f"pod {pod} in namespace {namespace}"):
            try:
                answer = self._core.read_namespaced_pod_log(
                    pod, namespace, tail_lines=lines, _preload_content=False, _request_timeout=TIMEOUT_SECONDS
                )
            except Exception as error:
                if getattr(error, "status", None) is None:
                    raise
                return ""
            return answer.data.decode("utf-8", errors="replace").strip()

    def delete_job(self, namespace: str, name: str) -> None:
        """Delete a Job and, behind it, its pods; nothing happens when it is gone."""
        self._delete(
            self._batch.delete_namespaced_job, name, namespace, propagation_policy="Background", what="Kubernetes Job"
        )

    def delete_pod(self, namespace: str, name: str) -> None:
        """Delete a pod without waiting for its node."""
        self._delete(self._core.delete_namespaced_pod, name, namespace, grace_period_seconds=0, what="pod")

    def _delete(self, delete: Callable[..., Any], name: str, namespace: str, *, what: str, **options: Any) -> None:
        with _failures(f"{what} {name} in namespace {namespace}"):
            try:
                delete(name, namespace, _request_timeout=TIMEOUT_SECONDS, **options)
            except Exception as error:
                if getattr(error, "status", None) != _NOT_FOUND:
                    raise

    def _items(self, ask: Callable[..., Any], *where: str, **options: str) -> list[Mapping[str, Any]]:
        with _failures(f"{ask.__name__} in {where[0] if where else 'all namespaces'}"):
            # The client's own models cost more time than the question.
            answer = ask(*where, _preload_content=False, _request_timeout=TIMEOUT_SECONDS, **options)
            return json.loads(answer.data)["items"]


def open_client(access: ClusterAccess, launcher: Any) -> tuple[Any, dict[str, Any]]:
    """Return dagster-k8s's client for a cluster, and how dagster-k8s's step handler reaches the same one.

    Args:
        access: Which cluster.
        launcher: Dagster's K8sRunLauncher, or None.

    Raises:
        MlAssetsError: If the cluster's configuration cannot be read.
    """
    from dagster_k8s.client import DagsterKubernetesClient
    from dagster_k8s.utils import load_kubernetes_config

    if access.kubeconfig is not None:
        reach = {"load_incluster_config": False, "kubeconfig_file": str(access.kubeconfig)}
    elif launcher is not None:
        reach = {"load_incluster_config": launcher.load_incluster_config, "kubeconfig_file": launcher.kubeconfig_file}
    else:
        reach = {"load_incluster_config": True, "kubeconfig_file": None}
    try:
        load_kubernetes_config(**reach)
    except Exception as error:  # what a kubeconfig raises in which somebody has made a mistake nobody can name
        raise _unreachable(f"{type(error).__name__}: {error}") from error
    return DagsterKubernetesClient.production_client(), reach


def require_launcher(instance: DagsterInstance) -> Any:
    """Return the instance's K8sRunLauncher, which says what pods have in common.

    Raises:
        MlAssetsError: If it has another run launcher, or one that cannot be made, as it reads a kubeconfig itself.
    """
    try:
        launcher = instance.run_launcher
    except Exception as error:  # as in `open_client`
        raise _unreachable(f"the run launcher cannot be made: {type(error).__name__}: {error}") from error
    library: Any = sys.modules.get("dagster_k8s")  # an instance that has its launcher has imported it
    if library is None or not isinstance(launcher, library.K8sRunLauncher):
        raise MlAssetsError(
            f"A step needs a pod, and the instance's run launcher is {type(launcher).__name__}; expected "
            "dagster-k8s's K8sRunLauncher, whose configuration says which namespace, image and service account "
            "pods have. Configure it in dagster.yaml, or unset ML_ASSETS_KUBERNETES to fork all steps."
        )
    return launcher


def _unreachable(why: str) -> MlAssetsError:
    return MlAssetsError(
        f"The cluster for steps in pods cannot be reached: {why}. Expected a pod with a service account's token, or "
        "ML_ASSETS_KUBERNETES to be the path of a kubeconfig file that is valid."
    )


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Turn what the client raises into what an executor understands."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        message = _sentence(error)
        if error.status in _AWAY or not error.status:
            raise ClusterAwayError(f"{what}: {error.status} {message}") from error
        raise PodRefusedError(
            f"The cluster refuses {what}: {error.status} {message}. Expected it to be allowed and valid: look at the "
            "rights of the run's service account, the namespace's quota, and the step's `compute`.",
            for_now=waits_for_quota(message),
        ) from error
    except (HTTPError, OSError) as error:
        raise ClusterAwayError(f"{what}: {type(error).__name__}") from error


def _sentence(error: Any) -> str:
    try:
        return json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
