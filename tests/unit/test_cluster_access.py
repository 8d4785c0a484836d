"""Which cluster a setting names, and what an administrator reads when there is none."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from ml_assets.cli import cluster as cluster_commands
from ml_assets.errors import LeftoverError, MlAssetsError
from ml_assets.executors.pods import ClusterAwayError, PodRefusedError
from resources.kubernetes.access import Cluster, ClusterAccess, cluster_access, pod_rules
from resources.kubernetes.reaper import reap


@pytest.mark.parametrize("setting", [None, "", "0"])
def test_without_a_setting_there_is_no_cluster(setting: str | None) -> None:
    assert cluster_access(setting) is None


def test_a_setting_names_the_launchers_cluster_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.touch()
    assert cluster_access("1") == ClusterAccess()
    assert cluster_access(str(file)) == ClusterAccess(kubeconfig=file)
    with pytest.raises(MlAssetsError, match=r"ML_ASSETS_KUBERNETES is 'yes' and there is no such file; expected 1"):
        cluster_access("yes")


def test_without_a_cluster_there_is_nothing_to_reap() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(MlAssetsError, match="No cluster is set; expected ML_ASSETS_KUBERNETES"):
            reap(None, instance)
        with pytest.raises(MlAssetsError, match="run launcher is not dagster-k8s's"):
            reap(ClusterAccess(), instance)


def test_a_run_launcher_that_knows_no_pods_is_named() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.DagsterRun(job_name="job")
        with pytest.raises(
            MlAssetsError, match=r"the instance's run launcher is .*; expected dagster-k8s's K8sRunLauncher"
        ):
            ClusterAccess().pods(instance, run)


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: here, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: me, user: {}}]
contexts: [{name: here, context: {cluster: here, user: me}}]
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose run launcher goes to the cluster of a file, `launchers`."""
    config = {
        "load_incluster_config": False,
        "kubeconfig_file": str(tmp_path / "launchers"),
        "service_account_name": "default",
        "instance_config_map": "instance",
        "dagster_home": str(tmp_path),
    }
    launcher = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": config}
    with dg.instance_for_test(overrides={"run_launcher": launcher}, temp_dir=str(tmp_path)) as instance:
        yield instance


def test_a_cluster_of_which_a_file_is_missing_is_refused_beforehand(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    access = ClusterAccess(kubeconfig=tmp_path / "steps")
    for name in ("steps", "launchers"):
        with pytest.raises(MlAssetsError, match=rf"cannot be reached: there is no file .*/{name}\. Expected a pod"):
            access.require(instance)
        (tmp_path / name).write_text(KUBECONFIG)
    access.require(instance)
    assert access.pods(instance, dg.DagsterRun(job_name="job")).job_name("step", 0).endswith("-0")


@pytest.mark.parametrize("where", ["steps", "launchers"])
@pytest.mark.parametrize("text", ["clusters: [", "apiVersion: v1", "[]"])
def test_a_kubeconfig_with_a_mistake_is_told_in_one_sentence(
    instance: dg.DagsterInstance, tmp_path: Path, where: str, text: str
) -> None:
    for name in ("steps", "launchers"):
        (tmp_path / name).write_text(text if name == where else KUBECONFIG)
    access = ClusterAccess(kubeconfig=tmp_path / "steps")
    access.require(instance)  # what stands in it is read when a step needs the cluster
    with pytest.raises(MlAssetsError, match=r"(?s)The cluster for steps in pods cannot be reached: .*Expected a pod"):
        access.pods(instance, dg.DagsterRun(job_name="job"))


def test_a_run_launcher_without_pods_is_refused_beforehand(tmp_path: Path) -> None:
    with (
        dg.instance_for_test(temp_dir=str(tmp_path)) as instance,
        pytest.raises(MlAssetsError, match="expected dagster-k8s's K8sRunLauncher"),
    ):
        ClusterAccess().require(instance)


def _cluster(status: int, message: str = "why") -> Cluster:
    from kubernetes.client import ApiException

    def fail(*_: Any, **__: Any) -> None:
        error = ApiException(status=status, reason="reason")
        error.body = json.dumps({"message": message})
        raise error

    api = SimpleNamespace(create_namespaced_job=fail, delete_namespaced_job=fail, read_namespaced_pod_log=fail)
    return Cluster(SimpleNamespace(batch_api=api, core_api=api))


JOB = SimpleNamespace(metadata=SimpleNamespace(name="job-1"))


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_answers_that_may_change_mean_that_the_cluster_is_away(status: int) -> None:
    with pytest.raises(ClusterAwayError, match=f"Kubernetes Job job-1 in namespace team: {status} why"):
        _cluster(status).create_job("team", JOB)


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_answers_that_stay_are_told_in_the_clusters_words(status: int) -> None:
    with pytest.raises(
        PodRefusedError, match=f"The cluster refuses Kubernetes Job job-1 in namespace team: {status} why"
    ):
        _cluster(status).create_job("team", JOB)


@pytest.mark.parametrize(("used", "hard", "for_now"), [(2, 2, True), (0, 0, False)])
def test_a_quota_of_jobs_that_is_used_up_refuses_for_now_only(used: int, hard: int, for_now: bool) -> None:
    amounts = f"requested: count/jobs.batch=1, used: count/jobs.batch={used}, limited: count/jobs.batch={hard}"
    with pytest.raises(PodRefusedError) as refused:
        _cluster(403, f'jobs.batch "job-1" is forbidden: exceeded quota: team, {amounts}').create_job("team", JOB)
    assert refused.value.for_now is for_now


def test_what_is_there_already_and_what_is_gone_already_is_no_error() -> None:
    assert _cluster(409).create_job("team", JOB)
    _cluster(404).delete_job("team", "job-1")
    assert _cluster(404).log("team", "pod-1", 5) == ""


def test_rules_of_pods_are_read_and_mistakes_in_them_are_told() -> None:
    assert pod_rules(None) == {}
    rules = pod_rules("pending_seconds=900, free_starts=8")
    assert rules == {"pending_seconds": 900.0, "free_starts": 8}
    assert isinstance(rules["free_starts"], int)
    for wrong in ("pending=900", "pending_seconds=soon", "free_starts=1.5", "look_seconds"):
        with pytest.raises(MlAssetsError, match=rf"ML_ASSETS_PODS has '{wrong}'; expected name=number"):
            pod_rules(wrong)


def test_a_reaper_that_goes_on_outlives_a_cluster_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [["job-0 of step a"], MlAssetsError("The cluster's API does not answer"), ["job-1 of step b"]]

    def reap_once(*_: Any, **__: Any) -> list[str]:
        if not answers:
            raise KeyboardInterrupt
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    profile = SimpleNamespace(activate=lambda: None, reap=reap_once)
    monkeypatch.setattr(cluster_commands, "current_project", lambda: SimpleNamespace(profile=profile))
    result = CliRunner().invoke(cluster_commands.cluster, ["reap", "--every", "0.01"])
    assert result.stdout.splitlines()[:2] == ["removed job-0 of step a", "removed job-1 of step b"]
    assert "The cluster's API does not answer\nAsked again in 0.01 s." in result.stderr
    answers[:] = [LeftoverError("job-2 cannot be removed"), ["job-3 of step c"]]
    result = CliRunner().invoke(cluster_commands.cluster, ["reap", "--every", "0.01"])
    assert result.stdout.splitlines()[:1] == ["removed job-3 of step c"]
    assert "job-2 cannot be removed\nAsked again" in result.stderr
    answers[:] = [MlAssetsError("No cluster is set")]
    result = CliRunner().invoke(cluster_commands.cluster, ["reap", "--every", "0.01"])
    assert isinstance(result.exception, MlAssetsError)  # at once
