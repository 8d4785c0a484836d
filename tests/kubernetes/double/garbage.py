"""What goes after its owner has gone: dependents, objects deleted in the foreground, contents of namespaces."""

import copy

from tests.kubernetes.double.api import Api
from tests.kubernetes.double.objects import FOREGROUND_FINALIZER, Key, Obj, is_terminating, owners


class GarbageCollector:
    """Deletes what nobody owns any more each time `sync` is called."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def sync(self) -> None:
        objects = list(self._api.store.everything())
        alive = {obj["metadata"]["uid"] for _, obj in objects}
        ending = {obj["metadata"]["uid"] for _, obj in objects if _in_foreground(obj)}
        for key, obj in objects:
            uids = {ref["uid"] for ref in owners(obj)}
            if uids and not is_terminating(obj) and not uids & (alive - ending):
                self._api.delete(key, propagation="Background")
        for key, obj in objects:
            if _in_foreground(obj) and not self._has_dependents(obj):
                self._drop_finalizer(key)
        for key, obj in objects:
            if key.plural == "namespaces" and is_terminating(obj):
                self._empty(key)

    def _has_dependents(self, owner: Obj) -> bool:
        uid = owner["metadata"]["uid"]
        return any(ref["uid"] == uid for _, obj in self._api.store.everything() for ref in owners(obj))

    def _drop_finalizer(self, key: Key) -> None:
        obj = self._api.store.read(key)
        if obj is not None:
            meta = copy.deepcopy(obj["metadata"])
            meta["finalizers"].remove(FOREGROUND_FINALIZER)
            self._api.update(key, {**obj, "metadata": meta}, checked=False)

    def _empty(self, namespace: Key) -> None:
        left = [(key, obj) for key, obj in self._api.store.everything() if key.namespace == namespace.name]
        for key, obj in left:
            if not is_terminating(obj):
                self._api.delete(key, propagation="Background")
        if not left:
            self._api.store.remove(namespace)


def _in_foreground(obj: Obj) -> bool:
    return is_terminating(obj) and FOREGROUND_FINALIZER in (obj["metadata"].get("finalizers") or [])
