"""Answers that go on: watches, and logs that are followed."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

from tests.kubernetes.double.object_selectors import by_fields, by_labels
from tests.kubernetes.double.objects import ApiError, Key, Obj
from tests.kubernetes.double.routes import Target
from tests.kubernetes.double.store import Change, Store

LOG_URL = "double.test/log-url"
"""Annotation of a node: where its kubelet serves logs."""
_LOG_OPTIONS = ("follow", "tailLines", "timestamps", "limitBytes", "previous")
_WATCH_SECONDS = 300.0
_LOOK_SECONDS = 0.5


class Watch:
    """The events of one watch: first what is there (unless a resourceVersion was given), then each change."""

    def __init__(self, store: Store, target: Target, query: dict[str, str]) -> None:
        self._store, self._target = store, target
        self._labels = by_labels(query.get("labelSelector", ""))
        self._fields = by_fields(query.get("fieldSelector", ""), target.resource.plural)
        self._end = time.monotonic() + float(query.get("timeoutSeconds") or _WATCH_SECONDS)
        given = query.get("resourceVersion") or "0"
        if not given.isdigit():
            raise ApiError(400, f"Invalid value: {given!r}: resourceVersion must be a number")
        self._revision = int(given)

    def run(self, send: Callable[[bytes], None], gone: Callable[[], bool]) -> None:
        """Send events until the time is over or `gone()` says that nobody listens."""
        for event in self._first():
            send(_line(event))
        while time.monotonic() < self._end and not gone():
            with self._store.changed:
                if self._store.revision <= self._revision:
                    self._store.changed.wait(_LOOK_SECONDS)
                try:
                    changes = self._store.since(self._revision)
                except ApiError as error:
                    send(_line({"type": "ERROR", "object": error.status()}))
                    return
            for change in changes:
                self._revision = change.revision
                event = self._event(change)
                if event is not None:
                    send(_line(event))

    def _first(self) -> list[Obj]:
        if self._revision:
            return []
        with self._store.lock:
            self._revision = self._store.revision
            resource = self._target.resource
            objects = self._store.all(resource.plural, resource.group, self._target.namespace)
        return [{"type": "ADDED", "object": obj} for obj in objects if self._selects(obj)]

    def _event(self, change: Change) -> Obj | None:
        """Return what a change is to this watch: an object that no longer fits the selector is deleted to it."""
        resource, key = self._target.resource, change.key
        if (key.group, key.plural) != (resource.group, resource.plural):
            return None
        if self._target.namespace and key.namespace != self._target.namespace:
            return None
        was = change.before is not None and self._selects(change.before)
        now = change.after is not None and self._selects(change.after)
        if now:
            return {"type": "MODIFIED" if was else "ADDED", "object": change.after}
        if not was:
            return None
        last = change.after or change.before or {}
        meta = {**last["metadata"], "resourceVersion": str(change.revision)}
        return {"type": "DELETED", "object": {**last, "metadata": meta}}

    def _selects(self, obj: Obj) -> bool:
        return self._labels(obj) and self._fields(obj)


def _line(event: Obj) -> bytes:
    return json.dumps(event).encode() + b"\n"


def open_log(store: Store, key: Key, query: dict[str, str]) -> urllib.request.Request:
    """Return the request that a kubelet answers with the log. Raises ApiError 400 or 404 while there is none."""
    pod = store.read(key)
    if pod is None:
        raise ApiError(404, f'pods "{key.name}" not found')
    spec, status = pod["spec"], pod.get("status") or {}
    names = [container["name"] for container in [*spec["containers"], *(spec.get("initContainers") or [])]]
    container = query.get("container") or spec["containers"][0]["name"]
    if not query.get("container") and len(spec["containers"]) > 1:
        raise ApiError(
            400, f"a container name must be specified for pod {key.name}, choose one of: [{' '.join(names)}]"
        )
    if container not in names:
        raise ApiError(400, f"container {container} is not valid for pod {key.name}")
    for option in ("sinceSeconds", "sinceTime"):
        if query.get(option):
            raise ApiError(
                400, f"the double does not keep the time of a log line, so it has no {option}; use tailLines"
            )
    entries = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    begun = any(e["name"] == container and {"running", "terminated"} & set(e.get("state") or {}) for e in entries)
    node = store.read(Key("", "nodes", "", spec.get("nodeName") or ""))
    if not begun or node is None:
        raise ApiError(400, f'container "{container}" in pod "{key.name}" is waiting to start: ContainerCreating')
    base = (node["metadata"].get("annotations") or {}).get(LOG_URL)
    if not base:
        raise ApiError(500, f"node {node['metadata']['name']} has no annotation {LOG_URL}: it is no ProcessKubelet's")
    options = {name: query[name] for name in _LOG_OPTIONS if name in query}
    path = f"/containerLogs/{key.namespace}/{key.name}/{container}"
    return urllib.request.Request(f"{base}{path}?{urllib.parse.urlencode(options)}")  # noqa: S310 - loopback


def is_true(text: str | None) -> bool:
    """Read a boolean as Go does: the Python client sends "True"."""
    return str(text).lower() in ("1", "t", "true")
