"""`ml-assets inbox release`: ends batches that no sensor looks after, such as those of a pipeline that was removed."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from ml_assets.cli.arguments import current_project
from ml_assets.cli.project import Project
from ml_assets.delivery.tags import RUN_KEY_TAG
from ml_assets.errors import InboxError, SpecError
from ml_assets.interfaces import Batch, EventFailure, PipelinePath, RetryPolicy
from ml_assets.reading.placement import read_placed_pipeline

if TYPE_CHECKING:
    import dagster as dg

_NEVER_AGAIN = RetryPolicy(attempts=1, backoff=timedelta(0))


@click.command()
@click.argument("batch")
def release(batch: str) -> None:
    """End BATCH, which no sensor looks after: its pipeline was removed, or no longer starts by events.

    Its events become dead letters: discard them, or replay them when the pipeline is back. Refused, with code 1, while
    a run of the batch lives, and when a sensor looks after it.
    """
    project = current_project()
    inbox = project.profile.services().inbox
    found = next((one for one in inbox.batches() if one.name == batch), None)
    if found is None:
        raise InboxError(f"No batch {batch!r} goes on. `ml-assets inbox list` names those that no sensor looks after.")
    name = "/".join(found.pipeline)
    if is_looked_after(project, found.pipeline):
        raise InboxError(
            f"The batch {batch!r} is looked after by the sensor `arrivals` of {found.pipeline[0]}, which ends it when "
            f"its run is over. If that does not happen, start Dagster's daemon, or mend the YAML of {name}."
        )
    _end_runs(found)
    reason = f"Released by {project.profile.user}: nothing starts by events of {name} any more."
    failures = {event.number: EventFailure(reason=reason, transient=False) for event in found.events}
    dead = inbox.finish(batch, failures, retry=_NEVER_AGAIN, now=datetime.now(UTC))
    numbers = ", ".join(str(event.number) for event in dead)
    click.echo(f"The batch {batch} is over. Dead letters now: {numbers or 'none'}. See: ml-assets dead-letters list")


def is_looked_after(project: Project, path: PipelinePath) -> bool:
    """Whether a sensor of the project looks after a pipeline's batches; one with a broken YAML will be again."""
    files = {(file.parents[2].name, file.parent.name): file for file in project.pipeline_files()}
    if path not in files:
        return False
    try:
        automation = read_placed_pipeline(files[path]).spec.automation
    except SpecError:
        return True
    return bool(automation.arrivals or automation.after)


def abandoned(project: Project, batches: Iterable[Batch]) -> list[Batch]:
    """Return the batches that no sensor looks after."""
    known: dict[PipelinePath, bool] = {}
    found: list[Batch] = []
    for batch in batches:
        if batch.pipeline not in known:
            known[batch.pipeline] = is_looked_after(project, batch.pipeline)
        found += [] if known[batch.pipeline] else [batch]
    return found


def _end_runs(batch: Batch) -> None:
    """Cancel the batch's runs that never got into the queue.

    Raises:
        InboxError: If another run of it lives.
    """
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        runs = _runs(instance, batch)
        living = [run for run in runs if not run.is_finished and run.status != dg.DagsterRunStatus.NOT_STARTED]
        if living:
            raise InboxError(
                f"The batch {batch.name!r} has run {living[0].run_id}, which is {living[0].status.value.lower()}. "
                "Nothing was changed: cancel the run in Dagster's UI first, or wait for its end."
            )
        for run in runs:
            if not run.is_finished:
                instance.report_run_canceled(run, "Its batch of events was released before the run was submitted.")


def _runs(instance: "dg.DagsterInstance", batch: Batch) -> "list[dg.DagsterRun]":
    import dagster as dg

    runs = {run.run_id: run for run in instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: batch.name}))}
    own = None if batch.run_id is None else instance.get_run_by_id(batch.run_id)
    return list((runs if own is None else runs | {own.run_id: own}).values())
