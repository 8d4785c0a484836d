"""The chart's accounts on a cluster that enforces rights: what the platform does is allowed, and nothing else is."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ml_assets.compute import op_tags
from ml_assets.executors.pods import PodRefusedError
from ml_assets.interfaces import StepResources
from resources.kubernetes.access import Cluster
from tests.charts.pods import job_of, made_launcher
from tests.charts.rendering import RELEASE, of, rendered
from tests.kubernetes.contract_cluster import Cluster as ApiClients
from tests.kubernetes.contract_cluster import refused
from tests.kubernetes.double import FakeKube

pytestmark = pytest.mark.timeout(60)

ACCOUNTS = {"dagster": RELEASE, "run-worker": "team-flights"}
WITHOUT_RIGHTS = ("code-server", "step")
KINDS = ("Namespace", "PriorityClass", "ServiceAccount", "Role", "RoleBinding", "ResourceQuota", "LimitRange")


@pytest.fixture(scope="module")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeKube]:
    """A cluster on which what concerns rights and quotas was installed."""
    from kubernetes import utils

    folder = tmp_path_factory.mktemp("rights")
    with FakeKube(namespaces=("default", RELEASE), rbac=True) as kube:
        admin = ApiClients(kube.write_kubeconfig(folder / "admin.json"), kube, None).core.api_client
        for kind in KINDS:
            for one in of(rendered(), kind):
                utils.create_from_dict(admin, one)
        yield kube


def as_account(kube: FakeKube, folder: Path, namespace: str, account: str) -> tuple[Cluster, ApiClients]:
    """Return the cluster as our executor and reaper see it with an account's token, and the plain clients."""
    path = kube.write_kubeconfig(folder / f"{account}.json", namespace, service_account=account)
    plain = ApiClients(path, kube, None)
    return Cluster(SimpleNamespace(batch_api=plain.batch, core_api=plain.core)), plain


def job(name: str) -> Any:
    from kubernetes import client

    container = client.V1Container(name="dagster", image="x", command=["true"])
    pod = client.V1PodTemplateSpec(spec=client.V1PodSpec(restart_policy="Never", containers=[container]))
    return client.V1Job(metadata=client.V1ObjectMeta(name=name), spec=client.V1JobSpec(template=pod, backoff_limit=0))


@pytest.mark.parametrize("account", ACCOUNTS)
def test_who_starts_pods_may_start_watch_and_remove_them(kube: FakeKube, tmp_path: Path, account: str) -> None:
    cluster, plain = as_account(kube, tmp_path, ACCOUNTS[account], account)
    name = f"of-{account}"

    assert cluster.create_job("team-flights", job(name)) is False
    assert cluster.create_job("team-flights", job(name)) is True
    assert [one["metadata"]["name"] for one in cluster.jobs("team-flights", "")].count(name) == 1
    assert plain.batch.read_namespaced_job_status(name, "team-flights").metadata.name == name
    cluster.events("team-flights", name)
    for pod in cluster.pods("team-flights", f"job-name={name}"):
        cluster.log("team-flights", pod["metadata"]["name"], 10)
        cluster.delete_pod("team-flights", pod["metadata"]["name"])
    cluster.delete_job("team-flights", name)


@pytest.mark.parametrize("account", ACCOUNTS)
def test_who_starts_pods_may_do_nothing_else(kube: FakeKube, tmp_path: Path, account: str) -> None:
    _, plain = as_account(kube, tmp_path, ACCOUNTS[account], account)
    pod = {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    calls: list[Callable[[], Any]] = [
        lambda: plain.core.list_namespaced_secret("team-flights"),
        lambda: plain.core.list_namespaced_config_map("team-flights"),
        lambda: plain.core.create_namespaced_pod("team-flights", pod),
        lambda: plain.core.list_namespaced_pod("default"),
        lambda: plain.batch.list_namespaced_job(RELEASE),
        plain.batch.list_job_for_all_namespaces,
        plain.core.list_node,
        lambda: plain.rbac.create_namespaced_role("team-flights", {"metadata": {"name": "x"}, "rules": []}),
    ]
    for call in calls:
        assert refused(call)[0] == 403


def test_a_team_does_not_reach_another_ones_pods(kube: FakeKube, tmp_path: Path) -> None:
    cluster, _ = as_account(kube, tmp_path, "team-flights", "run-worker")

    with pytest.raises(PodRefusedError, match='cannot create resource "jobs"'):
        cluster.create_job("team-births", job("x"))
    with pytest.raises(PodRefusedError):
        cluster.pods("team-births", "")


@pytest.mark.parametrize("account", WITHOUT_RIGHTS)
def test_a_teams_own_code_may_do_nothing(kube: FakeKube, tmp_path: Path, account: str) -> None:
    cluster, _ = as_account(kube, tmp_path, "team-flights", account)

    for ask in (cluster.jobs, cluster.pods, cluster.events):
        with pytest.raises(PodRefusedError, match=f"system:serviceaccount:team-flights:{account}"):
            ask("team-flights", "x")
    with pytest.raises(PodRefusedError):
        cluster.create_job("team-flights", job("x"))


def test_the_pods_of_runs_and_steps_pass_the_namespaces_limits(
    kube: FakeKube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What dagster-k8s makes of the chart's configuration is let in by quota, LimitRange and pod security."""
    launcher = made_launcher(monkeypatch)
    cluster, _ = as_account(kube, tmp_path, RELEASE, "dagster")
    large = op_tags(StepResources(cores=8, memory_gib=64, gpus=2))
    cluster.create_job("team-flights", job_of(launcher, name="of-a-run"))
    cluster.create_job("team-flights", job_of(launcher, large, name="of-a-step"))

    run, step = (_first_pod(cluster, name) for name in ("of-a-run", "of-a-step"))

    limits = {"cpu": "8000m", "memory": "4096Mi"}
    assert run["spec"]["containers"][0]["resources"]["limits"] == limits
    limits = {"cpu": "8000m", "memory": "65536Mi", "nvidia.com/gpu": "2"}
    assert step["spec"]["containers"][0]["resources"]["limits"] == limits
    for name in ("of-a-run", "of-a-step"):
        cluster.delete_job("team-flights", name)


def _first_pod(cluster: Cluster, job: str) -> Any:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := cluster.pods("team-flights", f"job-name={job}"):
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"no pod: {[event['message'] for event in cluster.events('team-flights', job)]}")


def test_the_rights_are_these_and_no_others() -> None:
    """Measured as sufficient for dagster-k8s's launcher and executor; a wider one must be argued for here."""
    for role in of(rendered(), "Role"):
        rights = {
            (group, resource): sorted(rule["verbs"])
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
        }
        assert rights == {
            ("batch", "jobs"): ["create", "delete", "get", "list"],
            ("batch", "jobs/status"): ["get"],
            ("", "pods"): ["delete", "get", "list"],
            ("", "pods/log"): ["get"],
            ("", "events"): ["list"],
        }
    assert of(rendered(), "ClusterRole") == of(rendered(), "ClusterRoleBinding") == []
