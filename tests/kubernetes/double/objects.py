"""What the double knows of Kubernetes objects: the kinds it serves, errors, times and conditions."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

Obj = dict[str, Any]  # one object as JSON has it

TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"
FOREGROUND_FINALIZER = "foregroundDeletion"
GPU = "nvidia.com/gpu"


class Resource(NamedTuple):
    """One kind that the server has."""

    group: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/v1" if self.group else "v1"

    @property
    def qualified(self) -> str:
        """The name as error messages have it: `jobs.batch`, `pods`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


class Key(NamedTuple):
    """Where an object is kept; `namespace` is empty for kinds of the whole cluster."""

    group: str
    plural: str
    namespace: str
    name: str


_ALL = [
    Resource("", "namespaces", "Namespace", namespaced=False, short_names=("ns",)),
    Resource("", "nodes", "Node", namespaced=False, short_names=("no",)),
    Resource("", "pods", "Pod", short_names=("po",)),
    Resource("", "events", "Event", short_names=("ev",)),
    Resource("", "configmaps", "ConfigMap", short_names=("cm",)),
    Resource("", "secrets", "Secret"),
    Resource("", "services", "Service", short_names=("svc",)),
    Resource("", "serviceaccounts", "ServiceAccount", short_names=("sa",)),
    Resource("", "resourcequotas", "ResourceQuota", short_names=("quota",)),
    Resource("", "limitranges", "LimitRange", short_names=("limits",)),
    Resource("", "persistentvolumeclaims", "PersistentVolumeClaim", short_names=("pvc",)),
    Resource("batch", "jobs", "Job"),
    Resource("batch", "cronjobs", "CronJob", short_names=("cj",)),
    Resource("apps", "deployments", "Deployment", short_names=("deploy",)),
    Resource("apps", "statefulsets", "StatefulSet", short_names=("sts",)),
    Resource("policy", "poddisruptionbudgets", "PodDisruptionBudget", short_names=("pdb",)),
    Resource("networking.k8s.io", "networkpolicies", "NetworkPolicy", short_names=("netpol",)),
    Resource("networking.k8s.io", "ingresses", "Ingress", short_names=("ing",)),
    Resource("scheduling.k8s.io", "priorityclasses", "PriorityClass", namespaced=False, short_names=("pc",)),
    Resource("coordination.k8s.io", "leases", "Lease"),
    Resource("rbac.authorization.k8s.io", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "rolebindings", "RoleBinding"),
    Resource("rbac.authorization.k8s.io", "clusterroles", "ClusterRole", namespaced=False),
    Resource("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
]
RESOURCES = {(resource.group, resource.plural): resource for resource in _ALL}
WITH_STATUS = {"namespaces", "nodes", "pods", "jobs", "cronjobs", "deployments", "statefulsets", "resourcequotas"}
"""Kinds whose status is a subresource: writes of the object leave it, writes of the status leave the rest."""

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class ApiError(Exception):
    """An answer that is no success: HTTP code, reason word and message of Kubernetes' `Status` object."""

    def __init__(self, code: int, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.reason = reason or _REASONS.get(code, "Unknown")

    def status(self) -> Obj:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }


def not_found(resource: Resource, name: str) -> ApiError:
    return ApiError(404, f'{resource.qualified} "{name}" not found')


def invalid(resource: Resource, name: str, *problems: str) -> ApiError:
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return ApiError(422, f'{kind} "{name}" is invalid: {"; ".join(problems)}')


def now() -> str:
    """Return the time as Kubernetes writes it: UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(stamp: str) -> float:
    return (datetime.now(UTC) - datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)).total_seconds()


def condition(obj: Obj, type_: str) -> Obj | None:
    """Return the status condition of this type that is True, if there is one."""
    for entry in (obj.get("status") or {}).get("conditions") or []:
        if entry["type"] == type_ and entry["status"] == "True":
            return entry
    return None


def set_condition(status: Obj, type_: str, value: str, *, reason: str = "", message: str = "") -> None:
    """Set a condition; its time of transition moves only when its value does."""
    conditions = status.setdefault("conditions", [])
    entry: Obj = {"type": type_, "status": value, "lastTransitionTime": now()}
    if reason:
        entry["reason"] = reason
    if message:
        entry["message"] = message
    for position, old in enumerate(conditions):
        if old["type"] == type_:
            if old["status"] == value:
                entry["lastTransitionTime"] = old["lastTransitionTime"]
            conditions[position] = entry
            return
    conditions.append(entry)


def without_none(value: Any) -> Any:
    """Return a body without the fields that say null: a server takes them as not given."""
    if isinstance(value, dict):
        return {name: without_none(inner) for name, inner in value.items() if inner is not None}
    return [without_none(inner) for inner in value] if isinstance(value, list) else value


def phase_of(pod: Obj) -> str:
    return (pod.get("status") or {}).get("phase", "Pending")


def is_finished(pod: Obj) -> bool:
    return phase_of(pod) in ("Succeeded", "Failed")


def is_terminating(obj: Obj) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def owners(obj: Obj) -> list[Obj]:
    return obj["metadata"].get("ownerReferences") or []


def key_of(obj: Obj) -> Key:
    group, _, version = obj["apiVersion"].rpartition("/")
    del version
    for resource in _ALL:
        if (resource.group, resource.kind) == (group, obj["kind"]):
            return Key(group, resource.plural, obj["metadata"].get("namespace") or "", obj["metadata"]["name"])
    raise ApiError(404, "the server could not find the requested resource")
