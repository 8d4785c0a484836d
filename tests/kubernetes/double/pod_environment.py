"""The environment of a container's process: its image's, its pod's, and what Secrets and ConfigMaps say."""

import base64
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.kubernetes.double.objects import ApiError, Obj

_TOKEN_SECONDS = 86_400


class ConfigError(Exception):
    """A Secret, ConfigMap or key that the container needs is not there; the pod waits for it."""


class PodEnvironment:
    """Builds environments.

    Args:
        rest: Requests to the API server.
        host: The address of the API server, as in the kubeconfig.
        folder: Where kubeconfigs of pods are kept.
        base: Variables that every container has.
        path_map: Values of variables that are replaced: what a path inside the image is on this machine.
    """

    def __init__(
        self, rest: Callable[..., Any], host: str, folder: Path, base: Mapping[str, str], path_map: Mapping[str, str]
    ) -> None:
        self._rest, self._host, self._folder = rest, host, folder
        self._base, self._path_map = dict(base), dict(path_map)
        self._kubeconfigs: dict[tuple[str, str], str] = {}

    def of(self, pod: Obj, container: Obj, image_env: Mapping[str, str], image_path: tuple[str, ...]) -> dict[str, str]:
        """Return the variables. Raises ConfigError for a reference to what is not there."""
        namespace, spec = pod["metadata"]["namespace"], pod["spec"]
        env: dict[str, str] = {**self._base, **image_env, "HOSTNAME": pod["metadata"]["name"]}
        address, _, port = self._host.partition("://")[2].partition(":")
        env |= {"KUBERNETES_SERVICE_HOST": address, "KUBERNETES_SERVICE_PORT": port}
        if spec.get("automountServiceAccountToken") is not False:
            kubeconfig = self._kubeconfig(namespace, spec.get("serviceAccountName") or "default")
            if kubeconfig:
                env.setdefault("KUBECONFIG", kubeconfig)
        if image_path:
            env["PATH"] = os.pathsep.join([*image_path, env["PATH"]])
        for source in container.get("envFrom") or []:
            plural = "configmaps" if "configMapRef" in source else "secrets"
            reference = source.get("configMapRef") or source["secretRef"]
            for name, value in self._data(namespace, plural, reference).items():
                env[source.get("prefix", "") + name] = value
        for entry in container.get("env") or []:
            value = self._value(pod, entry, env)
            if value is not None:
                env[entry["name"]] = value
        return {name: self._path_map.get(value) or value for name, value in env.items()}

    def _value(self, pod: Obj, entry: Obj, env: Mapping[str, str]) -> str | None:
        source = entry.get("valueFrom") or {}
        if "fieldRef" in source:
            return field_of(pod, source["fieldRef"]["fieldPath"])
        for field, plural in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
            if field in source:
                reference, namespace = source[field], pod["metadata"]["namespace"]
                data = self._data(namespace, plural, reference)
                if reference["key"] not in data and not reference.get("optional"):
                    raise ConfigError(
                        f"couldn't find key {reference['key']} in {plural[:-1]} {namespace}/{reference['name']}"
                    )
                return data.get(reference["key"])
        return expand(entry.get("value") or "", env)

    def _data(self, namespace: str, plural: str, reference: Obj) -> dict[str, str]:
        try:
            obj = self._rest("GET", f"/api/v1/namespaces/{namespace}/{plural}/{reference['name']}")
        except ApiError as error:
            if error.code == 404 and reference.get("optional"):
                return {}
            if error.code == 404:
                raise ConfigError(f'{plural[:-1]} "{reference["name"]}" not found') from None
            raise
        data = dict(obj.get("data") or {})
        if plural == "secrets":
            data = {name: base64.b64decode(value).decode() for name, value in data.items()}
            data |= obj.get("stringData") or {}
        return data

    def _kubeconfig(self, namespace: str, account: str) -> str:
        """Return a kubeconfig with the account's token: what a mounted token is to a process without mounts."""
        found = self._kubeconfigs.get((namespace, account))
        if found:
            return found
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}"
        try:
            if self._rest("GET", path).get("automountServiceAccountToken") is False:
                return ""
            answer = self._rest("POST", f"{path}/token", {"spec": {"expirationSeconds": _TOKEN_SECONDS}})
        except ApiError:
            return ""  # the account went after the pod was admitted
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "pod",
            "clusters": [{"name": "pod", "cluster": {"server": self._host}}],
            "users": [{"name": "pod", "user": {"token": answer["status"]["token"]}}],
            "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod", "namespace": namespace}}],
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._folder / f"{namespace}.{account}.json"
        target.touch(mode=0o600)
        target.write_text(json.dumps(config))
        self._kubeconfigs[(namespace, account)] = str(target)
        return str(target)


def field_of(pod: Obj, path: str) -> str:
    """Return a field of the downward API."""
    match = re.match(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
    if match:
        return (pod["metadata"].get(match[1]) or {}).get(match[2], "")
    if path in ("status.podIP", "status.hostIP"):
        return "127.0.0.1"
    value: Any = pod
    for part in path.split("."):
        value = (value or {}).get(part)
    return str(value or "")


def expand(text: str, env: Mapping[str, str]) -> str:
    """Return the text with $(NAME) replaced where the variable is known; $$ is one $."""
    pattern = r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)"
    return re.sub(pattern, lambda match: "$" if match[0] == "$$" else env.get(match[1], match[0]), text)
