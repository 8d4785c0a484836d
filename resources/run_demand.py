"""What a run needs and costs: its steps' op tags, from the snapshot of its execution plan, and its own tags."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import RunRecord  # noqa: TID251 - with the times of a run
from dagster._core.storage.tags import PRIORITY_TAG  # noqa: TID251

from ml_assets.compute import CORES_TAG, GPU_REQUIRED_TAG, GPUS_TAG, PRICE_TAG, PROFILE_TAG
from ml_assets.interfaces import ComputeRules
from ml_assets.sharing.runs import RUNS, QueuedRun, RunningRun

TEAM_TAG = "ml_assets/team"
"""Run tag: whose the run is."""

_MOST_PLANS = 500


@dataclass(frozen=True, kw_only=True)
class StepDemand:
    """What one step asks for.

    Attributes:
        cores: Processor cores.
        gpus: Graphics processors.
        gpu_required: Whether it cannot run without them.
        price_per_hour: 0 without a price.
        profile: Compute profile; empty without one.
    """

    cores: int = 1
    gpus: int = 0
    gpu_required: bool = False
    price_per_hour: float = 0.0
    profile: str = ""


class Plans:
    """The demands of execution plans, each read once.

    Args:
        instance: Whose snapshots are read.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._known: dict[str, dict[str, StepDemand]] = {}

    def steps(self, run: dg.DagsterRun) -> Mapping[str, StepDemand]:
        """Return what each step of a run asks for; nothing for a run without a plan."""
        plan_id = run.execution_plan_snapshot_id
        if plan_id is None:
            return {}
        found = self._known.get(plan_id)
        if found is None:
            plan = self._instance.get_execution_plan_snapshot(plan_id)
            executed = set(plan.step_keys_to_execute)
            found = {step.key: _demand(step.tags or {}) for step in plan.steps if step.key in executed}
            while len(self._known) >= _MOST_PLANS:  # other threads of a webserver may do the same
                self._known.pop(next(iter(list(self._known)), ""), None)
            self._known[plan_id] = found
        return found


def _demand(tags: Mapping[str, str]) -> StepDemand:
    return StepDemand(
        cores=max(1, whole(tags.get(CORES_TAG, "1"))),
        gpus=whole(tags.get(GPUS_TAG, "0")),
        gpu_required=tags.get(GPU_REQUIRED_TAG) == "true",
        price_per_hour=price(tags.get(PRICE_TAG, "0")),
        profile=tags.get(PROFILE_TAG, ""),
    )


def sharing_tags(run: dg.DagsterRun, steps: Mapping[str, StepDemand], rules: ComputeRules) -> dict[str, str]:
    """Return the run tags that say whose a run is and what it takes: the largest demand of any one step.

    What stood there before, such as the tags of a run that is executed again, is replaced. A step that can do without
    its GPUs takes none where there are never as many.
    """
    there_are = rules.capacity.get("gpus")
    gpus = [step.gpus for step in steps.values() if step.gpu_required or there_are is None or step.gpus <= there_are]
    highest = max((step.price_per_hour for step in steps.values()), default=0.0)
    tags = {
        TEAM_TAG: team_of(run),
        GPUS_TAG: str(max(gpus, default=0)),
        CORES_TAG: str(max((step.cores for step in steps.values()), default=1)),
    }
    if highest > 0 or PRICE_TAG in run.tags:
        tags[PRICE_TAG] = f"{highest:.10f}".rstrip("0").rstrip(".")
    return tags


def team_of(run: dg.DagsterRun) -> str:
    """Return the team of a run's assets, their keys' first part; else its code location.

    When the assets are of several teams, it is the code location's, or the first by name.
    """
    location = run.remote_job_origin.location_name if run.remote_job_origin else ""
    keys = [*(run.asset_selection or ()), *(check.asset_key for check in run.asset_check_selection or ())]
    teams = sorted({key.path[0] for key in keys})
    return location if location in teams or not teams else teams[0]


def pipeline_of(run: dg.DagsterRun) -> str:
    """Return the name of the one pipeline that a run is of; empty when it is of several, or of none."""
    names = {key.path[1] for key in run.asset_selection or () if len(key.path) > 1}
    return names.pop() if len(names) == 1 else ""


def queued_run(record: RunRecord) -> QueuedRun:
    """Return a run that waits, by its tags."""
    run = record.dagster_run
    return QueuedRun(
        run_id=run.run_id,
        team=run.tags.get(TEAM_TAG) or team_of(run),
        demand=_held(run),
        priority=_priority(run.tags.get(PRIORITY_TAG, "0")),
        submitted=record.create_timestamp,
        price_per_hour=price(run.tags.get(PRICE_TAG, "0")),
    )


def running_run(record: RunRecord) -> RunningRun:
    """Return a run in progress, by its tags."""
    run, started = record.dagster_run, record.start_time
    return RunningRun(
        run_id=run.run_id,
        team=run.tags.get(TEAM_TAG) or team_of(run),
        demand=_held(run),
        started=None if started is None else datetime.fromtimestamp(started, UTC),
    )


def _held(run: dg.DagsterRun) -> dict[str, int]:
    gpus, cores = whole(run.tags.get(GPUS_TAG, "0")), whole(run.tags.get(CORES_TAG, "1"))
    return ({"gpus": gpus} if gpus else {}) | {"cores": cores, RUNS: 1}


def whole(text: Any) -> int:
    """Return a whole number of 0 or more; 0 for any other text, as tags are anybody's."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else 0


def price(text: str) -> float:
    """Return a price of 0 or more; 0 for any other text."""
    try:
        found = float(text)
    except ValueError:
        return 0.0
    return found if 0 <= found < float("inf") else 0.0


def _priority(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0
