"""Reads from Dagster's event log what became of a run that carried events."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ml_assets.delivery.outcome import PartitionFailure, RunFacts, StepFailure, end_of
from ml_assets.delivery.tags import FAILED_PARTITIONS
from ml_assets.interfaces import PipelinePath

PAGE = 1000
_TYPES = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.RUN_CANCELED,
}


def run_facts(instance: dg.DagsterInstance, run_id: str, pipeline: PipelinePath) -> RunFacts | None:
    """Return what the event log has of a run, or None while it is not over."""
    run = instance.get_run_by_id(run_id)
    if run is None:
        return RunFacts(run_id=run_id, ended="gone")
    if not run.is_finished:
        return None
    made: dict[str, set[str]] = {}
    refused: dict[tuple[str, str], str] = {}
    failures: list[StepFailure] = []
    message = ""
    alone = run.tags.get("dagster/partition", "")
    for event in _events(instance, run_id):
        if event.is_step_materialization and (stage := _stage(event.asset_key, pipeline)):
            made.setdefault(stage, set()).add(event.partition or alone)
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            stage = _stage(check.asset_key, pipeline)
            if stage and check.blocking and not check.passed and (partition := check.partition or alone):
                gate = check.check_name.replace("__", ".")
                refused[stage, partition] = f"gate {gate} is closed: {check.description}"
        elif event.is_step_failure:
            failures.append(_step_failure(event))
        elif event.is_run_failure or event.event_type == dg.DagsterEventType.RUN_CANCELED:
            message = event.message or ""
    return RunFacts(
        run_id=run_id,
        ended=run.status.value.lower(),
        made={stage: frozenset(partitions) for stage, partitions in made.items()},
        refused=refused,
        failures=failures,
        message=message,
    )


def _events(instance: dg.DagsterInstance, run_id: str) -> Iterator[Any]:
    cursor, more = None, True
    while more:
        page = instance.get_records_for_run(run_id, cursor=cursor, of_type=_TYPES, limit=PAGE)
        yield from (record.event_log_entry.dagster_event for record in page.records)
        cursor, more = page.cursor, page.has_more


def _stage(key: dg.AssetKey | None, pipeline: PipelinePath) -> str:
    """Return the stage of a pipeline's own asset, or nothing."""
    return key.path[2] if key is not None and tuple(key.path[:2]) == pipeline and len(key.path) == 3 else ""


def _step_failure(event: Any) -> StepFailure:
    data = event.step_failure_data
    told, message = {}, ""
    if data.user_failure_data is not None:
        message = data.user_failure_data.description or ""
        listed = data.user_failure_data.metadata.get(FAILED_PARTITIONS)
        told = {} if listed is None else listed.value
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    if not message:
        message = "the step ended without a message" if error is None else error.message.strip()
    return StepFailure(
        stage=(event.step_key or "").rpartition("__")[2] or "the run",
        message=message,
        traceback="" if data.error is None else end_of(data.error.to_string()),
        partitions={partition: PartitionFailure(**facts) for partition, facts in told.items()},
    )
