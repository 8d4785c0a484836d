"""Promotes what people have approved: within seconds of the last signature, and again when an attempt failed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from ml_assets.approvals.standing import standing, with_launchers
from ml_assets.assets.team_pipeline import TeamPipeline
from ml_assets.errors import MlAssetsError
from ml_assets.interfaces import Decision, Ledger, PipelinePath, PolicySource
from ml_assets.retraining.pauses import paused
from ml_assets.stages.aliases import CHAMPION
from ml_assets.stages.champions import champion_before, latest_by_partition
from ml_assets.stages.step import LAUNCHED_BY_TAG

SENSOR = "approvals"
INTERVAL_SECONDS = 5
REST, REST_SECONDS = "rest", 60
"""While nothing is appended to the ledger, pipelines are looked at only this often: for what falls due by time."""
UNREADABLE = (MlAssetsError, AttributeError, KeyError, TypeError, ValueError)
"""What reading a pipeline's policy or its tampered rows may raise."""
SETTLING = timedelta(minutes=1)
"""How long a promotion may take to move the alias after it was decided."""
RETRY_AFTER = (timedelta(0), timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2))
"""How long after an attempt the next one may start; after the last one a person must look."""


@dataclass(frozen=True, kw_only=True)
class Due:
    """A decision that is to be made again, or carried out.

    Attributes:
        decision: The decision.
        why: "approved", "expired", or "unfinished": promoted, and the process died before the alias followed.
    """

    decision: Decision
    why: str

    @property
    def key(self) -> str:
        """Return what an attempt is counted under: the request, its subject and why."""
        d = self.decision
        asked = "" if d.recorded_at is None else d.recorded_at.isoformat()
        return f"{'/'.join(d.pipeline)}|{d.partition}|{asked}|{d.evaluation_digest[:12]}|{self.why}"


def due(ledger: Ledger, policy: PolicySource, pipelines: Sequence[PipelinePath], now: datetime) -> list[Due]:
    """Return the waiting decisions whose approvals are complete or whose time is over, and unfinished promotions."""
    return [item for path in pipelines for item in due_of(ledger, policy, path, now)]


def due_of(ledger: Ledger, policy: PolicySource, path: PipelinePath, now: datetime) -> list[Due]:
    """Return what `due` does, of one pipeline."""
    found: list[Due] = []
    decisions = ledger.decisions(path)
    champion = champion_before(decisions, None)
    if champion is not None and _is_unfinished(ledger, champion, now):
        found.append(Due(decision=champion, why="unfinished"))
    waiting = [d for d in latest_by_partition(decisions).values() if d.outcome == "awaiting_approval"]
    if not waiting:
        return found
    effective, people, records = policy.effective(path), policy.people(), ledger.records(path)
    for decision in waiting:
        given = standing(with_launchers(decision, decisions), records, effective, people, at=now)
        if given.complete or given.closed:
            found.append(Due(decision=decision, why="approved" if given.complete else "expired"))
    return found


def _is_unfinished(ledger: Ledger, champion: Decision, now: datetime) -> bool:
    """Whether the alias of a champion was not moved, though there was time to."""
    if champion.recorded_at is None or now < champion.recorded_at + SETTLING:
        return False
    moves = [r for r in ledger.records(champion.pipeline) if r.kind in ("alias", "incident") and r.subject == CHAMPION]
    return not moves or moves[-1].body.get("to") != champion.model_version


def plan_attempts(
    wanted: Sequence[Due], attempts: Mapping[str, Sequence[Any]], now: datetime
) -> tuple[list[tuple[Due, int]], dict[str, list[Any]]]:
    """Return which to start now, each with its number, and the attempts to remember.

    Args:
        wanted: What is due.
        attempts: Key → [attempts so far, instant of the last one in ISO 8601]; what is no longer due is forgotten.
        now: The instant.
    """
    start: list[tuple[Due, int]] = []
    remembered: dict[str, list[Any]] = {}
    for item in wanted:
        count, last = attempts.get(item.key, (0, None))
        ready = last is None or now >= datetime.fromisoformat(last) + RETRY_AFTER[min(count, len(RETRY_AFTER) - 1)]
        if count < len(RETRY_AFTER) and ready:
            start.append((item, count + 1))
            remembered[item.key] = [count + 1, now.isoformat()]
        else:
            remembered[item.key] = [count, last]
    return start, remembered


def build_approvals_sensor(pipelines: Mapping[PipelinePath, TeamPipeline]) -> dg.SensorDefinition:
    """Return the sensor that watches all pipelines of a code location.

    It asks for a run of `promotion` on the waiting partition; that run verifies everything anew, and of two runs at
    once one promotes.

    Args:
        pipelines: (team, pipeline) → partitions of its promotions.
    """
    jobs = _promotion_jobs(pipelines)
    job_of = {path: name for name, (_, paths) in jobs.items() for path in paths}

    @dg.sensor(
        name=SENSOR,
        jobs=[job for job, _ in jobs.values()],
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={"ledger", "policy"},
        description="Promotes a waiting candidate when its approvals are complete, closes it when its time is over, "
        "finishes a promotion that died half-way.",
    )
    def approvals(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now, ledger = datetime.now(UTC), context.resources.ledger
        attempts = json.loads(context.cursor or "{}")
        mark, (known, look_at) = ledger.mark(), attempts.pop(REST, ("", 0.0))
        if mark == known and now.timestamp() < look_at:
            return dg.SensorResult(skip_reason="Nothing was recorded since the last look.", cursor=context.cursor)
        wanted, passed_over = _look(context, pipelines, now)
        start, remembered = plan_attempts(wanted, attempts, now)
        names = tuple(f"{text.partition(':')[0]}|" for text in passed_over)
        remembered |= {key: tried for key, tried in attempts.items() if key.startswith(names)}
        requests = [
            dg.RunRequest(
                run_key=f"{item.key}|{attempt}|{now:%Y%m%dT%H%M%S}",  # the cursor counts; a key must not block for ever
                job_name=job_of[item.decision.pipeline],
                asset_selection=[_promotion(item.decision.pipeline)],
                partition_key=item.decision.partition,
                tags={LAUNCHED_BY_TAG: f"sensor:{SENSOR}", "ml_assets/why": item.why},
            )
            for item, attempt in start
        ]
        rest = [mark, now.timestamp() + REST_SECONDS]
        cursor = json.dumps({**remembered, REST: rest}, sort_keys=True)
        if requests:
            return dg.SensorResult(run_requests=requests, cursor=cursor)
        exhausted = [item for item in wanted if remembered[item.key][0] >= len(RETRY_AFTER)]
        reason = (
            f"{len(exhausted)} waiting candidates were not decided on in {len(RETRY_AFTER)} attempts; see their runs."
            if exhausted
            else "Nothing that waits has its approvals yet."
        )
        return dg.SensorResult(skip_reason="\n".join([reason, *passed_over]), cursor=cursor)

    return approvals


def _look(
    context: dg.SensorEvaluationContext, pipelines: Iterable[PipelinePath], now: datetime
) -> tuple[list[Due], list[str]]:
    """Return what is due of all pipelines, and a line for each that is paused or cannot be read."""
    ledger, policy = context.resources.ledger, context.resources.policy
    wanted: list[Due] = []
    passed_over: list[str] = []
    for path in pipelines:
        try:
            found = due_of(ledger, policy, path, now)
            pause = paused(ledger, path) if found else None
        except UNREADABLE as error:  # one pipeline's rows must not keep the others waiting
            passed_over.append(f"{'/'.join(path)}: {type(error).__name__}: {error}")
            context.log.exception(passed_over[-1])
            continue
        if pause is None:
            wanted += found
        else:
            passed_over.append(f"{'/'.join(path)}: {pause}.")
    return wanted, passed_over


Jobs = dict[str, tuple[Any, list[PipelinePath]]]


def _promotion_jobs(pipelines: Mapping[PipelinePath, TeamPipeline]) -> Jobs:
    """Return a job for each kind of partitions, by name, with its pipelines: a job cannot hold two kinds."""
    alike: dict[str, list[PipelinePath]] = {}
    for path, pipeline in sorted(pipelines.items()):
        alike.setdefault(f"promote_{pipeline.time.get_serializable_unique_identifier()[:8]}", []).append(path)
    return {
        name: (dg.define_asset_job(name, dg.AssetSelection.assets(*map(_promotion, paths))), paths)
        for name, paths in alike.items()
    }


def _promotion(path: PipelinePath) -> dg.AssetKey:
    return dg.AssetKey([*path, "promotion"])
