"""`ml-assets demo`: land the first months of a team's data and take its pipeline through them, end to end."""

import importlib
import sys
from pathlib import Path

import click
from rich.panel import Panel

from ml_assets.cli.backfill import Options, carry_out, find_pipeline, report_decisions, report_failures
from ml_assets.cli.demo_reviewer import DemoReviewer
from ml_assets.cli.plan import Backfill
from ml_assets.cli.progress import RunEnd
from ml_assets.cli.project import Project, load_project
from ml_assets.cli.tables import make_console, summary
from ml_assets.errors import MlAssetsError
from ml_assets.periods import Periods

DEMO_PIPELINES = {"flights": "flights/arrival_delay", "births": "births/daily_births"}
FIRST_MODELS = {"flights": 3, "births": 2}
"""Which period's model is the first to pass the gates: that of the second month of flights is not surely better than
the baseline."""


@click.command()
@click.option("--team", type=click.Choice(sorted(DEMO_PIPELINES)), default="flights", show_default=True)
@click.option(
    "--periods",
    "count",
    type=click.IntRange(2, 20),
    default=6,
    show_default=True,
    help="Periods from the first; at least 3 of flights and 2 of births, whose first model comes then.",
)
def demo(team: str, count: int) -> None:
    """Land the first periods of real data and materialize the pipeline for them through the Dagster engine."""
    if count < FIRST_MODELS[team]:
        raise click.BadParameter(
            f"{count} periods of {team} end before its first model; expected at least {FIRST_MODELS[team]}.",
            param_hint="--periods",
        )
    project, console = load_project(), make_console()
    loaded = find_pipeline(project, DEMO_PIPELINES[team])
    spec = loaded.spec
    periods = Periods.of(spec.partitions, spec.source.event_time.timezone)
    last = periods.shift(spec.partitions.start, count - 1)
    keys = periods.between(spec.partitions.start, last)
    console.print(f"[bold]{spec.team}/{spec.name}[/bold]  {spec.description}")
    landed = importlib.import_module(f"deployments.{team}.land").land(Path(project.profile.landing_url), keys)
    console.print(
        f"Landed {len(landed)} new files for {keys[0]} to {keys[-1]} in {_shown(project, project.profile.landing_url)}."
    )
    plan = Backfill(
        pipeline=loaded,
        module=project.location(spec.team).module,
        first=keys[0],
        last=last,
        launched_by=project.profile.user,
    )
    reviewer = DemoReviewer(project=project, console=console)
    options = Options(after_period=lambda period: reviewer.after_period((spec.team, spec.name), period))
    ends = carry_out(project, plan, console, options)
    console.print(summary(project.profile.services(), loaded, keys))
    report_failures(console, ends)
    report_decisions(console, project, plan)
    console.print(_next_steps(project, team, last, spec.name))
    if _broken(project, plan, ends):
        raise SystemExit(1)


def _next_steps(project: Project, team: str, last: str, name: str) -> Panel:
    state = _shown(project, str(project.profile.state))
    lines = [
        "[bold]make dev[/bold]               the Dagster UI and the MLflow UI on what you have just made:",
        f"                       Assets, {team}/{name}/evaluation, partition {last}: pictures, slices",
        f"[bold]ml-assets history[/bold]      {team}/{name}: every decision, approval and alias move, in plain words",
        f"[bold]ml-assets approvals[/bold]    list: what waits for you; the dossiers lie in {state}/dossiers",
        f"[bold]ml-assets status[/bold]       what is there, gated and promoted; {_activate(project)}",
        f"[bold]ml-assets new[/bold]          a pipeline of your own, beside deployments/{team}/defs/{name}/defs.yaml",
        f"Everything made here lies in {state}; remove that folder to start over.",
    ]
    return Panel("\n".join(lines), title="What to open next", title_align="left", expand=False)


def _broken(project: Project, plan: Backfill, ends: list[RunEnd]) -> bool:
    """Whether something failed that is no gate's decision: a period held back by its gate is part of the story."""
    decisions = project.profile.services().ledger.decisions((plan.spec.team, plan.spec.name))
    refused = {d.partition for d in decisions if d.outcome == "refused"}
    unexplained = [e for e in ends if not e.succeeded and not any(e.title.startswith(period) for period in refused)]
    if not any(d.outcome in ("promoted", "awaiting_approval") for d in decisions):
        raise MlAssetsError("The demo promoted no model; see the messages above.")
    return bool(unexplained)


def _activate(project: Project) -> str:
    """Return how to have the command at hand in this shell."""
    inside = Path(sys.executable).is_relative_to(project.root)
    return f"`source {_shown(project, str(Path(sys.executable).parent))}/activate` has the command" if inside else ""


def _shown(project: Project, path: str) -> str:
    """Return a path below the project's root as one would type it."""
    return str(Path(path).relative_to(project.root)) if Path(path).is_relative_to(project.root) else path
