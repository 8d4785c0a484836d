"""From one partition that moved to drift: only what persists is drift."""

from collections.abc import Sequence
from typing import Literal

PartitionVerdict = Literal["stable", "moved", "unknown"]
DriftVerdict = Literal["stable", "suspected", "drift", "unknown"]


def persistent(history: Sequence[bool], k: int, n: int) -> bool:
    """Return whether at least k of the last n partitions moved.

    >>> persistent([True, False, True], k=2, n=3), persistent([True, True, False, True], k=3, n=3)
    (True, False)

    Args:
        history: Whether each partition moved, oldest first, with the current one as the last.
        k: Partitions that must have moved, ≥ 1.
        n: Partitions looked back over, ≥ 1.
    """
    return sum(history[-n:]) >= k


def final_verdict(partition: PartitionVerdict, earlier: Sequence[bool], *, k: int, n: int) -> DriftVerdict:
    """Return what a partition's comparison and those before it say together.

    Args:
        partition: What the current comparison says alone.
        earlier: Whether the partitions before it moved, oldest first.
        k: Partitions that must have moved, ≥ 1.
        n: Partitions looked back over, the current one with them, ≥ 1.
    """
    if partition != "moved":
        return partition
    return "drift" if persistent([*earlier, True], k, n) else "suspected"
