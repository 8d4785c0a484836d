"""What a security review asks of every pod and account that the chart makes, its own or the official chart's."""

from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes_validate

from tests.charts.rendering import RELEASE, Object, of, pod_specs

VERSIONS = ("1.31", "1.34", "1.37")
"""Kubernetes versions whose schemas every object is checked against."""
CLUSTER_WIDE = {"Namespace", "PriorityClass"}


def containers(objects: list[Object]) -> list[tuple[str, Object, Object]]:
    """Return (what it is, the pod's spec, the container) of each container."""
    return [
        (f"{what} {container['name']}", spec, container)
        for what, spec in pod_specs(objects)
        for container in [*spec.get("initContainers", []), *spec["containers"]]
    ]


def assert_valid(objects: list[Object], version: str) -> None:
    """Fail at an object that a version of Kubernetes would not take as it is written."""
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)


def assert_names_are_unique(objects: list[Object]) -> None:
    """Fail when two objects share a name, or one is in a namespace that nobody makes."""
    names = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects]
    assert len(names) == len(set(names)), sorted({str(name) for name in names if names.count(name) > 1})
    assert {kind for kind, namespace, _ in names if namespace is None} == CLUSTER_WIDE
    made = {o["metadata"]["name"] for o in of(objects, "Namespace")}
    assert {namespace for _, namespace, _ in names} == {None, RELEASE, *made}


def assert_restricted(objects: list[Object]) -> None:
    """Fail at a container that the pod security standard `restricted` refuses, or that writes to its image."""
    found = containers(objects)
    assert found
    for what, pod, container in found:
        security = pod["securityContext"] | container["securityContext"]
        assert security["runAsNonRoot"] is True, what
        assert security["runAsUser"] >= 10000, what
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, what
        assert security["allowPrivilegeEscalation"] is False, what
        assert security["readOnlyRootFilesystem"] is True, what
        assert security["capabilities"] == {"drop": ["ALL"]}, what
        assert not security.get("privileged"), what
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), what
        kinds = {kind for volume in pod.get("volumes", []) for kind in set(volume) - {"name"}}
        assert kinds <= {"emptyDir", "configMap", "secret"}, what
        assert all("hostPort" not in port for port in container.get("ports", [])), what


def assert_sized(objects: list[Object]) -> None:
    """Fail at a container that does not say what it needs and what it may have."""
    for what, _, container in containers(objects):
        resources = container["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}, what
        assert set(resources["limits"]) == {"cpu", "memory"}, what
        # Memory cannot be taken back: what is not asked for may be gone when it is needed.
        if "code-server" in what:
            assert resources["requests"]["memory"] == resources["limits"]["memory"], what


def assert_images_have_versions(objects: list[Object]) -> None:
    """Fail at an image that may be another one tomorrow."""
    for what, _, container in containers(objects):
        version = container["image"].rpartition(":")[2]
        assert version not in {"", "latest"}, what
        assert "/" not in version, what


def assert_accounts_are_known(objects: list[Object]) -> None:
    """Fail at a pod of the default account, or without a word on its token; and at an account that hands out tokens."""
    known = {(o["metadata"]["namespace"], o["metadata"]["name"]) for o in of(objects, "ServiceAccount")}
    for what, spec in pod_specs(objects):
        assert (what.split("/")[0], spec["serviceAccountName"]) in known, what
        assert isinstance(spec["automountServiceAccountToken"], bool), what
    for account in of(objects, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False, account["metadata"]


def assert_probed(objects: list[Object]) -> None:
    """Fail at a server that nobody asks whether it is well, or at a port that it does not have."""
    servers = [one for one in of(objects, "Deployment") if one["metadata"]["name"] != "dagster-daemon"]
    assert servers
    for server in servers:
        [container] = server["spec"]["template"]["spec"]["containers"]
        ports = {key for port in container["ports"] for key in (port["name"], port["containerPort"])}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container[kind]
            [how] = [probe[way] for way in ("grpc", "httpGet") if way in probe]
            assert how["port"] in ports, (server["metadata"], kind)


def needed(objects: list[Object]) -> set[tuple[str, str, str]]:
    """Return (namespace, kind, name) of each Secret and ConfigMap that a pod cannot start without."""
    kinds = {"secretKeyRef": "Secret", "secretRef": "Secret", "configMapRef": "ConfigMap", "configMap": "ConfigMap"}

    def below(node: Any) -> Iterator[tuple[str, str]]:
        if isinstance(node, dict):
            for key, child in node.items():
                if key in kinds and "name" in child:
                    yield kinds[key], child["name"]
                yield from below(child)
        elif isinstance(node, list):
            for child in node:
                yield from below(child)

    return {(what.split("/")[0], kind, name) for what, spec in pod_specs(objects) for kind, name in below(spec)}


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Return whether a selector takes an object with labels, for the operators that the chart uses."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions", []):
        if one["operator"] == "Exists":
            if one["key"] not in labels:
                return False
        elif one["operator"] != "In" or labels.get(one["key"]) not in one["values"]:
            return False
    return True


def may_reach(objects: list[Object], namespace: str, labels: Mapping[str, str]) -> list[Object]:
    """Return the rules of going out that hold for a pod with labels; it may do nothing else."""
    return [
        rule
        for policy in of(objects, "NetworkPolicy", namespace=namespace)
        if "Egress" in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get("egress", [])
    ]
