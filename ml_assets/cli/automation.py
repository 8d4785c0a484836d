"""`ml-assets automation`: why a pipeline did or did not retrain by itself, and a person's request that it does."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click

from ml_assets.cli.arguments import Sentence, current_project, pipeline_path
from ml_assets.cli.backfill import find_pipeline
from ml_assets.interfaces import Record
from ml_assets.retraining.attempts import Attempt, History
from ml_assets.retraining.decide import decide
from ml_assets.retraining.decision import RetrainingDecision
from ml_assets.retraining.gathering import gather
from ml_assets.retraining.pauses import paused
from ml_assets.retraining.recording import KIND, history_of, request_retraining
from ml_assets.stages.step import Step
from ml_assets.texts import visible_text

OUTCOMES = {"retrain": "retrain now", "wait": "wait", "stop": "stop"}


@click.group()
def automation() -> None:
    """Show why a pipeline did or did not retrain by itself, and ask for a retraining."""


@automation.command()
@click.argument("pipeline", metavar="TEAM/PIPELINE")
@click.option("--last", default=5, show_default=True, type=click.IntRange(min=0), help="Recorded decisions to show.")
def explain(pipeline: str, last: int) -> None:
    """Say what would be decided now, what speaks for and against it, and what was decided before.

    Nothing is recorded and nothing starts.
    """
    project = current_project()
    services = project.profile.services()
    step = Step(pipeline=find_pipeline(project, pipeline), services=services, partition="", run_id="")
    now, history = datetime.now(UTC), history_of(services.ledger, step.path)
    decision = decide(gather(step, history, now), step.policy, now)
    records = services.ledger.records(step.path, kind=KIND)
    for line in [*decision_lines(pipeline, decision), *attempt_lines(history), *recorded_lines(records, last)]:
        click.echo(visible_text(line))


@automation.command()
@click.argument("pipeline", metavar="TEAM/PIPELINE")
@click.option("--reason", type=Sentence(), required=True, help="Why, in a sentence.")
def request(pipeline: str, reason: str) -> None:
    """Ask that the pipeline retrains for its newest complete period, as soon as no limit of the policy holds.

    A request passes the cool-down, the least number of new labels, an open breaker, and that the same data were
    trained on before. It does not pass a pause, the budget, or data that are not ready. It lapses after seven days.
    """
    project = current_project()
    path, services = pipeline_path(project, pipeline), project.profile.services()
    if not find_pipeline(project, pipeline).spec.automation.retraining:
        raise click.UsageError(
            f"{pipeline} does not retrain by itself: its YAML has no `automation.retraining: true`. "
            f"`ml-assets backfill {pipeline} --from … --to …` trains it now."
        )
    request_retraining(services.ledger, path, by=project.profile.user, reason=reason, now=datetime.now(UTC))
    held = paused(services.ledger, path)
    click.echo(f"Asked for. `ml-assets automation explain {pipeline}` says what becomes of it.")
    if held is not None:
        click.echo(visible_text(f"It waits: {held}"))


def decision_lines(pipeline: str, decision: RetrainingDecision) -> Iterator[str]:
    """Yield what would be decided now, with what speaks for and against it."""
    period = "" if decision.period is None else f" for {decision.period}"
    yield f"{pipeline}: {OUTCOMES[decision.outcome]}{period}"
    yield from (f"  because {reason}" for reason in decision.reasons)
    yield "Causes"
    yield from [f"  {'+' if cause.counts else 'o'} {cause.name:<12} {cause.sentence}" for cause in decision.causes] or [
        "  none"
    ]
    yield "Guards"
    yield from (f"  {'x' if guard.holds else '.'} {guard.name:<12} {guard.sentence}" for guard in decision.guards)
    if decision.outcome != "retrain":
        at = decision.next_look
        yield "Next look: " + (
            "when something new comes." if at is None else f"{at:%Y-%m-%d %H:%M} UTC, or when something new comes."
        )


def attempt_lines(history: History) -> Iterator[str]:
    """Yield the newest attempts, newest first."""
    yield "Last retrainings"
    yield from [_attempt(attempt) for attempt in reversed(history.attempts[-5:])] or ["  none"]


def _attempt(attempt: Attempt) -> str:
    begun = f"{attempt.starts[0]:%Y-%m-%d %H:%M}"
    ending = "under way" if attempt.is_open else attempt.ending or "lost, to be tried again"
    runs = f", {len(attempt.starts)} runs" if len(attempt.starts) > 1 else ""
    end = next(reversed(attempt.ends), None)
    why = f": {end.reason}" if end is not None and end.reason else ""
    run = f" (run {end.run_id[:8]}, {end.core_hours:.2f} core hours)" if end is not None and end.run_id else ""
    causes = ", ".join(attempt.causes)
    return f"  {begun}  {attempt.period}  {ending}{runs}  for {causes}{run}{why}"


def recorded_lines(records: Sequence[Record], last: int) -> Iterator[str]:
    """Yield the last recorded decisions, newest first."""
    decisions = [record for record in records if record.body.get("event") == "decision"]
    yield "Recorded decisions"
    shown = [_recorded(record) for record in decisions[::-1][:last]]
    yield from shown or ["  none"]


def _recorded(record: Record) -> str:
    body = record.body
    held = [guard["sentence"] for guard in body["guards"]]
    causes = [cause["sentence"] for cause in body["causes"] if cause["counts"]]
    at = "" if record.recorded_at is None else f"{record.recorded_at:%Y-%m-%d %H:%M}"
    why = (held or causes or ["nothing speaks for a retraining"])[0]
    return f"  {at}  {record.subject or '–'}  {body['outcome']:<8}{why}"
