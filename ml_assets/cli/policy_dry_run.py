"""`ml-assets policy dry-run`: what a changed policy tree would have made of the last decisions."""

from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ml_assets.cli.project import Project, load_project
from ml_assets.cli.tables import COLOURS, make_console
from ml_assets.errors import SpecError
from ml_assets.reading.placement import read_placed_pipeline
from ml_assets.stages.replay import Replayed, replay


@click.command("dry-run")
@click.argument("pipelines", metavar="[TEAM/PIPELINE]...", nargs=-1)
@click.option("--tree", metavar="FOLDER", help="The changed policy tree; the project's own when left out.")
@click.option("--last", type=click.IntRange(1), default=30, show_default=True, help="So many decisions a pipeline.")
@click.option("--all", "show_all", is_flag=True, help="Also show the decisions that stay as they are.")
def dry_run(pipelines: tuple[str, ...], tree: str | None, last: int, *, show_all: bool) -> None:
    """Decide the last decisions again under a changed policy tree, and show which would differ. Nothing is changed."""
    project, console = load_project(), make_console()
    services = project.profile.services()
    policy = services.policy if tree is None else project.profile.policy_source(tree)
    found: list[Replayed] = []
    for file in _files(project, pipelines):
        try:
            spec = read_placed_pipeline(file).spec
        except SpecError as error:
            raise click.ClickException(str(error)) from error
        decisions = services.ledger.decisions((spec.team, spec.name))[-last:]
        found += replay(services, spec, decisions, policy.effective((spec.team, spec.name)))
    shown = found if show_all else [r for r in found if r.differs or r.outcome is None]
    for name in dict.fromkeys("/".join(row.decision.pipeline) for row in shown):
        console.print(_table(name, [row for row in shown if "/".join(row.decision.pipeline) == name]))
    differing, unknown = sum(r.differs for r in found), sum(r.outcome is None for r in found)
    console.print(
        f"{differing} of {len(found)} decisions would differ"
        + (f"; {unknown} cannot be made again" if unknown else "")
        + ". Approvals of people are not replayed, and each is decided against the champion it was compared with.",
        highlight=False,
    )


def _files(project: Project, names: tuple[str, ...]) -> list[Path]:
    known = {f"{file.parents[2].name}/{file.parent.name}": file for file in project.pipeline_files()}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise click.UsageError(f"There is no pipeline {', '.join(unknown)}; there are {', '.join(sorted(known))}.")
    return [known[name] for name in names or sorted(known)]


def _table(name: str, rows: list[Replayed]) -> Table:
    table = Table(title=name, title_justify="left", title_style="bold", box=SIMPLE_HEAD, header_style="bold")
    for column in ("partition", "was", "would be", "why by the other policy"):
        table.add_column(column, no_wrap=not column.startswith("why"))
    for row in rows:
        would = row.outcome or "unknown"
        table.add_row(
            row.decision.partition,
            Text(row.decision.outcome.replace("_", " "), style=COLOURS[row.decision.outcome]),
            Text(would.replace("_", " "), style=COLOURS.get(would, "dim")),
            Text(row.reason),
        )
    return table
