"""Retrains pipelines by themselves, for the causes and within the limits of their policies."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import dagster as dg

from ml_assets.assets.stage_asset import RESOURCE_KEYS
from ml_assets.assets.team_pipeline import TeamPipeline
from ml_assets.compute import largest
from ml_assets.errors import MlAssetsError
from ml_assets.interfaces import Ledger, PipelinePath
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.retraining.pauses import scopes_of
from ml_assets.retraining.turn import Start, take_turn
from ml_assets.stages.step import LAUNCHED_BY_TAG, Services, Step
from sensors.training_runs import RUN_TAG, DagsterRuns

SENSOR = "retraining"
INTERVAL_SECONDS = 10
WHY_TAG, ATTEMPT_TAG = "ml_assets/why", "ml_assets/automation"
HEARTBEAT = timedelta(minutes=15)
"""A pipeline is looked at this often even when its ledger is as it was: its policy may have changed."""
BUDGET_SECONDS = 25.0
"""Looking at pipelines ends after this time and goes on at the next tick: Dagster stops a tick after a minute."""
NO_SOONER = timedelta(seconds=INTERVAL_SECONDS)
UNREADABLE = (MlAssetsError, AttributeError, KeyError, TypeError, ValueError)
"""What reading a pipeline's policy, documents or tampered rows may raise."""


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """What the sensor remembers between ticks: all of it only saves work.

    Attributes:
        mark: Mark of the whole ledger at the last tick.
        seen: Pipeline → [what its rows of the ledger looked like, next look in seconds since the epoch].
    """

    mark: str = ""
    seen: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str | None) -> Self:
        """Return the cursor that `text` wrote; of another form, none."""
        try:
            values = json.loads(text or "{}")
            return cls(mark=values["mark"], seen={name: (h, float(at)) for name, (h, at) in values["seen"].items()})
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()

    @property
    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps({"mark": self.mark, "seen": self.seen}, separators=(",", ":"), sort_keys=True)


def build_retraining_sensor(pipelines: Mapping[PipelinePath, TeamPipeline]) -> dg.SensorDefinition:
    """Return the sensor that decides on retrainings of a code location's pipelines.

    Pipelines whose YAML does not say `automation.retraining: true` are not looked at.

    Args:
        pipelines: (team, pipeline) → the pipeline.
    """
    own = {path: pipeline for path, pipeline in pipelines.items() if pipeline.spec.automation.retraining}
    jobs = _training_jobs(own or pipelines)
    job_of = {path: name for name, (_, paths) in jobs.items() for path in paths}

    @dg.sensor(
        name=SENSOR,
        jobs=[job for job, _ in jobs.values()],
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys=set(RESOURCE_KEYS),
        description="Trains, evaluates and decides anew when new labels, harmful drift, decay, age or a person ask for "
        "it and no limit of the policy holds. `ml-assets automation explain TEAM/PIPELINE` says why (not).",
    )
    def retraining(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        services = Services(**{key: getattr(context.resources, key) for key in RESOURCE_KEYS})
        cursor, now = Cursor.of(context.cursor), datetime.now(UTC)
        mark = services.ledger.mark()
        seen = dict(cursor.seen)
        starts: list[Start] = []
        said: list[str] = []
        ends_at = time.monotonic() + BUDGET_SECONDS
        todo = due(services.ledger, own, cursor, mark, now)
        for number, (path, look) in enumerate(todo):
            if number and time.monotonic() >= ends_at:
                said.append(f"{len(todo) - number} pipelines are left for the next tick.")
                mark = ""
                break
            name = "/".join(path)
            try:
                runs = DagsterRuns(instance=context.instance, pipeline=path, cores=cores_of(own[path].loaded))
                turn = take_turn(_step(own[path], services), runs, now)
            except UNREADABLE as error:  # one pipeline must not keep the others waiting
                said.append(f"{name}: {type(error).__name__}: {error}")
                context.log.exception(said[-1])
                seen[name] = (look, (now + timedelta(minutes=1)).timestamp())
                continue
            starts += [turn.start] if turn.start is not None else []
            said.append(f"{name}: {turn.decision.outcome}: {turn.decision.reasons[0]}")
            soon = NO_SOONER if turn.start is not None else HEARTBEAT
            seen[name] = (look, max(now, min(turn.next_look or now + soon, now + soon)).timestamp())
        names = ("/".join(path) for path in own)
        remembered = Cursor(mark=mark, seen={name: seen[name] for name in names if name in seen})
        requests = [_request(start, own[start.pipeline], job_of[start.pipeline]) for start in starts]
        if requests:
            return dg.SensorResult(run_requests=requests, cursor=remembered.text)
        return dg.SensorResult(skip_reason="\n".join(said) or "Nothing changed.", cursor=remembered.text)

    return retraining


def due(
    ledger: Ledger, paths: Iterable[PipelinePath], cursor: Cursor, mark: str, now: datetime
) -> list[tuple[PipelinePath, str]]:
    """Return the pipelines to look at now, longest due first, each with what its rows of the ledger look like.

    While nothing at all was appended to the ledger, only the clock counts, and nothing is read.
    """
    heads: dict[PipelinePath, str] = {}

    def look(scope: PipelinePath) -> str:
        if scope not in heads:
            heads[scope] = "".join(f"{name[0]}{head.position}" for name, head in sorted(ledger.heads(scope).items()))
        return heads[scope]

    found: list[tuple[float, PipelinePath, str]] = []
    for path in paths:
        known, at = cursor.seen.get("/".join(path), ("", 0.0))
        if mark == cursor.mark and now.timestamp() < at:
            continue
        rows = "-".join(look(scope) for scope in scopes_of(path))
        if rows != known or now.timestamp() >= at:
            found.append((at, path, rows))
    return [(path, rows) for _, path, rows in sorted(found)]


def cores_of(pipeline: LoadedPipeline) -> dict[str, int]:
    """Return the cores that each step which may use several was given, by the step's key."""
    prefix = f"{pipeline.spec.team}__{pipeline.spec.name}__"
    cores = {f"{prefix}models__{name}": given.cores for name, given in pipeline.compute.items()}
    return cores | {f"{prefix}candidate": largest(list(pipeline.compute.values())).cores}


def model_stages(pipeline: TeamPipeline) -> list[dg.AssetKey]:
    """Return the assets of a retraining, in order."""
    variants = [("models", name) for name in pipeline.spec.variants]
    stages = [("row_index",), ("training_set",), *variants, ("candidate",), ("evaluation",), ("promotion",)]
    return [pipeline.key(*stage) for stage in stages]


def _step(pipeline: TeamPipeline, services: Services) -> Step:
    return Step(pipeline=pipeline.loaded, services=services, partition="", run_id="")


def _request(start: Start, pipeline: TeamPipeline, job: str) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=start.run_key,
        job_name=job,
        asset_selection=model_stages(pipeline),
        partition_key=start.period,
        tags={
            LAUNCHED_BY_TAG: f"sensor:{SENSOR}",
            "ml_assets/pipeline": "/".join(start.pipeline),
            WHY_TAG: start.why,
            ATTEMPT_TAG: start.key,
            RUN_TAG: start.run_key,
        },
    )


Jobs = dict[str, tuple[Any, list[PipelinePath]]]


def _training_jobs(pipelines: Mapping[PipelinePath, TeamPipeline]) -> Jobs:
    """Return a job for each kind of partitions, by name, with its pipelines: a job cannot hold two kinds."""
    alike: dict[str, list[PipelinePath]] = {}
    for path, pipeline in sorted(pipelines.items()):
        alike.setdefault(f"retrain_{pipeline.time.get_serializable_unique_identifier()[:8]}", []).append(path)
    return {
        name: (
            dg.define_asset_job(
                name, dg.AssetSelection.assets(*(key for path in paths for key in model_stages(pipelines[path])))
            ),
            paths,
        )
        for name, paths in alike.items()
    }
