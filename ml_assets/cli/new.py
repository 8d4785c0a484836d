"""`ml-assets new`: a complete, valid pipeline to start from, and its team's code location when it has none."""

import click

from ml_assets.cli.project import load_project
from ml_assets.cli.team_files import location_files, pipeline_files, require_name, with_location, written
from ml_assets.errors import SpecError
from ml_assets.reading.placement import read_placed_pipeline


@click.command()
@click.argument("pipeline", metavar="TEAM/NAME")
def new(pipeline: str) -> None:
    """Write a pipeline to start from: deployments/TEAM/defs/NAME/defs.yaml and features.py."""
    project = load_project()
    team, _, name = pipeline.partition("/")
    require_name("team", team, "TEAM/NAME")
    require_name("pipeline", name, "TEAM/NAME")
    folder = project.root / "deployments" / team / "defs" / name
    if folder.exists():
        raise click.UsageError(f"{folder.relative_to(project.root)} exists already; nothing was changed.")
    texts = {}
    if not any(location.name == team for location in project.locations):
        workspace = project.root / "workspace.yaml"
        texts = location_files(project.root, team)
        texts[workspace] = with_location(workspace.read_text(encoding="utf-8"), team)
    texts |= pipeline_files(project.root, team, name)
    with written(texts):
        try:
            read_placed_pipeline(folder / "defs.yaml")
        except SpecError as error:  # a template that does not validate is our mistake, and must not be hidden
            raise click.ClickException(str(error)) from error
    for path in texts:
        click.echo(f"wrote {path.relative_to(project.root)}")
    click.echo(
        f"\nNext: edit it, then `ml-assets validate {folder.relative_to(project.root)}`; "
        f"`ml-assets dev` shows it under {team} (one that runs already: reload all code locations)."
    )
