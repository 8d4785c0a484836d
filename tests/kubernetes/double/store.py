"""The objects of the cluster, with one revision for each change, and the changes that watchers read.

Objects in the store are never changed in place: a write puts a new object there. What `read` and `all` return is
shared and must not be changed; `copy.deepcopy` it first.
"""

import threading
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from tests.kubernetes.double.objects import ApiError, Key, Obj

KEPT_CHANGES = 20_000
"""Watches can go back this many changes; older ones get 410 Expired, as from a server that has compacted them."""


class Change(NamedTuple):
    """One write: the object before (None: it is new) and after (None: it is gone)."""

    revision: int
    key: Key
    before: Obj | None
    after: Obj | None


class Store:
    """All objects. Hold `lock` for what belongs together; `changed` is notified after each write."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.revision = 1
        self._tables: dict[tuple[str, str], dict[tuple[str, str], Obj]] = {}
        self._changes: deque[Change] = deque(maxlen=KEPT_CHANGES)

    def read(self, key: Key) -> Obj | None:
        return self._tables.get((key.group, key.plural), {}).get((key.namespace, key.name))

    def all(self, plural: str, group: str = "", namespace: str = "") -> list[Obj]:
        """Return the objects of a kind, by namespace and name; `namespace` "" means all namespaces."""
        with self.lock:
            table = self._tables.get((group, plural), {})
            return [table[place] for place in sorted(table) if not namespace or place[0] == namespace]

    def everything(self) -> Iterator[tuple[Key, Obj]]:
        with self.lock:
            entries = [
                (Key(group, plural, namespace, name), obj)
                for (group, plural), table in self._tables.items()
                for (namespace, name), obj in table.items()
            ]
        return iter(entries)

    def put(self, key: Key, obj: Obj) -> Obj:
        """Write an object, new or old, and return it with its resourceVersion."""
        with self.lock:
            before = self.read(key)
            self.revision += 1
            obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}}
            self._tables.setdefault((key.group, key.plural), {})[(key.namespace, key.name)] = obj
            self._changes.append(Change(self.revision, key, before, obj))
            self.changed.notify_all()
            return obj

    def remove(self, key: Key, last: Obj | None = None) -> Obj:
        """Take an object away, and return it as it was at last: as given, or as it was kept."""
        with self.lock:
            obj = self._tables[(key.group, key.plural)].pop((key.namespace, key.name))
            obj = last or obj
            self.revision += 1
            obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}}
            self._changes.append(Change(self.revision, key, obj, None))
            self.changed.notify_all()
            return obj

    def since(self, revision: int) -> list[Change]:
        """Return the changes after a revision. Raises ApiError 410 when some of them are no longer kept."""
        with self.lock:
            if self._changes and revision + 1 < self._changes[0].revision:
                raise ApiError(410, f"too old resource version: {revision} ({self._changes[0].revision})")
            newer = []
            for change in reversed(self._changes):
                if change.revision <= revision:
                    break
                newer.append(change)
            return newer[::-1]

    def forget_changes(self) -> None:
        """Drop the kept changes, as a compaction does: watches that go back get 410 Expired."""
        with self.lock:
            self.revision += 2  # so that what a client has seen is older than what is kept
            self._changes.clear()
            self._changes.append(Change(self.revision, Key("", "", "", ""), None, None))
