"""Plans which events a run carries: few runs, oldest first, and what failed before apart from what did not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

from ml_assets.delivery.boxes import cover, is_partition
from ml_assets.interfaces import InboxEvent, PipelinePath
from ml_assets.spec import PipelineSpec

SHARE_AFTER_FAILURE = 20
"""A run that failed without saying of which partition is repeated in so many parts, and then in single partitions."""


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Events that one run shall carry.

    Attributes:
        name: Name of the batch, and key of its run; no other batch ever has it.
        pipeline: (team, pipeline).
        numbers: Numbers of its events.
        first: First partition of the run's range.
        last: Last one; equal to `first` for a single partition.
        partitions: All partitions of that range, oldest first; the events are of these and of no others.
    """

    name: str
    pipeline: PipelinePath
    numbers: tuple[int, ...]
    first: str
    last: str
    partitions: tuple[str, ...]


def plan_batches(events: Sequence[InboxEvent], spec: PipelineSpec, max_partitions: int) -> list[BatchPlan]:
    """Return the batches of one pipeline's events, oldest partitions first, those that failed before last.

    All events of a partition are in one batch. Events that failed once share a run with a twentieth of the usual
    number of partitions, and later with none, so that a partition that takes its run down is alone in the end.

    Args:
        events: Events that are ready, of partitions that the pipeline has.
        spec: The pipeline.
        max_partitions: Most partitions of a run.
    """
    by_partition: dict[str, list[InboxEvent]] = {}
    for event in events:
        by_partition.setdefault(event.event.partition, []).append(event)
    by_failures: dict[int, list[str]] = {}
    for partition, found in by_partition.items():
        by_failures.setdefault(min(2, max(event.attempts for event in found)), []).append(partition)
    return [
        _batch(spec, box.first, box.last, box.partitions, by_partition)
        for failures in sorted(by_failures)
        for box in cover(spec, by_failures[failures], most=_most(max_partitions, failures))
    ]


def strangers(events: Sequence[InboxEvent], spec: PipelineSpec) -> list[InboxEvent]:
    """Return the events of partitions that the pipeline does not have (any more)."""
    return [event for event in events if not is_partition(spec, event.event.partition)]


def plan_of(events: Sequence[InboxEvent], spec: PipelineSpec, name: str) -> BatchPlan | None:
    """Return the plan that a claimed batch was made by, or None when its events are those of no range."""
    if strangers(events, spec):
        return None
    by_partition: dict[str, list[InboxEvent]] = {}
    for event in events:
        by_partition.setdefault(event.event.partition, []).append(event)
    boxes = cover(spec, by_partition, most=len(by_partition))
    if len(boxes) != 1:
        return None
    (box,) = boxes
    return _batch(spec, box.first, box.last, box.partitions, by_partition, name)


def _most(max_partitions: int, failures: int) -> int:
    return (max_partitions, max(1, max_partitions // SHARE_AFTER_FAILURE), 1)[failures]


def _batch(
    spec: PipelineSpec,
    first: str,
    last: str,
    partitions: tuple[str, ...],
    events: Mapping[str, Sequence[InboxEvent]],
    name: str | None = None,
) -> BatchPlan:
    return BatchPlan(
        name=name or f"{spec.team}/{spec.name}/{uuid4().hex}",
        pipeline=(spec.team, spec.name),
        numbers=tuple(sorted(event.number for p in partitions for event in events[p])),
        first=first,
        last=last,
        partitions=partitions,
    )
