"""Asks for the scoring of what arrived before its pipeline had a champion: nothing else comes back for it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import dagster as dg

from ml_assets.assets.team_pipeline import TeamPipeline
from ml_assets.delivery.boxes import cover, is_partition, span
from ml_assets.delivery.settings import DeliverySettings
from ml_assets.delivery.tags import AFTER_BATCH_TAG, AFTER_PROMOTION_TAG, RANGE_END_TAG, RANGE_START_TAG
from ml_assets.inbox_rules import CLOCK_SKEW, LIVE_STATES
from ml_assets.interfaces import DataStore, Decision
from ml_assets.periods import split_partition
from ml_assets.retraining.pauses import paused
from ml_assets.spec import PipelineSpec
from ml_assets.stages.champions import champion_before
from sensors.batches import MONITOR_STAGES, Site, stages_request

SETTLING = timedelta(minutes=1)
"""How long a promotion may take to move the alias after it was decided."""
PARTITION_TAG = "dagster/partition"
_AT_ONCE = 200
"""Batches whose runs are looked up at once."""


@dataclass(frozen=True, kw_only=True)
class Unscored:
    """What is to be scored now of what had no champion.

    Attributes:
        requests: Runs to ask for.
        later: Whether there is more for which a run can be asked later, although nothing new is recorded.
    """

    requests: tuple[dg.RunRequest, ...] = ()
    later: bool = False


def unscored(
    site: Site, pipeline: TeamPipeline, data_store: DataStore, settings: DeliverySettings, *, most: int
) -> Unscored:
    """Return the runs that score partitions which events made while no champion could score them, and one can now.

    When a batch ends, the partitions that have a champion by then are scored by a run that is tagged with the batch.
    Those that have none are left; once a model of an earlier period is promoted they are found here: made by an event
    that is done, features but no predictions, and no run that was asked for to score them. So each is asked for once,
    whatever becomes of its run. What a person makes, such as a backfill, is theirs to score.

    Args:
        site: The world.
        pipeline: The pipeline.
        data_store: Says what is made.
        settings: How many partitions a run may have.
        most: Runs to ask for at most.
    """
    stages = [stage for stage in MONITOR_STAGES if pipeline.key(stage) in site.assets]
    decisions = site.ledger.decisions(pipeline.path)
    champion = champion_before(decisions, None)
    if champion is None or "predictions" not in stages:
        return Unscored()
    without = _without_predictions(pipeline, data_store, decisions)
    if not without:
        return Unscored()
    # Before the events are read, of which there may be a million: a pause may last for days of looks.
    at = champion.recorded_at
    if at is not None and site.now - SETTLING < at <= site.now + CLOCK_SKEW:
        return Unscored(later=True)
    if paused(site.ledger, pipeline.path) is not None:
        return Unscored(later=True)
    left = _never_asked_for(site, pipeline, without)
    if not left:
        return Unscored()
    boxes = cover(pipeline.spec, left, most=settings.max_partitions)
    name = "/".join(pipeline.path)
    requests = tuple(
        stages_request(
            pipeline,
            stages,
            (box.first, box.last),
            key=f"{name}:unscored:{box.first}:{box.last}",
            tags={AFTER_PROMOTION_TAG: name},
        )
        for box in boxes[:most]
    )
    return Unscored(requests=requests, later=len(boxes) > most)


def _without_predictions(pipeline: TeamPipeline, data_store: DataStore, decisions: list[Decision]) -> set[str]:
    """Return the partitions that have features and no predictions, and a champion to be scored with."""
    made = set(data_store.partitions((*pipeline.path, "features")))
    made -= set(data_store.partitions((*pipeline.path, "predictions")))
    made = {partition for partition in made if is_partition(pipeline.spec, partition)}
    scorable = {
        time
        for time in {split_partition(partition)[1] for partition in made}
        if champion_before(decisions, time) is not None
    }
    return {partition for partition in made if split_partition(partition)[1] in scorable}


def _never_asked_for(site: Site, pipeline: TeamPipeline, partitions: set[str]) -> set[str]:
    """Return those of the partitions that events made, and whose scoring nobody has asked for or will."""
    if not partitions:
        return set()
    live = site.inbox.events(pipelines=[pipeline.path], states=LIVE_STATES, limit=None)
    done = site.inbox.events(pipelines=[pipeline.path], states=["done"], limit=None)
    made_by = {e.event.partition: e.batch for e in reversed(done) if e.batch and e.event.partition in partitions}
    for event in live:  # the batch that carries it asks for its scoring
        made_by.pop(event.event.partition, None)
    if not made_by:
        return set()
    asked = _covered(site, pipeline, AFTER_PROMOTION_TAG, ["/".join(pipeline.path)])
    batches = {batch for batch in made_by.values() if batch is not None}
    return made_by.keys() - asked - _covered(site, pipeline, AFTER_BATCH_TAG, batches)


def _covered(site: Site, pipeline: TeamPipeline, tag: str, values: Iterable[str]) -> set[str]:
    """Return the partitions of the runs with a tag; one that its submitter left unsubmitted is asked for again."""
    found: set[str] = set()
    wanted = sorted(values)
    for begin in range(0, len(wanted), _AT_ONCE):
        runs = site.instance.get_runs(dg.RunsFilter(tags={tag: wanted[begin : begin + _AT_ONCE]}))
        for run in runs:
            if run.status != dg.DagsterRunStatus.NOT_STARTED:
                found |= _partitions(pipeline.spec, run.tags)
    return found


def _partitions(spec: PipelineSpec, tags: Mapping[str, str]) -> set[str]:
    """Return the partitions of a run, or none when the pipeline no longer has them."""
    alone = tags.get(PARTITION_TAG, "")
    first, last = tags.get(RANGE_START_TAG, alone), tags.get(RANGE_END_TAG, alone)
    if not (is_partition(spec, first) and is_partition(spec, last)):
        return set()
    return set(span(spec, first, last).partitions)
