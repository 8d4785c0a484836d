"""Says what became of a batch's run: which partitions were made, why the others were not, and whether to try again."""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_assets.errors import LedgerError, RegistryUnavailableError, StoreError
from ml_assets.interfaces import Batch, EventFailure

OUTAGES = (StoreError, RegistryUnavailableError, LedgerError)
"""Errors that may be gone when the same is tried again."""
LONGEST_TRACEBACK = 4000
"""Characters; the end of a traceback says most."""
STAGES = ("raw_data", "features")


@dataclass(frozen=True, kw_only=True)
class PartitionFailure:
    """Why a stage failed on one partition.

    Attributes:
        message: For a reader.
        transient: Whether trying again may help.
        traceback: Its end.
    """

    message: str
    transient: bool
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class StepFailure:
    """A stage of a run that failed.

    Attributes:
        stage: "raw_data" or "features".
        message: For a reader.
        traceback: Its end.
        partitions: What is known of single partitions; empty when the stage failed as a whole.
    """

    stage: str
    message: str
    traceback: str = ""
    partitions: Mapping[str, PartitionFailure] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What the event log has of a run that is over.

    Attributes:
        run_id: The run.
        ended: "success", "failure", "canceled", or "gone" when there is no such run any more.
        made: Stage → partitions that it materialized.
        refused: (stage, partition) → what its closed gates say.
        failures: Stages that failed.
        message: Why the run as a whole ended, when there is something to say.
    """

    run_id: str
    ended: str
    made: Mapping[str, frozenset[str]] = field(default_factory=dict)
    refused: Mapping[tuple[str, str], str] = field(default_factory=dict)
    failures: Sequence[StepFailure] = ()
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a batch.

    Attributes:
        done: Partitions that were made and whose gates are open.
        failures: Number of an event → why its partition was not.
    """

    done: frozenset[str]
    failures: Mapping[int, EventFailure]


def outcome_of(batch: Batch, facts: RunFacts) -> Outcome:
    """Return what became of a batch whose run is over."""
    partitions = {event.event.partition for event in batch.events}
    failed = {p: failure for p in sorted(partitions) if (failure := _failure(p, facts)) is not None}
    numbers = {e.number: failed[e.event.partition] for e in batch.events if e.event.partition in failed}
    return Outcome(done=frozenset(partitions - failed.keys()), failures=numbers)


def failed_partition(error: Exception) -> dict[str, Any]:
    """Return what a step tells of a partition that it failed on, ready for JSON."""
    return {
        "message": str(error),
        "transient": isinstance(error, OUTAGES),
        "traceback": end_of("".join(traceback.format_exception(error))),
    }


def end_of(text: str) -> str:
    """Return the end of a traceback, which says most.

    >>> end_of("x" * 5000) == "…" + "x" * 4000
    True
    """
    return text if len(text) <= LONGEST_TRACEBACK else f"…{text[-LONGEST_TRACEBACK:]}"


def _failure(partition: str, facts: RunFacts) -> EventFailure | None:
    """Return why a partition was not made, or None when it was."""
    made = partition in facts.made.get("features", ())
    for stage in STAGES if not made else STAGES[1:]:  # raw data whose closed gate was waived has features
        if refusal := facts.refused.get((stage, partition)):
            return EventFailure(reason=f"[{partition}] {stage}: {refusal}", transient=False)
    if made:
        return None
    for failure in facts.failures:
        own = failure.partitions.get(partition)
        if own is not None:
            return EventFailure(reason=f"[{partition}] {own.message}", transient=own.transient, traceback=own.traceback)
    return _shared_failure(partition, facts)


def _shared_failure(partition: str, facts: RunFacts) -> EventFailure:
    """Return why a partition was not made that the run says nothing of: it may be made by another run."""
    if facts.ended == "gone":
        return EventFailure(reason=f"Run {facts.run_id} was deleted before it made [{partition}].", transient=True)
    for failure in facts.failures:
        if failure.partitions:
            others = ", ".join(sorted(failure.partitions)[:5])
            reason = f"[{partition}] was kept from being made: {failure.stage} failed on others of its run ({others})."
            return EventFailure(reason=reason, transient=True)
        reason = f"[{partition}] {failure.stage} failed: {failure.message}"
        return EventFailure(reason=reason, transient=True, traceback=failure.traceback)
    how = {"failure": "failed", "canceled": "was canceled"}.get(facts.ended, "ended")
    said = f": {facts.message}" if facts.message else "."
    reason = f"Run {facts.run_id} {how} before it made [{partition}]{said}"
    return EventFailure(reason=reason, transient=True)
