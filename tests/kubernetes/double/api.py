"""The operations of the API server: what create, update, patch and delete mean, whoever calls them."""

import copy
import random
import uuid
from collections.abc import Callable
from typing import Any

from tests.kubernetes.double import validation
from tests.kubernetes.double.object_selectors import by_fields, by_labels
from tests.kubernetes.double.objects import (
    FOREGROUND_FINALIZER,
    RESOURCES,
    WITH_STATUS,
    ApiError,
    Key,
    Obj,
    invalid,
    is_finished,
    is_terminating,
    key_of,
    not_found,
    now,
    owners,
    set_condition,
)
from tests.kubernetes.double.patches import apply_patch
from tests.kubernetes.double.store import Store

_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_MUTABLE_METADATA = ("labels", "annotations", "finalizers", "ownerReferences")

Admission = Callable[[Key, Obj], None]


class Api:
    """Create, read, update and delete over a store, after `admit` has defaulted, checked or refused new objects."""

    def __init__(self, store: Store, admit: Admission, *, seed: int = 0, service_accounts: bool = True) -> None:
        self.store = store
        self._admit = admit
        self._random = random.Random(seed)  # noqa: S311 - names of pods, no secrets
        self._service_accounts = service_accounts

    def suffix(self) -> str:
        """Return five letters that make a generated name its own."""
        return "".join(self._random.choice(_SUFFIX_LETTERS) for _ in range(5))

    def list(self, plural: str, group: str = "", namespace: str = "", labels: str = "", fields: str = "") -> list[Obj]:
        has_labels, has_fields = by_labels(labels), by_fields(fields, plural)
        return [obj for obj in self.store.all(plural, group, namespace) if has_labels(obj) and has_fields(obj)]

    def get(self, key: Key) -> Obj:
        obj = self.store.read(key)
        if obj is None:
            raise not_found(RESOURCES[(key.group, key.plural)], key.name)
        return obj

    def create(self, group: str, plural: str, namespace: str, body: Obj) -> Obj:
        resource = RESOURCES[(group, plural)]
        obj = copy.deepcopy(body)
        obj.setdefault("apiVersion", resource.api_version)
        obj.setdefault("kind", resource.kind)
        if (obj["apiVersion"], obj["kind"]) != (resource.api_version, resource.kind):
            raise ApiError(400, f"the object provided is a {obj['apiVersion']} {obj['kind']}, not a {resource.kind}")
        meta = obj.setdefault("metadata", {})
        with self.store.lock:
            if not meta.get("name") and meta.get("generateName"):
                meta["name"] = meta["generateName"][:58] + self.suffix()
            name = meta.get("name") or ""
            if not name:
                raise invalid(resource, "", "metadata.name: Required value: name or generateName is required")
            if resource.namespaced:
                self._check_namespace(namespace)
                if meta.setdefault("namespace", namespace) != namespace:
                    raise ApiError(400, "the namespace of the object does not match the namespace of the request")
            key = Key(group, plural, namespace if resource.namespaced else "", name)
            validation.check_metadata(resource, meta)
            if self.store.read(key) is not None:
                raise ApiError(409, f'{resource.qualified} "{name}" already exists', "AlreadyExists")
            if plural in WITH_STATUS:
                obj.pop("status", None)
            for field in ("deletionTimestamp", "deletionGracePeriodSeconds"):
                meta.pop(field, None)
            meta.update(uid=str(uuid.uuid4()), creationTimestamp=now(), generation=1)
            self._admit(key, obj)
            made = self.store.put(key, obj)
            if plural == "namespaces" and self._service_accounts:
                self.create("", "serviceaccounts", name, {"metadata": {"name": "default"}})
            return made

    def update(self, key: Key, body: Obj, *, status: bool = False, checked: bool = True) -> Obj:
        """Replace an object, or its status alone. A resourceVersion in the body must be the present one."""
        resource = RESOURCES[(key.group, key.plural)]
        with self.store.lock:
            old = self.get(key)
            meta = body.get("metadata") or {}
            for field, word in (("resourceVersion", "modified"), ("uid", "replaced")):
                if checked and meta.get(field) and meta[field] != old["metadata"][field]:
                    raise ApiError(
                        409,
                        f'Operation cannot be fulfilled on {resource.qualified} "{key.name}": the object has been '
                        f"{word}; please apply your changes to the latest version and try again",
                    )
            if status:
                new = {**old, "status": copy.deepcopy(body.get("status") or {})}
            else:
                new = copy.deepcopy(body)
                for field in ("apiVersion", "kind"):
                    new[field] = old[field]
                kept = {name: value for name, value in old["metadata"].items() if name not in _MUTABLE_METADATA}
                new["metadata"] = {
                    **kept,
                    **{name: copy.deepcopy(meta[name]) for name in _MUTABLE_METADATA if meta.get(name)},
                }
                if key.plural in WITH_STATUS:
                    new.pop("status", None)
                    if "status" in old:
                        new["status"] = old["status"]
                validation.check_metadata(resource, new["metadata"])
                validation.check_update(resource, old, new)
                if new.get("spec") != old.get("spec"):
                    new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
            if new == old:
                return old
            return self._write_or_finish(key, new)

    def patch(self, key: Key, content_type: str, patch: Any, *, status: bool = False) -> Obj:
        with self.store.lock:
            return self.update(key, apply_patch(content_type, self.get(key), patch), status=status)

    def set_status(self, key: Key, status: Obj) -> Obj:
        """Write a status from inside (controllers), whatever its resourceVersion."""
        return self.update(key, {"status": status}, status=True, checked=False)

    def delete(
        self,
        key: Key,
        *,
        grace: int | None = None,
        propagation: str | None = None,
        uid: str | None = None,
    ) -> Obj:
        """Delete an object, or mark it as being deleted when a kubelet or a finalizer has to agree first.

        Args:
            key: The object.
            grace: Seconds that a running pod gets; None is the pod's own, 0 is at once.
            propagation: What happens to what it owns: "Background", "Foreground", "Orphan"; None is the kind's default.
            uid: Delete only if the object still has this uid.

        Returns:
            The object, marked or gone.
        """
        with self.store.lock:
            obj = copy.deepcopy(self.get(key))
            meta = obj["metadata"]
            if uid and uid != meta["uid"]:
                raise ApiError(
                    409, f"Precondition failed: UID in precondition: {uid}, UID in object meta: {meta['uid']}"
                )
            if propagation == "Orphan" or (propagation is None and key.plural == "jobs"):
                self._orphan(meta["uid"])  # batch/v1 leaves pods of a deleted Job, unless the caller asks otherwise
            elif propagation == "Foreground" and FOREGROUND_FINALIZER not in (meta.get("finalizers") or []):
                meta.setdefault("finalizers", []).append(FOREGROUND_FINALIZER)
            seconds = self._grace(key, obj, grace)
            meta["deletionGracePeriodSeconds"] = min(seconds, meta.get("deletionGracePeriodSeconds", seconds))
            meta.setdefault("deletionTimestamp", now())
            if key.plural == "namespaces":
                obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
            if obj == self.get(key):
                return obj
            return self._write_or_finish(key, obj)

    def evict(self, key: Key, reason: str = "EvictionByEvictionAPI", message: str = "Eviction API: evicting") -> Obj:
        """Mark a pod as the target of a disruption and delete it gracefully."""
        with self.store.lock:
            status = copy.deepcopy(self.get(key)["status"])
            set_condition(status, "DisruptionTarget", "True", reason=reason, message=message)
            self.set_status(key, status)
            return self.delete(key)

    def event(self, obj: Obj, type_: str, reason: str, message: str, component: str) -> None:
        """Record an event; the same one again only counts up."""
        meta = obj["metadata"]
        namespace = meta.get("namespace") or "default"
        with self.store.lock:
            for event in self.store.all("events", namespace=namespace):
                about = event["involvedObject"]
                if (about.get("uid"), event["reason"], event["message"]) == (meta["uid"], reason, message):
                    again = {**event, "count": event["count"] + 1, "lastTimestamp": now()}
                    self.store.put(key_of(event), again)
                    return
            if self.store.read(Key("", "namespaces", "", namespace)) is None:
                return
            name = f"{meta['name'][:200]}.{self.store.revision:x}{self.suffix()}"
            self.store.put(
                Key("", "events", namespace, name),
                {
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {
                        "name": name,
                        "namespace": namespace,
                        "uid": str(uuid.uuid4()),
                        "creationTimestamp": now(),
                    },
                    "involvedObject": {
                        "apiVersion": obj["apiVersion"],
                        "kind": obj["kind"],
                        "name": meta["name"],
                        "namespace": namespace,
                        "uid": meta["uid"],
                    },
                    "type": type_,
                    "reason": reason,
                    "message": message,
                    "count": 1,
                    "firstTimestamp": now(),
                    "lastTimestamp": now(),
                    "source": {"component": component},
                    "reportingComponent": component,
                    "reportingInstance": "",
                },
            )

    def _check_namespace(self, namespace: str) -> None:
        found = self.store.read(Key("", "namespaces", "", namespace))
        if found is None:
            raise ApiError(404, f'namespaces "{namespace}" not found')
        if is_terminating(found):
            raise ApiError(403, f"unable to create new content in namespace {namespace} because it is being terminated")

    @staticmethod
    def _grace(key: Key, obj: Obj, grace: int | None) -> int:
        """Seconds until the object may go. Only a running pod on a node has any; its kubelet deletes it with 0."""
        if key.plural != "pods" or is_finished(obj) or not obj["spec"].get("nodeName"):
            return 0
        return obj["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace

    def _write_or_finish(self, key: Key, obj: Obj) -> Obj:
        """Write the object; an object marked for deletion that nobody holds any more goes."""
        meta = obj["metadata"]
        held = meta.get("finalizers") or meta.get("deletionGracePeriodSeconds")
        if (
            is_terminating(obj) and not held and key.plural != "namespaces"
        ):  # its controller removes it when it is empty
            return self.store.remove(key, obj)
        return self.store.put(key, obj)

    def _orphan(self, uid: str) -> None:
        for key, obj in self.store.everything():
            if any(ref.get("uid") == uid for ref in owners(obj)):
                kept = [ref for ref in owners(obj) if ref.get("uid") != uid]
                self.store.put(key, {**obj, "metadata": {**obj["metadata"], "ownerReferences": kept}})
