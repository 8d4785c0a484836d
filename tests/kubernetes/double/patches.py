"""The three ways to patch an object: JSON patch, merge patch, and Kubernetes' strategic merge patch."""

import copy
from typing import Any

from tests.kubernetes.double.objects import ApiError, Obj

_MERGE_KEYS = {
    "conditions": "type",
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
    "ownerReferences": "uid",
    "secrets": "name",
    "taints": "key",
}
"""Lists that a strategic patch merges item by item, with the field that tells items apart; all others are replaced."""
_SETS = {"finalizers"}


def apply_patch(content_type: str, obj: Obj, patch: Any) -> Obj:
    """Return the patched object; the given one stays as it is. Raises ApiError for a patch that does not fit."""
    if content_type == "application/json-patch+json":
        return _json_patch(obj, patch)
    if content_type == "application/merge-patch+json":
        return merge(obj, patch)
    if content_type == "application/strategic-merge-patch+json":
        return _strategic(obj, patch)
    raise ApiError(415, f"the body of the request was in an unknown format - {content_type or 'none'}")


def merge(base: Any, patch: Any) -> Any:
    """Return `base` with an RFC 7386 merge patch."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(base) if isinstance(base, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def _strategic(base: Any, patch: Any) -> Any:
    if not isinstance(patch, dict) or not isinstance(base, dict):
        return merge(base, patch)
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    result = dict(base)
    for name, value in patch.items():
        if name.startswith("$setElementOrder/"):
            continue
        if name.startswith("$deleteFromPrimitiveList/"):
            target = name.partition("/")[2]
            result[target] = [item for item in result.get(target) or [] if item not in value]
        elif value is None:
            result.pop(name, None)
        elif isinstance(value, list) and name in _SETS:
            old = result.get(name) or []
            result[name] = [*old, *(item for item in value if item not in old)]
        elif isinstance(value, list) and name in _MERGE_KEYS and all(isinstance(item, dict) for item in value):
            result[name] = _strategic_list(result.get(name) or [], value, _MERGE_KEYS[name])
        else:
            result[name] = _strategic(result.get(name), value)
    return result


def _strategic_list(base: list[Obj], patch: list[Obj], key: str) -> list[Obj]:
    result = [dict(item) for item in base]
    for item in patch:
        position = next((i for i, old in enumerate(result) if old.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            if position is not None:
                del result[position]
        elif position is None:
            result.append(copy.deepcopy(item))
        else:
            result[position] = _strategic(result[position], item)
    return result


def _json_patch(obj: Obj, patch: Any) -> Obj:
    """RFC 6902, all operations."""
    result: Any = copy.deepcopy(obj)
    if not isinstance(patch, list):
        raise ApiError(400, "a JSON patch is a list of operations")
    for step in patch:
        try:
            operation, path = step["op"], _pointer(step["path"])
            if operation in ("move", "copy"):
                source = _pointer(step["from"])
                value = copy.deepcopy(_read(result, source))
                if operation == "move":
                    _drop(result, source)
                _put(result, path, value)
            elif operation == "test":
                if _read(result, path) != step["value"]:
                    raise ApiError(422, f"the server rejected our request: testing path {step['path']} failed")
            elif operation == "remove":
                _drop(result, path)
            elif operation == "replace":
                _read(result, path)
                _drop(result, path)
                _put(result, path, step["value"])
            elif operation == "add":
                _put(result, path, step["value"])
            else:
                raise ApiError(400, f"unexpected JSON patch operation {operation!r}")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ApiError(
                422, f"the server rejected our request: {step!r} does not fit the object: {error!r}"
            ) from None
    return result


def _pointer(text: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _read(target: Any, path: list[str]) -> Any:
    for part in path:
        target = target[int(part)] if isinstance(target, list) else target[part]
    return target


def _put(target: Any, path: list[str], value: Any) -> None:
    parent = _read(target, path[:-1])
    if isinstance(parent, list):
        parent.insert(len(parent) if path[-1] == "-" else int(path[-1]), value)
    else:
        parent[path[-1]] = value


def _drop(target: Any, path: list[str]) -> None:
    parent = _read(target, path[:-1])
    if isinstance(parent, list):
        del parent[int(path[-1])]
    else:
        del parent[path[-1]]
