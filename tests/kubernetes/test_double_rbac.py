"""Rights on the double with `rbac=True`: a service account may do what its roles say, and no more."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.contract_cluster import Cluster, refused
from tests.kubernetes.double import FakeKube, Image, NodeSpec, ProcessKubelet

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def kube() -> Iterator[FakeKube]:
    with FakeKube(namespaces=("default", "team"), rbac=True) as kube:
        yield kube


def _as(kube: FakeKube, folder: Path, namespace: str = "", account: str = "") -> Cluster:
    """Return the cluster as the administrator sees it, or as a service account does."""
    path = folder / f"{namespace}-{account}.json"
    cluster = Cluster(kube.write_kubeconfig(path, namespace or "default", service_account=account), kube, None)
    cluster.namespace = namespace or "default"
    return cluster


def _grant(admin: Cluster, namespace: str, account: str, *rules: dict[str, Any], home: str = "") -> None:
    """Give a service account of the namespace `home` these rights in a namespace."""
    name = f"role-{account}"
    admin.rbac.create_namespaced_role(namespace, {"metadata": {"name": name}, "rules": list(rules)})
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": home or namespace}],
    }
    admin.rbac.create_namespaced_role_binding(namespace, binding)


def _rule(group: str, resources: str, verbs: str, **more: Any) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split(), **more}


def test_without_a_token_nobody_is_known(kube: FakeKube, tmp_path: Path) -> None:
    path = kube.write_kubeconfig(tmp_path / "admin.json")
    config = json.loads(path.read_text())
    config["users"][0]["user"] = {}
    (tmp_path / "nobody.json").write_text(json.dumps(config))
    assert refused(Cluster(tmp_path / "nobody.json", kube, None).core.list_namespace)[0] == 401
    assert Cluster(path, kube, None).core.list_namespace().items


def test_an_account_without_a_role_may_do_nothing(kube: FakeKube, tmp_path: Path) -> None:
    account = _as(kube, tmp_path, "team", "default")
    code, body = refused(account.core.list_namespaced_pod, "team")
    assert code == 403
    told = json.loads(body)["message"]
    assert told == (
        'pods is forbidden: User "system:serviceaccount:team:default" cannot list resource "pods" in API group "" '
        'in the namespace "team"'
    )


def test_a_role_gives_its_verbs_resources_and_names(kube: FakeKube, tmp_path: Path) -> None:
    admin, account = _as(kube, tmp_path), _as(kube, tmp_path, "team", "default")
    rules = [_rule("batch", "jobs", "create get"), _rule("", "configmaps", "get", resourceNames=["one"])]
    _grant(admin, "team", "default", *rules)
    account.job("allowed", job={"suspend": True})
    assert account.batch.read_namespaced_job("allowed", "team").metadata.name == "allowed"
    for call in (
        lambda: account.batch.list_namespaced_job("team"),
        lambda: account.batch.read_namespaced_job_status("allowed", "team"),  # a subresource is a right of its own
        lambda: account.batch.delete_namespaced_job("allowed", "team"),
        lambda: account.batch.read_namespaced_job("allowed", "default"),
        lambda: account.core.read_namespaced_config_map("two", "team"),
        lambda: account.core.list_namespaced_secret("team"),
        account.core.list_node,
    ):
        assert refused(call)[0] == 403
    assert refused(account.core.read_namespaced_config_map, "one", "team")[0] == 404


def test_a_central_account_works_in_a_teams_namespace(kube: FakeKube, tmp_path: Path) -> None:
    """The rights that dagster-k8s needs for runs and steps, given to an account of another namespace."""
    admin, central = _as(kube, tmp_path), _as(kube, tmp_path, "default", "default")
    rules = [
        _rule("batch", "jobs", "create delete get list"),
        _rule("batch", "jobs/status", "get"),
        _rule("", "pods", "get list delete"),
        _rule("", "pods/log", "get"),
        _rule("", "events", "list"),
    ]
    _grant(admin, "team", "default", *rules, home="default")
    central.namespace = "team"
    central.job("step")
    [pod] = central.until(lambda: central.pods("step"))
    assert central.status("step").active == 1
    assert central.event("step", "SuccessfulCreate")
    assert refused(central.core.read_namespaced_pod_log, pod.metadata.name, "team")[0] == 400  # allowed, not begun
    central.core.delete_namespaced_pod(pod.metadata.name, "team")
    central.batch.delete_namespaced_job("step", "team")
    body = {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    assert refused(central.core.create_namespaced_pod, "team", body)[0] == 403
    assert refused(central.core.delete_collection_namespaced_pod, "team")[0] == 403


def test_a_cluster_role_is_bound_in_one_namespace_or_all(kube: FakeKube, tmp_path: Path) -> None:
    admin, account = _as(kube, tmp_path), _as(kube, tmp_path, "team", "default")
    role = {"metadata": {"name": "reader"}, "rules": [_rule("", "*", "get list")]}
    admin.rbac.create_cluster_role(role)
    binding = {
        "metadata": {"name": "readers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:serviceaccounts:team"}],
    }
    admin.rbac.create_namespaced_role_binding("team", binding)
    assert account.core.list_namespaced_secret("team").items == []
    assert refused(account.core.list_node)[0] == 403
    admin.rbac.create_cluster_role_binding(binding)
    assert account.core.list_node().items == []
    assert refused(account.core.delete_node, "n")[0] == 403


def test_one_can_ask_what_one_may_do(kube: FakeKube, tmp_path: Path) -> None:
    admin, account = _as(kube, tmp_path), _as(kube, tmp_path, "team", "default")
    _grant(admin, "team", "default", _rule("", "pods/log", "get"))

    def may(cluster: Cluster, verb: str, resource: str, subresource: str = "") -> bool:
        asked = {"namespace": "team", "verb": verb, "resource": resource, "subresource": subresource}
        body: Any = {"spec": {"resourceAttributes": asked}}
        return cluster.authorization.create_self_subject_access_review(body).status.allowed

    assert may(account, "get", "pods", "log")
    assert not may(account, "get", "pods")
    assert may(admin, "get", "pods")


def test_the_token_of_a_deleted_account_is_worth_nothing(kube: FakeKube, tmp_path: Path) -> None:
    admin = _as(kube, tmp_path)
    admin.core.create_namespaced_service_account("team", {"metadata": {"name": "worker"}})
    worker = _as(kube, tmp_path, "team", "worker")
    assert refused(worker.core.list_namespaced_pod, "team")[0] == 403
    admin.core.delete_namespaced_service_account("worker", "team")
    admin.core.create_namespaced_service_account("team", {"metadata": {"name": "worker"}})
    assert refused(worker.core.list_namespaced_pod, "team")[0] == 401


@pytest.mark.slow
def test_a_pod_acts_as_its_service_account(kube: FakeKube, tmp_path: Path) -> None:
    """Its KUBECONFIG holds the account's token: what a mounted token is in a cluster."""
    ask = (
        "import json, os, urllib.error, urllib.request\n"
        "config = json.load(open(os.environ['KUBECONFIG']))\n"
        "url = config['clusters'][0]['cluster']['server'] + '/api/v1/namespaces/team/pods'\n"
        "token = config['users'][0]['user']['token']\n"
        "try:\n"
        "    request = urllib.request.Request(url, headers={'Authorization': 'Bearer ' + token})\n"
        "    print(urllib.request.urlopen(request).status)\n"
        "except urllib.error.HTTPError as error:\n"
        "    print(error.code)\n"
    )
    admin = _as(kube, tmp_path)
    image = Image(path=(str(Path(sys.executable).parent),))
    with ProcessKubelet(admin.kubeconfig, [NodeSpec("n")], {"*": image}, tmp_path / "node", poll=0.05) as kubelet:
        k = Cluster(admin.kubeconfig, kube, kubelet)
        k.namespace = "team"
        command = {"command": ["python", "-c", ask]}
        k.job("before", container=command)
        assert k.settled("before").succeeded == 1
        assert k.log("before") == "403\n"
        _grant(admin, "team", "default", _rule("", "pods", "list"))
        k.job("after", container=command)
        assert k.settled("after").succeeded == 1
        assert k.log("after") == "200\n"
        k.job("without", "echo ${KUBECONFIG:-none}", pod={"automountServiceAccountToken": False})
        assert k.settled("without").succeeded == 1
        assert k.log("without") == "none\n"
