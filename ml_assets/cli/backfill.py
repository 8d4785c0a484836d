"""`ml-assets backfill`: materialize a pipeline over a range of periods, oldest first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click
from rich.console import Console
from rich.markup import escape

from ml_assets.cli.done import Records, partitions_of, refused, remaining
from ml_assets.cli.plan import Backfill, check_range
from ml_assets.cli.progress import Engine, RunEnd
from ml_assets.cli.project import Project, load_project
from ml_assets.cli.tables import COLOURS, make_console, short_reason, summary
from ml_assets.periods import split_partition
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.reading.placement import read_placed_pipeline
from ml_assets.stages.champions import champion_before, latest_by_partition
from ml_assets.stages.step import Services


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a backfill is done.

    Attributes:
        data_only: Only raw data and features.
        again: Also what is done already.
        after_period: Called after a period's decision; whether the period is to be decided on again, such as after
            an approval.
    """

    data_only: bool = False
    again: bool = False
    after_period: Callable[[str], bool] = lambda _: False


@click.command()
@click.argument("pipeline", metavar="TEAM/PIPELINE")
@click.option("--from", "first", required=True, help="First period, such as 2013-01.")
@click.option("--to", "last", required=True, help="Last period, included.")
@click.option("--data-only", is_flag=True, help="Only raw_data and features.")
@click.option("--again", is_flag=True, help="Also what is materialized already.")
def backfill(pipeline: str, first: str, last: str, *, data_only: bool, again: bool) -> None:
    """Materialize TEAM/PIPELINE from one period to another.

    Raw data and features are done as one run over the range, then one run a period trains, evaluates and decides,
    oldest first, then the champions of their time score the range. What is done already is left out, so a second
    start goes on where the first one stopped.
    """
    project = load_project()
    loaded = find_pipeline(project, pipeline)
    check_range(loaded.spec, first, last)
    console = make_console()
    plan = Backfill(
        pipeline=loaded,
        module=project.location(loaded.spec.team).module,
        first=first,
        last=last,
        launched_by=project.profile.user,
    )
    ends = carry_out(project, plan, console, Options(data_only=data_only, again=again))
    console.print(summary(project.profile.services(), loaded, plan.periods))
    report_failures(console, ends)
    report_decisions(console, project, plan)
    if any(not end.succeeded for end in ends):
        raise SystemExit(1)


def find_pipeline(project: Project, name: str) -> LoadedPipeline:
    """Return a pipeline by "team/pipeline".

    Raises:
        click.UsageError: If there is none, with those there are.
    """
    known = {f"{file.parents[2].name}/{file.parent.name}": file for file in project.pipeline_files()}
    if name not in known:
        raise click.UsageError(f"There is no pipeline {name!r}; there are {', '.join(sorted(known))}.")
    return read_placed_pipeline(known[name])


def carry_out(project: Project, plan: Backfill, console: Console, options: Options) -> list[RunEnd]:
    """Carry out what is not done of a plan and return how its runs ended."""
    project.profile.initialise()
    with Engine(project.root, console, project.profile.state / "logs" / "engine.log") as engine:
        return list(_runs(project, plan, engine, options))


def report_failures(console: Console, ends: list[RunEnd]) -> None:
    """Print each failed step's message once."""
    for end in ends:
        for step, message in end.failures.items():
            console.print(
                f"[yellow]{end.title.strip()}[/yellow], {step.replace('__', '/')}: {message}",
                highlight=False,
                soft_wrap=True,
            )


def report_decisions(console: Console, project: Project, plan: Backfill) -> None:
    """Say in a line what became of each of the range's candidates and why; of those that wait also what to do."""
    name = f"{plan.spec.team}/{plan.spec.name}"
    latest = latest_by_partition(project.profile.services().ledger.decisions((plan.spec.team, plan.spec.name)))
    for period in plan.periods:
        decision = latest.get(period)
        if decision is None or decision.model_version is None:
            continue  # of a gate that closed the failed step has told
        colour, outcome = COLOURS[decision.outcome], decision.outcome.replace("_", " ")
        look = f" Look: ml-assets approvals show {name} {period}" if decision.outcome == "awaiting_approval" else ""
        told = f"{outcome}: {escape(short_reason(decision))}.{look}"
        console.print(
            f"[{colour}]{period}[/{colour}], version {decision.model_version} {told}",
            highlight=False,
            soft_wrap=True,
        )


def _runs(project: Project, plan: Backfill, engine: Engine, options: Options) -> Iterator[RunEnd]:
    import dagster as dg

    services = project.profile.services()
    with dg.DagsterInstance.get() as instance:
        records = Records(instance=instance, services=services)
        for run in plan.data_runs():
            rest = run if options.again else remaining(run, partitions_of(plan), plan, records)
            if rest is not None:
                yield engine.run(rest)
        if options.data_only:
            return
        for period in plan.periods:
            for run in plan.model_runs(period):
                rest = run if options.again else remaining(run, [period], plan, records)
                if rest is not None and (options.again or not refused(plan, period, services)):
                    yield engine.run(rest)
            if options.after_period(period):
                yield engine.run(plan.promotion_run(period))
        scorable = _scorable(plan, services)
        for run in plan.prediction_runs(list(dict.fromkeys(split_partition(p)[1] for p in scorable))):
            rest = run if options.again else remaining(run, scorable, plan, records)
            if rest is not None:
                yield engine.run(rest)


def _scorable(plan: Backfill, services: Services) -> list[str]:
    """Return the partitions that have a champion to be scored with."""
    decisions = services.ledger.decisions((plan.spec.team, plan.spec.name))
    return [p for p in partitions_of(plan) if champion_before(decisions, split_partition(p)[1]) is not None]
