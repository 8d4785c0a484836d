"""From a path to what it names, and the pages that list what the server has."""

import re
from dataclasses import dataclass

from tests.kubernetes.double.objects import RESOURCES, WITH_STATUS, ApiError, Key, Obj, Resource

_PATH = re.compile(
    r"^/(?:api/v1|apis/(?P<group>[^/]+)/v1)(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?$"
)
_NAMESPACE = re.compile(r"^/api/v1/namespaces/(?P<name>[^/]+)(?:/(?P<sub>status|finalize))?$")
_SUBRESOURCES = {"pods": ("log", "eviction"), "serviceaccounts": ("token",)}
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a request is about; `name` is empty for a collection, `namespace` for all namespaces."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        return Key(self.resource.group, self.resource.plural, self.namespace, self.name)


def target_of(path: str) -> Target:
    """Return what a path names. Raises ApiError 404 for a kind the double has not."""
    match = _NAMESPACE.match(path)
    if match:
        resource = RESOURCES[("", "namespaces")]
        return Target(resource=resource, name=match["name"], subresource=match["sub"] or "")
    match = _PATH.match(path)
    found = RESOURCES.get((match["group"] or "", match["plural"])) if match else None
    if match is None or found is None:
        raise ApiError(
            404,
            f"the server could not find the requested resource ({path}); the kinds that the double has are listed in "
            "tests/kubernetes/double/objects.py",
        )
    subresource = match["sub"] or ""
    known = [*_SUBRESOURCES.get(found.plural, ()), *(["status"] if found.plural in WITH_STATUS else [])]
    if subresource and subresource not in known:
        raise ApiError(
            404,
            f"the server could not find the requested resource ({path}); "
            f"{found.plural} have: {', '.join(known) or 'none'}",
        )
    if not found.namespaced and match["ns"]:
        raise ApiError(
            404, f"the server could not find the requested resource ({path}): {found.plural} have no namespace"
        )
    return Target(resource=found, namespace=match["ns"] or "", name=match["name"] or "", subresource=subresource)


def verb_of(method: str, target: Target, *, watch: bool) -> str:
    """Return the verb that authorization has for a request."""
    if method == "GET":
        return "watch" if watch else "get" if target.name else "list"
    if method == "DELETE":
        return "delete" if target.name else "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}[method]


def discovery(path: str) -> Obj | None:
    """Return the discovery page at a path, or None when there is none."""
    if path == "/version":
        return {"major": "1", "minor": "36", "gitVersion": "v1.36.0+double", "platform": "linux/amd64"}
    if path == "/api":
        return {"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"]}
    if path == "/apis":
        groups = sorted({group for group, _ in RESOURCES if group})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in groups]}
    match = re.fullmatch(r"/apis/([^/]+)(/v1)?|/api/v1", path)
    if match is None:
        return None
    group = match[1] or ""
    if group and not any(name == group for name, _ in RESOURCES):
        return None
    if group and not match[2]:
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(group)}
    entries = [entry for (name, _), resource in RESOURCES.items() if name == group for entry in _entries(resource)]
    version = f"{group}/v1" if group else "v1"
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": entries}


def _group(name: str) -> Obj:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _entries(resource: Resource) -> list[Obj]:
    entry: Obj = {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": _VERBS,
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    subresources = [*_SUBRESOURCES.get(resource.plural, ()), *(["status"] if resource.plural in WITH_STATUS else [])]
    verbs = {"log": ["get"], "eviction": ["create"], "token": ["create"], "status": ["get", "patch", "update"]}
    kinds = {"eviction": "Eviction", "token": "TokenRequest"}
    return [
        entry,
        *(
            {
                "name": f"{resource.plural}/{name}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": kinds.get(name, resource.kind),
                "verbs": verbs[name],
            }
            for name in subresources
        ),
    ]
