"""Takes up what happened outside, carries it into runs, and looks after them: one sensor a code location."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import dagster as dg

from ml_assets.arrivals import ArrivalSettings, arrive
from ml_assets.arrivals import Cursor as LandingCursor
from ml_assets.assets.team_pipeline import TeamPipeline
from ml_assets.delivery.claiming import claim_batches, nothing_before
from ml_assets.delivery.settings import DeliverySettings
from ml_assets.delivery.tags import SENSOR
from ml_assets.interfaces import Batch, PipelinePath
from ml_assets.retraining.pauses import paused
from sensors.arrivals_cursor import Cursor, read_cursor
from sensors.batches import DATA_STAGES, MONITOR_STAGES, NOTHING, Site, batch_request, job_of, settle
from sensors.unscored import unscored
from sensors.upstream import upstream_events

INTERVAL_SECONDS = 1
"""Dagster looks at its sensors each five seconds; this keeps it from waiting longer."""
BUDGET_SECONDS = 25.0
"""Looking at files ends after this time and goes on at the next tick: Dagster stops a tick after a minute."""
LONGEST_SETTLE_SECONDS = 2.0
"""A tick waits this long at most for files that were not complete when it looked."""
MOST_REQUESTS = 50
"""Runs that a tick asks for at most; Dagster submits about five a second, and a claim is leased for a minute."""
LONGEST_REST = timedelta(minutes=1)
"""Events that cannot be ready yet are looked at this often all the same: the policy or the YAML may have changed."""
LIVE = ("waiting", "claimed", "running")


class WhenAsked:
    """Settings that are read once one of them is needed: a tick without new files reads no policy."""

    def __init__(self, read: Callable[[], ArrivalSettings]) -> None:
        self._read = read

    @cached_property
    def _settings(self) -> ArrivalSettings:
        return self._read()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._settings, name)


@dataclass(kw_only=True)
class Tick:
    """One evaluation of the sensor.

    Attributes:
        context: Dagster's context.
        site: What batches are held against.
        pipelines: The pipelines to look after.
        cursor: As the last tick left it.
        ends_at: When looking at files ends (monotonic clock).
        unsettled: Pipelines with files that were not complete yet, and how many seconds they must be unchanged.
        problems: A line for each thing that went wrong; none of them stops the others.
        requests: Runs to ask for.
        resting: Pipelines whose events all wait for an instant to come, and when it does.
    """

    context: dg.SensorEvaluationContext
    site: Site
    pipelines: Mapping[PipelinePath, TeamPipeline]
    cursor: Cursor
    ends_at: float
    unsettled: dict[PipelinePath, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    requests: list[dg.RunRequest] = field(default_factory=list)
    resting: dict[PipelinePath, datetime] = field(default_factory=dict)

    def attempt(self, pipeline: TeamPipeline, what: Callable[[TeamPipeline], None]) -> None:
        """Do something for a pipeline; its failure is told and keeps no other pipeline waiting."""
        try:
            what(pipeline)
        except Exception as error:
            line = f"{'/'.join(pipeline.path)}: {type(error).__name__}: {error}"
            if line not in self.problems:
                self.problems.append(line)
                self.context.log.exception(line)

    def run(self) -> Cursor:
        """Take up, look after batches, claim; return what to remember."""
        count = len(self.pipelines)
        order = sorted(self.pipelines)[self.cursor.turn % count :] + sorted(self.pipelines)[: self.cursor.turn % count]
        for path in order:
            self.attempt(self.pipelines[path], self.take_up_files)
            self.attempt(self.pipelines[path], self.take_up_upstream)
        self.look_again_soon()
        self.score_what_had_no_champion(order)
        mark = self.site.inbox.mark()
        if mark == self.cursor.mark and self.is_asleep and not self.problems:
            return self.cursor
        counts = self.site.inbox.counts()
        live = [path for path in order if any(counts.get(path, {}).get(state) for state in LIVE)]
        batches: dict[PipelinePath, list[Batch]] = {}
        for batch in self.site.inbox.batches(live) if live else ():
            batches.setdefault(batch.pipeline, []).append(batch)
        monitored: set[str] = set()
        for path in live:
            self.attempt(self.pipelines[path], lambda p: self.look_after(p, batches.get(p.path, []), monitored))
        return replace(
            self.cursor,
            monitored=tuple(sorted(monitored)),
            mark=mark if self.resting.keys() == set(live) and not self.problems else "",
            wake=min((at.timestamp() for at in self.resting.values()), default=0.0),
            turn=(self.cursor.turn + 1) % count,
        )

    @property
    def is_asleep(self) -> bool:
        """Whether no event that waits can be ready yet; a clock that was put back wakes it."""
        now = self.site.now.timestamp()
        return self.cursor.wake == 0 or now < self.cursor.wake <= now + LONGEST_REST.total_seconds()

    def look_again_soon(self) -> None:
        """Look once more at files that were not complete yet, rather than five seconds later."""
        unsettled, self.unsettled = self.unsettled, {}
        seconds = max(unsettled.values(), default=0.0)
        if 0 < seconds <= LONGEST_SETTLE_SECONDS:
            time.sleep(seconds)
            self.site = replace(self.site, now=self.site.now + timedelta(seconds=seconds))
            for path in unsettled:
                self.attempt(self.pipelines[path], self.take_up_files)

    def score_what_had_no_champion(self, order: Sequence[PipelinePath]) -> None:
        """Ask for the scoring of what came before a pipeline's first promotion; decisions alone bring new ones."""
        mark = self.site.ledger.mark()
        if mark == self.cursor.ledger:
            return
        decided, later = dict(self.cursor.decided), set[PipelinePath]()

        def look(pipeline: TeamPipeline) -> None:
            name = "/".join(pipeline.path)
            head = self.site.ledger.heads(pipeline.path).get(f"decisions/{name}")
            if head is None or head.position == decided.get(name):
                return
            later.add(pipeline.path)
            store, room = self.context.resources.data_store, MOST_REQUESTS - len(self.requests)
            found = unscored(self.site, pipeline, store, self._settings(pipeline), most=room)
            self.requests += found.requests
            if not found.later and not found.requests:  # what was asked for is seen to have its run
                later.discard(pipeline.path)
                decided[name] = head.position

        for path in order:
            self.attempt(self.pipelines[path], look)
        self.cursor = replace(self.cursor, ledger="" if later else mark, decided=decided)

    def take_up_files(self, pipeline: TeamPipeline) -> None:
        """Put the files that arrived into the inbox, and bad ones into quarantine."""
        seconds = self.ends_at - time.monotonic()
        if not pipeline.spec.automation.arrivals or seconds <= 0:
            return
        resources: Any = self.context.resources
        name = "/".join(pipeline.path)
        settings: Any = WhenAsked(lambda: ArrivalSettings.of(resources.policy.effective(pipeline.path)))
        before = LandingCursor.read(self.cursor.landing.get(name))
        arrived = arrive(
            resources,
            pipeline.loaded,
            before,
            settings=settings,
            now=self.site.now,
            time_budget_seconds=seconds,
        )
        if arrived.reasons:
            self.unsettled[pipeline.path] = settings.settle.total_seconds()
        for taken in arrived.receipt.new:
            self.context.log.info(f"{name}: {taken.event.payload.get('place')} arrived for [{taken.event.partition}]")
        for moved in arrived.quarantined:
            self.context.log.warning(f"{name}: {moved.place} went to {moved.moved_to}: {moved.reason}")
        for line in arrived.in_vain:
            self.context.log.warning(f"{name}: {line}")
        for buried in arrived.buried:
            self.context.log.warning(f"{name}: dead letter {buried.number}: {buried.reason}")
        if arrived.cursor is not before:
            self.cursor = replace(self.cursor, landing={**self.cursor.landing, name: arrived.cursor.text})

    def take_up_upstream(self, pipeline: TeamPipeline) -> None:
        """Put what was materialized upstream into the inbox."""
        for asset in pipeline.spec.automation.after:
            name = f"{'/'.join(pipeline.path)} {asset}"
            before = self.cursor.upstream.get(name)
            found = upstream_events(self.site.instance, pipeline, asset, before, now=self.site.now)
            seen = found.seen
            if found.events:
                settings = self._settings(pipeline)
                receipt = self.site.inbox.receive(
                    found.events, dedup=settings.dedup, per_minute=settings.per_minute, now=self.site.now
                )
                seen = found.seen_before(receipt.refused[0] if receipt.refused else None)
            if found.strange:
                few = ", ".join(found.strange[:5])
                self.context.log.warning(f"{name}: of no partition of the pipeline, and left out: {few}")
            self.cursor = replace(self.cursor, upstream={**self.cursor.upstream, name: seen})

    def look_after(self, pipeline: TeamPipeline, batches: list[Batch], monitored: set[str]) -> None:
        """End batches whose runs are over, and ask for the runs of new ones unless the pipeline is paused."""
        settings, pause = self._settings(pipeline), paused(self.site.ledger, pipeline.path)
        for batch in batches:
            known = batch.name in self.cursor.monitored
            todo = settle(self.site, pipeline, batch, settings, monitored=known)
            if todo is not NOTHING and pause is not None:
                continue  # nothing starts; it is looked at again at the next tick
            self.requests += todo.requests
            if todo.monitored:
                monitored.add(batch.name)
        room = MOST_REQUESTS - len(self.requests)
        if pause is not None:
            self.context.log.info(str(pause))
        elif room > 0:
            plans = claim_batches(self.site.inbox, pipeline.spec, settings, now=self.site.now, most=room)
            self.requests += [batch_request(pipeline, plan) for plan in plans]
            first = (
                None
                if batches or plans
                else nothing_before(self.site.inbox, pipeline.spec, settings, now=self.site.now)
            )
            if first is not None:
                self.resting[pipeline.path] = min(first, self.site.now + LONGEST_REST)

    def _settings(self, pipeline: TeamPipeline) -> DeliverySettings:
        return DeliverySettings.of(self.context.resources.policy.effective(pipeline.path))


def build_arrivals_sensor(pipelines: Mapping[PipelinePath, TeamPipeline]) -> dg.SensorDefinition | None:
    """Return the sensor of a code location, or None when none of its pipelines starts by events.

    Args:
        pipelines: All pipelines of the location; those with `automation.arrivals` or `automation.after` are watched.
    """
    watched = {
        path: pipeline
        for path, pipeline in pipelines.items()
        if pipeline.spec.automation.arrivals or pipeline.spec.automation.after
    }
    if not watched:
        return None

    @dg.sensor(
        name=SENSOR,
        jobs=_jobs(watched),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={"inbox", "ledger", "policy", "landing", "data_store"},
        description="Takes up files that arrive and what is materialized upstream, makes their partitions, scores "
        "them with the champion, and tries again what failed for a passing cause.",
    )
    def arrivals(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        repository = context.repository_def
        site = Site(
            instance=context.instance,
            inbox=context.resources.inbox,
            ledger=context.resources.ledger,
            assets=frozenset() if repository is None else repository.asset_graph.get_all_asset_keys(),
            now=datetime.now(UTC),
        )
        ends_at = time.monotonic() + BUDGET_SECONDS
        tick = Tick(context=context, site=site, pipelines=watched, cursor=read_cursor(context), ends_at=ends_at)
        cursor = tick.run().text
        if tick.requests:
            return dg.SensorResult(run_requests=tick.requests, cursor=cursor)
        return dg.SensorResult(skip_reason="\n".join(["Nothing to start.", *tick.problems]), cursor=cursor)

    return arrivals


def _jobs(pipelines: Mapping[PipelinePath, TeamPipeline]) -> list[Any]:
    """Return a job for each kind of data partitions: a job cannot hold two kinds."""
    alike: dict[str, list[str]] = {}
    for path, pipeline in sorted(pipelines.items()):
        alike.setdefault(job_of(pipeline), []).append("__".join(path))
    stages = [dg.AssetSelection.tag("ml_assets/stage", stage) for stage in (*DATA_STAGES, *MONITOR_STAGES)]
    either = stages[0]
    for stage in stages[1:]:
        either |= stage
    return [dg.define_asset_job(name, dg.AssetSelection.groups(*groups) & either) for name, groups in alike.items()]
