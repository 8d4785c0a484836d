"""Pod security admission: the levels `baseline` and `restricted` that a namespace enforces by label."""

from tests.kubernetes.double.objects import ApiError, Key, Obj
from tests.kubernetes.double.store import Store

_LABEL = "pod-security.kubernetes.io/enforce"
_RESTRICTED_VOLUMES = {
    "name",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def check(store: Store, pod: Obj) -> None:
    """Refuse a pod that the level of its namespace forbids. Raises ApiError 403 with all violations."""
    meta = pod["metadata"]
    namespace = store.read(Key("", "namespaces", "", meta["namespace"])) or {"metadata": {}}
    labels = namespace["metadata"].get("labels") or {}
    level = labels.get(_LABEL, "privileged")
    found = violations(level, pod["spec"])
    if found:
        version = labels.get(f"{_LABEL}-version", "latest")
        raise ApiError(
            403, f'pods "{meta["name"]}" is forbidden: violates PodSecurity "{level}:{version}": ' + ", ".join(found)
        )


def violations(level: str, spec: Obj) -> list[str]:
    """Return what the pod does that the level forbids, in the server's words."""
    if level == "privileged":
        return []
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    found = [f"host namespaces ({field}=true)" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    host_paths = [volume["name"] for volume in spec.get("volumes") or [] if "hostPath" in volume]
    if host_paths:
        found.append(f'hostPath volumes (volumes "{", ".join(host_paths)}")')
    privileged = [c["name"] for c in containers if (c.get("securityContext") or {}).get("privileged")]
    if privileged:
        found.append(f"privileged ({_named(privileged)} must not set securityContext.privileged=true)")
    return found + (_restricted(spec, containers) if level == "restricted" else [])


def _restricted(spec: Obj, containers: list[Obj]) -> list[str]:
    own = {container["name"]: container.get("securityContext") or {} for container in containers}
    of_pod = spec.get("securityContext") or {}

    def broken(fails: dict[str, bool], rule: str, must: str) -> list[str]:
        names = [name for name, fail in fails.items() if fail]
        return [f"{rule} ({_named(names)} must {must})"] if names else []

    seccomp = {
        name: (context.get("seccompProfile") or of_pod.get("seccompProfile") or {}).get("type")
        for name, context in own.items()
    }
    odd = [v["name"] for v in spec.get("volumes") or [] if set(v) - _RESTRICTED_VOLUMES]
    return [
        *broken(
            {name: context.get("allowPrivilegeEscalation") is not False for name, context in own.items()},
            "allowPrivilegeEscalation != false",
            "set securityContext.allowPrivilegeEscalation=false",
        ),
        *broken(
            {name: "ALL" not in ((c.get("capabilities") or {}).get("drop") or []) for name, c in own.items()},
            "unrestricted capabilities",
            'set securityContext.capabilities.drop=["ALL"]',
        ),
        *broken(
            {name: c.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True for name, c in own.items()},
            "runAsNonRoot != true",
            "set securityContext.runAsNonRoot=true",
        ),
        *broken(
            {name: c.get("runAsUser", of_pod.get("runAsUser")) == 0 for name, c in own.items()},
            "runAsUser=0",
            "not set runAsUser=0",
        ),
        *broken(
            {name: kind not in ("RuntimeDefault", "Localhost") for name, kind in seccomp.items()},
            "seccompProfile",
            'set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"',
        ),
        *([f'restricted volume types (volumes "{", ".join(odd)}")'] if odd else []),
    ]


def _named(names: list[str]) -> str:
    word = "container" if len(names) == 1 else "containers"
    return f"{word} " + ", ".join(f'"{name}"' for name in names)
