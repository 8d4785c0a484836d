"""Tells people what needs them: failed gates, approvals, dead letters, bad files, open breakers, stale assets."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg

from ml_assets.alerting import Cursor, Sources, freshness_missed, keep, look, look_at_quarantines, send_pending
from ml_assets.assets.team_pipeline import TeamPipeline
from ml_assets.interfaces import Alert, PipelinePath

SENSOR = "alerts"
INTERVAL_SECONDS = 10
FRESHNESS = "freshness"
FRESHNESS_EVERY = timedelta(seconds=30)
"""Dagster's daemon evaluates freshness this often."""
MISSED = "FAIL"


def build_alerts_sensor(pipelines: Mapping[PipelinePath, TeamPipeline]) -> dg.SensorDefinition:
    """Return the sensor that raises and sends the alerts of a code location's pipelines.

    A pause stops what starts by itself, and not the alerts.

    Args:
        pipelines: (team, pipeline) → the pipeline.
    """
    watched = dict(_watched(pipelines))
    specs = [pipeline.spec for pipeline in pipelines.values() if pipeline.spec.automation.arrivals]

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={"ledger", "inbox", "policy", "landing", "alerts", "notifier"},
        description="Tells people once, over every channel, of failed gates, candidates that await approval, dead "
        "letters, bad files, open breakers, incidents and missed freshness. `ml-assets alerts list` shows them.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        held, now = context.resources, datetime.now(UTC)
        sources = Sources(ledger=held.ledger, inbox=held.inbox, policy=held.policy, pipelines=list(pipelines))
        cursor = Cursor.of(context.cursor, held.notifier.channels, now)
        found, cursor, unread = look(sources, cursor, now)
        for problem in unread:
            context.log.error(f"What needs people cannot be read: {problem}")
        bad, cursor, unseen = look_at_quarantines(held.landing, held.inbox, specs, cursor, now)
        for problem in unseen:
            context.log.error(problem)
        late, cursor = _look_at_freshness(context.instance, watched, cursor, now)
        new = keep(held.alerts, held.notifier.channels, [*found, *bad, *late], now)
        sent = send_pending(held.alerts, held.notifier, pipelines.keys(), now)
        for failure in sent.failures:
            context.log.warning(failure)
        said = f"{new} new, {sent.messages} sent, {len(sent.failures)} failed, {sent.left} left."
        quiet = not (new or sent.messages or sent.failures or sent.left)
        return dg.SensorResult(
            skip_reason="\n".join(["Nothing is new." if quiet else said, *unread, *unseen]), cursor=cursor.text
        )

    return alerts


def _watched(pipelines: Mapping[PipelinePath, TeamPipeline]) -> Iterable[tuple[dg.AssetKey, tuple[PipelinePath, str]]]:
    for path, pipeline in pipelines.items():
        for stage in ("features", "predictions"):
            if getattr(pipeline.spec.freshness, stage) is not None:
                yield pipeline.key(stage), (path, stage)


def _look_at_freshness(
    instance: dg.DagsterInstance,
    watched: Mapping[dg.AssetKey, tuple[PipelinePath, str]],
    cursor: Cursor,
    now: datetime,
) -> tuple[list[Alert], Cursor]:
    """Return an alert for each asset that Dagster's daemon calls stale, and the next cursor."""
    last = cursor.places.get(FRESHNESS)
    if not watched or (last is not None and now < last.seen_at + FRESHNESS_EVERY):
        return [], cursor
    states = instance.get_freshness_state_records(list(watched))
    late = [
        freshness_missed(*watched[key], state.updated_at)
        for key, state in sorted(states.items(), key=lambda item: item[0].to_user_string())
        if state.freshness_state.value == MISSED
    ]
    return cursor.take(FRESHNESS, "", late, now)
