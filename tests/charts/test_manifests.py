"""What the chart makes: valid for three versions of Kubernetes, and nothing that a security review would refuse."""

import json
import time
from typing import Any

import helm_python
import pytest
import yaml

from tests.charts.policy import (
    VERSIONS,
    assert_accounts_are_known,
    assert_images_have_versions,
    assert_names_are_unique,
    assert_probed,
    assert_restricted,
    assert_sized,
    assert_valid,
    containers,
    may_reach,
    selects,
)
from tests.charts.rendering import (
    CHART,
    RELEASE,
    Object,
    installation,
    of,
    only,
    pod_specs,
    render,
    rendered,
)

KINDS = {
    "ConfigMap",
    "CronJob",
    "Deployment",
    "LimitRange",
    "Namespace",
    "NetworkPolicy",
    "PriorityClass",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "Service",
    "ServiceAccount",
}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(version: str) -> None:
    # One of each kind and place is enough: the teams' objects differ in names and numbers.
    objects = {
        (one["kind"], one["metadata"]["name"]): one
        for one in render(installation(teams=[{"name": "flights", "quota": {"gpus": 2}}]))
    }

    assert_valid(list(objects.values()), version)

    assert {kind for kind, _ in objects} == KINDS


def test_helm_finds_nothing_to_complain_of() -> None:
    report = helm_python.lint(str(CHART), installation(), strict=True)

    # The official chart is fetched by `helm dependency build`; it is not in the repository.
    assert report["errors"] == ["chart directory is missing these dependencies: dagster"]
    assert [m["error"] for m in report["messages"] if m["severity"] >= 2] == report["errors"]


def test_every_name_is_there_once_and_every_object_has_its_namespace() -> None:
    assert_names_are_unique(rendered())


def test_pods_are_held_to_the_restricted_standard() -> None:
    assert_restricted(rendered())


def test_every_container_asks_for_what_it_may_have() -> None:
    assert_sized(rendered())


def test_every_server_is_probed() -> None:
    assert_probed(rendered())


def test_no_image_is_without_a_version() -> None:
    assert_images_have_versions(rendered())


def test_a_digest_wins_over_the_tag() -> None:
    digest = "sha256:" + "a" * 64
    values = installation(image={"repository": "registry.example/x", "tag": "1", "digest": digest})

    images = {container["image"] for _, _, container in containers(render(values))}

    assert images == {f"registry.example/x@{digest}"}


def test_a_teams_own_tag_wins_over_everybodys_digest() -> None:
    digest = "sha256:" + "a" * 64
    values = installation(
        image={"repository": "registry.example/x", "tag": "1", "digest": digest},
        teams=[{"name": "births"}, {"name": "flights", "image": {"tag": "2"}}],
    )
    objects = render(values)

    [server] = of(objects, "Deployment", namespace="team-flights")
    container = server["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example/x:2"
    assert {"name": "DAGSTER_CURRENT_IMAGE", "value": "registry.example/x:2"} in container["env"]
    [server] = of(objects, "Deployment", namespace="team-births")
    assert server["spec"]["template"]["spec"]["containers"][0]["image"].endswith(digest)


def test_teams_may_have_an_image_in_common_that_is_not_the_platforms() -> None:
    digest = "sha256:" + "a" * 64
    values = installation(
        teamDefaults={"image": {"repository": "registry.example/teams", "digest": digest}},
        teams=[{"name": "births"}, {"name": "flights", "image": {"tag": "2"}}],
    )
    images = {what.split("/")[0]: container["image"] for what, _, container in containers(render(values))}

    assert images == {
        RELEASE: "registry.example/ml-assets:0.1.0",
        "team-births": f"registry.example/teams@{digest}",
        "team-flights": "registry.example/teams:2",
    }


def test_no_pod_uses_the_default_account_and_no_account_hands_out_tokens_by_itself() -> None:
    objects = rendered()

    assert_accounts_are_known(objects)

    assert {a["metadata"]["name"] for a in of(objects, "ServiceAccount", namespace="team-births")} == {
        "code-server",
        "run-worker",
        "step",
    }


def test_every_pod_may_pull_from_a_private_registry() -> None:
    """Webserver and daemon through their account: the official chart does not see our list."""
    secrets = [{"name": "registry-login"}]
    objects = render(installation(imagePullSecrets=secrets))

    account = only(objects, "ServiceAccount", "dagster", namespace=RELEASE)
    assert account["imagePullSecrets"] == secrets
    assert "imagePullSecrets" not in only(rendered(), "ServiceAccount", "dagster", namespace=RELEASE)
    for what, spec in pod_specs(objects):
        assert spec["imagePullSecrets"] == secrets, what


def test_webserver_and_daemon_may_have_a_clouds_role() -> None:
    """The official chart would put it on an account of its own, which is not made."""
    values, role = installation(), {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/dagster"}
    values["dagster"]["serviceAccount"] = {"create": False, "annotations": role}

    account = only(render(values), "ServiceAccount", "dagster", namespace=RELEASE)

    assert account["metadata"]["annotations"] == role
    assert "annotations" not in only(rendered(), "ServiceAccount", "dagster", namespace=RELEASE)["metadata"]


def test_every_namespace_is_closed_but_for_what_is_named() -> None:
    objects = rendered()
    for namespace in (RELEASE, "team-births", "team-flights"):
        closed = only(objects, "NetworkPolicy", "default-deny", namespace=namespace)["spec"]
        assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in of(objects, "NetworkPolicy"):
        for rule in [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]:
            assert rule["ports"], policy["metadata"]
            assert rule.get("from") or rule.get("to"), policy["metadata"]


def test_only_run_workers_reach_kubernetes() -> None:
    objects = rendered()
    allowed = [
        policy["spec"]["podSelector"]
        for policy in of(objects, "NetworkPolicy", namespace="team-births")
        for rule in policy["spec"].get("egress", [])
        if {"ipBlock": {"cidr": "10.0.0.1/32"}} in rule["to"]
    ]

    assert allowed == [{"matchLabels": {"app.kubernetes.io/component": "run_worker"}}]


def test_only_webserver_and_daemon_reach_a_code_server() -> None:
    [rule] = only(rendered(), "NetworkPolicy", "code-server", namespace="team-births")["spec"]["ingress"]

    assert rule["ports"] == [{"port": 3030, "protocol": "TCP"}]
    [source] = rule["from"]
    assert source["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": RELEASE}
    programs = ["dagster-webserver", "dagster-webserver-read-only", "dagster-daemon"]
    assert source["podSelector"]["matchExpressions"][0]["values"] == programs


def test_the_webserver_that_only_reads_is_let_out_and_in_like_the_other() -> None:
    """`dagsterWebserver.enableReadOnly` makes one whose pods have another label."""
    network = installation()["network"] | {"webserverFrom": ["login-proxy"]}
    objects = render(installation(network=network))
    labels = {"component": "dagster-webserver-read-only"}

    reached = may_reach(objects, RELEASE, labels)

    assert reached == may_reach(objects, RELEASE, {"component": "dagster-webserver"}) != []
    assert selects(only(objects, "NetworkPolicy", "webserver")["spec"]["podSelector"], labels)


def test_the_webserver_is_closed_until_somebody_is_named() -> None:
    assert of(rendered(), "NetworkPolicy", "webserver") == []

    network = installation()["network"] | {"webserverFrom": ["login-proxy"]}
    [rule] = only(render(installation(network=network)), "NetworkPolicy", "webserver")["spec"]["ingress"]

    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "login-proxy"}}}]
    assert rule["ports"] == [{"port": 3000, "protocol": "TCP"}]


def test_gpus_are_the_quotas_alone() -> None:
    """No pod of the chart asks for one; a team has those of its quota, and none unless somebody gave it some."""
    objects = rendered()
    quota = {
        namespace: only(objects, "ResourceQuota", "team", namespace=namespace)["spec"]["hard"]
        for namespace in ("team-births", "team-flights")
    }

    assert quota["team-births"]["requests.nvidia.com/gpu"] == "0"
    assert quota["team-flights"]["requests.nvidia.com/gpu"] == "2"
    assert [what for what, _, c in containers(objects) if "nvidia.com/gpu" in str(c["resources"])] == []
    for limits in of(objects, "LimitRange"):  # a `max` of GPUs would become everybody's default
        assert "nvidia" not in str(limits["spec"])


def test_nobody_takes_the_clusters_own_priorities() -> None:
    objects = rendered()
    for namespace in ("team-births", "team-flights"):
        spec = only(objects, "ResourceQuota", "no-system-priority", namespace=namespace)["spec"]
        assert spec["hard"] == {"pods": "0"}
        assert spec["scopeSelector"]["matchExpressions"][0]["values"] == [
            "system-cluster-critical",
            "system-node-critical",
        ]
    assert all(one["globalDefault"] is False for one in of(objects, "PriorityClass"))


def test_a_step_without_a_limit_of_cores_gets_the_largest() -> None:
    """A lower default would refuse steps: Kubernetes takes no limit below the request."""
    for limits in of(rendered(), "LimitRange", "team"):
        [container] = limits["spec"]["limits"]
        assert container["default"]["cpu"] == container["max"]["cpu"]
        assert container["defaultRequest"].keys() == {"cpu", "memory"}


def test_namespaces_enforce_the_standard_and_outlive_their_entry() -> None:
    for namespace in of(rendered(), "Namespace"):
        labels = namespace["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        assert labels["pod-security.kubernetes.io/enforce-version"] == "v1.31"
        assert namespace["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_what_bounds_a_team_outlives_its_entry_and_what_allows_goes() -> None:
    """Helm removes the rest: pods that still run are neither without a quota nor on an open network."""
    kept = {
        (one["kind"], one["metadata"]["name"])
        for one in rendered()
        if "helm.sh/resource-policy" in one["metadata"].get("annotations", {}) and one["kind"] != "Namespace"
    }

    assert kept == {
        ("LimitRange", "team"),
        ("NetworkPolicy", "default-deny"),
        ("ResourceQuota", "no-system-priority"),
        ("ResourceQuota", "team"),
    }
    release = only(rendered(), "NetworkPolicy", "default-deny", namespace=RELEASE)
    assert "annotations" not in release["metadata"]


def test_a_variable_or_setting_that_changes_replaces_the_code_server() -> None:
    def mark(values: Object) -> Any:
        server = only(render(values), "Deployment", "code-server", namespace="team-births")
        return server["spec"]["template"]["metadata"]["annotations"]

    changed = installation()
    changed["environment"]["ML_ASSETS_DATA"] = "s3://elsewhere"

    assert mark(installation()) != mark(changed)

    moved = installation()
    moved["dagster"]["postgresql"]["postgresqlHost"] = "other.example"  # in dagster.yaml, which it reads too
    assert mark(installation()) != mark(moved)


def test_a_number_stays_as_it_was_written() -> None:
    """Helm holds numbers as floats, which it writes as 1e+06 unless somebody sees to it."""
    written = {"ROWS": 1_000_000, "BYTES": 12_345_678, "SHARE": 0.5, "ON": True, "TEXT": 'a "b": c'}
    values = installation()
    values["environment"] |= written
    data = only(render(values), "ConfigMap", "ml-assets", namespace="team-births")["data"]

    assert {name: data[name] for name in written} == {
        "ROWS": "1000000",
        "BYTES": "12345678",
        "SHARE": "0.5",
        "ON": "true",
        "TEXT": 'a "b": c',
    }


@pytest.mark.parametrize("name", ["no", "on", "null"])
def test_a_team_may_have_a_name_that_is_no_text_in_yaml(name: str) -> None:
    objects = render(installation(teams=[{"name": name}]))

    for one in of(objects, "Deployment") + of(objects, "Namespace"):
        assert one["metadata"]["labels"]["ml-assets/team"] == name
    [server] = of(objects, "Deployment")
    assert server["spec"]["template"]["metadata"]["labels"]["ml-assets/team"] == name
    variables = {v["name"]: v.get("value") for v in server["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert json.loads(variables["DAGSTER_CONTAINER_CONTEXT"])["k8s"]["labels"] == {"ml-assets/team": name}
    workspace = yaml.safe_load(only(objects, "ConfigMap", "ml-assets-workspace")["data"]["workspace.yaml"])
    assert workspace["load_from"][0]["grpc_server"]["location_name"] == name


def test_the_notes_name_the_service_that_there_is() -> None:
    values = installation()
    values["dagster"]["dagsterWebserver"] |= {"nameOverride": "ui", "service": {"port": 8080}}
    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(values, name="r" * 61, namespace=RELEASE)
    [notes] = [text for path, text in files.items() if path.endswith("NOTES.txt")]

    assert notes.startswith("2 team(s): flights, births.")
    assert f"port-forward service/{'r' * 61}-u 3000:8080" in notes


def test_fifty_teams_render_quickly() -> None:
    began = time.process_time()
    objects = render(installation(teams=[{"name": f"team_{n}", "quota": {"gpus": n % 5}} for n in range(50)]))

    assert time.process_time() - began < 10
    assert len(of(objects, "Deployment")) == 50
    assert len({o["metadata"]["namespace"] for o in of(objects, "NetworkPolicy", "default-deny")}) == 51


def test_an_installation_without_teams_renders() -> None:
    objects = render(installation(teams=[]))

    assert only(objects, "ConfigMap", "ml-assets-workspace")["data"]["workspace.yaml"].split() == ["load_from:", "[]"]
    assert only(objects, "CronJob", "reaper")["spec"]["suspend"] is True
    assert of(objects, "Namespace") == []
