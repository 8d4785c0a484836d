"""Which GPU of a machine each step holds, kept beside Dagster's pools, so that no two steps are given the same.

A slot of a pool has no number that lasts: Dagster removes and adds slots when somebody changes the pool's limit, also
while steps hold some. So a step is given its GPUs once, when it gets its slots, and what it was given is written down.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_KEY = "ml_assets/gpu_devices"

Holder = tuple[str, str]
"""A step: the id of its run, and its key."""


class GpuDevices:
    """The GPUs of one machine, and which steps hold them.

    Whoever assigns must be the only one at that moment, as in the transaction that locks the pool.

    Args:
        run_storage: Dagster's run storage; its table of keys and values holds the record.
        count: GPUs of the machine, at least 1.
    """

    def __init__(self, run_storage: Any, count: int) -> None:
        self._storage = run_storage
        self._count = count

    def assign(self, step: Holder, wanted: int, holders: Mapping[Holder, Sequence[int]]) -> None:
        """Give a step GPUs that nobody holds; where the pool has more slots than there are GPUs, the least used ones.

        Args:
            step: The step.
            wanted: How many; a step gets no GPU twice.
            holders: All steps that hold slots of the pool now, each with the places of its slots in the pool; what
                others held is free. Where nothing is written down of a step, as when an earlier version of this
                project or another executor of Dagster claimed for it, it counts as holding the GPUs in these places.
        """
        known = self._read()
        held = {
            holder: known.get(holder) or sorted({slot % self._count for slot in slots})
            for holder, slots in holders.items()
            if holder != step
        }
        users = Counter(place for places in held.values() for place in places)
        by_use = sorted(range(self._count), key=lambda place: (users[place], place))
        held[step] = sorted(by_use[:wanted])
        record = [[*holder, places] for holder, places in sorted(held.items())]
        self._storage.set_cursor_values({_KEY: json.dumps(record)})

    def of(self, step: Holder) -> tuple[int, ...]:
        """Return the GPUs that a step was given, as places among those of the machine, counted from 0."""
        return tuple(self._read().get(step, ()))

    def _read(self) -> dict[Holder, list[int]]:
        text = self._storage.get_cursor_values({_KEY}).get(_KEY, "[]")
        return {(run_id, step_key): places for run_id, step_key, places in json.loads(text)}
