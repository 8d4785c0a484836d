"""What a tick does with batches of events: asks for their runs, and ends them when their runs are over."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from ml_assets.assets.team_pipeline import TeamPipeline
from ml_assets.delivery.boxes import Box, cover, is_over
from ml_assets.delivery.outcome import outcome_of
from ml_assets.delivery.plan import BatchPlan, plan_of
from ml_assets.delivery.settings import LEASE, DeliverySettings
from ml_assets.delivery.tags import (
    AFTER_BATCH_TAG,
    BATCH_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    RUN_KEY_TAG,
    SENSOR,
    job_name,
)
from ml_assets.inbox_rules import CLOCK_SKEW
from ml_assets.interfaces import Batch, Inbox, Ledger
from ml_assets.periods import split_partition
from ml_assets.stages.champions import champion_before
from ml_assets.stages.step import LAUNCHED_BY_TAG
from sensors.run_facts import run_facts

DATA_STAGES = ("raw_data", "features")
MONITOR_STAGES = ("predictions", "drift", "performance")


@dataclass(frozen=True, kw_only=True)
class Site:
    """What batches are held against.

    Attributes:
        instance: Dagster's instance, with the runs.
        inbox: The inbox.
        ledger: The ledger, with the champions.
        assets: Every asset that the code location has.
        now: The instant, UTC.
    """

    instance: dg.DagsterInstance
    inbox: Inbox
    ledger: Ledger
    assets: Collection[dg.AssetKey]
    now: datetime


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What is to be done for a batch that was looked at.

    Attributes:
        requests: Runs to ask for.
        monitored: Whether they score and watch what the batch's run made; the batch ends at the next look.
    """

    requests: tuple[dg.RunRequest, ...] = ()
    monitored: bool = False


NOTHING = Settled()


def batch_request(pipeline: TeamPipeline, plan: BatchPlan) -> dg.RunRequest:
    """Return the request for the run of a claimed batch."""
    box = plan.first, plan.last
    return stages_request(pipeline, DATA_STAGES, box, key=plan.name, tags={BATCH_TAG: plan.name})


def settle(site: Site, pipeline: TeamPipeline, batch: Batch, settings: DeliverySettings, *, monitored: bool) -> Settled:
    """Look after a batch: ask for its run again when nobody submitted it, end it when its run is over.

    Args:
        site: The world.
        pipeline: Whose batch it is.
        batch: A batch that is not over.
        settings: What the policy says of events.
        monitored: Whether the runs that score what it made were asked for already.
    """
    run_id = batch.run_id or _first_run(site.instance, batch.name)
    if run_id is None:
        leased = site.now < batch.leased_until <= site.now + LEASE + CLOCK_SKEW  # else the clock was put back since
        return NOTHING if leased else _again(site, pipeline, batch)
    if batch.run_id is None and not site.inbox.start(batch.name, run_id, now=site.now):
        return NOTHING
    facts = run_facts(site.instance, run_id, pipeline.path)
    if facts is None:
        return NOTHING
    outcome = outcome_of(batch, facts)
    if not monitored:
        requests = _monitoring(site, pipeline, batch, outcome.done, settings)
        if requests:
            return Settled(requests=requests, monitored=True)
    site.inbox.finish(batch.name, outcome.failures, retry=settings.retry, now=site.now)
    return NOTHING


def _again(site: Site, pipeline: TeamPipeline, batch: Batch) -> Settled:
    """Ask for the run of a batch whose submitter died; the same key keeps Dagster from making a second one."""
    plan = plan_of(batch.events, pipeline.spec, batch.name)
    if plan is None or not is_over(pipeline.spec, plan.last, site.now):
        site.inbox.release(batch.name, now=site.now)
        _end_unsubmitted(site.instance, batch.name)
        return NOTHING
    return Settled(requests=(batch_request(pipeline, plan),))


def _end_unsubmitted(instance: dg.DagsterInstance, batch: str) -> None:
    """Cancel the runs of a released batch that never got into the queue: nobody asks for its key again.

    One that gets there all the same meanwhile is told by the inbox that the batch is over, and ends without work.
    """
    left = dg.RunsFilter(tags={RUN_KEY_TAG: batch}, statuses=[dg.DagsterRunStatus.NOT_STARTED])
    for run in instance.get_runs(filters=left):
        instance.report_run_canceled(run, "Its batch of events was released before the run was submitted.")


def _first_run(instance: dg.DagsterInstance, batch: str) -> str | None:
    """Return the oldest run of a batch that is in the queue or beyond: later ones of its key are a person's repeats.

    A run whose submitter died before it was in the queue is put there when its key is asked for again.
    """
    runs = instance.get_runs(filters=dg.RunsFilter(tags={RUN_KEY_TAG: batch}))
    submitted = [run.run_id for run in runs if run.status != dg.DagsterRunStatus.NOT_STARTED]
    return submitted[-1] if submitted else None


def _monitoring(
    site: Site, pipeline: TeamPipeline, batch: Batch, done: Collection[str], settings: DeliverySettings
) -> tuple[dg.RunRequest, ...]:
    """Return the runs that score and watch what a batch made, of the partitions that have a champion."""
    stages = [stage for stage in MONITOR_STAGES if pipeline.key(stage) in site.assets]
    if not done or not stages:
        return ()
    decisions = site.ledger.decisions(pipeline.path)
    scorable = [p for p in done if champion_before(decisions, split_partition(p)[1]) is not None]
    boxes: list[Box] = cover(pipeline.spec, scorable, most=settings.max_partitions)
    return tuple(
        stages_request(
            pipeline,
            stages,
            (box.first, box.last),
            key=f"{batch.name}:monitor:{number}",
            tags={AFTER_BATCH_TAG: batch.name},
        )
        for number, box in enumerate(boxes)
    )


def stages_request(
    pipeline: TeamPipeline, stages: Collection[str], box: tuple[str, str], *, key: str, tags: dict[str, str]
) -> dg.RunRequest:
    """Return the request for a run of some stages over a box of partitions, given its first and its last one."""
    first, last = box
    alone = first == last
    span = {} if alone else {RANGE_START_TAG: first, RANGE_END_TAG: last}
    return dg.RunRequest(
        run_key=key,
        job_name=job_of(pipeline),
        asset_selection=[pipeline.key(stage) for stage in stages],
        partition_key=first if alone else None,
        tags={
            **tags,
            **span,
            LAUNCHED_BY_TAG: f"sensor:{SENSOR}",
            "ml_assets/pipeline": "/".join(pipeline.path),
        },
    )


def job_of(pipeline: TeamPipeline) -> str:
    """Return the name of the job that makes a pipeline's data."""
    return job_name(pipeline.data.get_serializable_unique_identifier())
