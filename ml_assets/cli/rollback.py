"""`ml-assets rollback`: put the previous champion back in one command."""

import click

from ml_assets.cli.arguments import pipeline_path
from ml_assets.cli.backfill import find_pipeline
from ml_assets.cli.project import load_project
from ml_assets.errors import MlAssetsError
from ml_assets.stages.dossiers import dossier_of
from ml_assets.stages.rollback import roll_back


@click.command()
@click.argument("pipeline", metavar="TEAM/PIPELINE")
@click.option("--reason", required=True, help="Why, for the record.")
@click.option("--expected", metavar="VERSION", help="Only when this version is champion still.")
@click.option("--without-successor", is_flag=True, help="Also when there is no earlier champion: nothing scores then.")
def rollback(pipeline: str, reason: str, expected: str | None, *, without_successor: bool) -> None:
    """Take the champion of TEAM/PIPELINE back; the promotion before it is in force again at once."""
    project = load_project()
    path = pipeline_path(project, pipeline)  # not its YAML: that may be broken in an emergency
    services = project.profile.services()
    if not reason.strip():
        raise click.BadParameter("say why in a sentence", param_hint="--reason")
    done = roll_back(
        services,
        path,
        reason=reason.strip(),
        by=project.profile.user,
        expected=expected,
        without_successor=without_successor,
    )
    partition = done.decision.partition
    click.echo(f"Version {done.decision.model_version} of {partition} is no longer champion.")
    if done.champion is None:
        click.echo(f"{pipeline} has no champion now; nothing scores until one is promoted.")
    else:
        click.echo(f"Version {done.champion.model_version} of {done.champion.partition} is champion again.")
    if done.note:
        click.echo(f"Note: {done.note}")
    click.echo(
        "Predictions made with it stay as they are; to score them again, materialize their `predictions`. "
        f"To have {partition} decided again, materialize its `candidate`, `evaluation` and `promotion`."
    )
    try:
        click.echo(f"Dossier: {dossier_of(services, find_pipeline(project, pipeline), done.decision)}")
    except MlAssetsError as error:
        click.echo(f"The rollback is recorded; its dossier could not be written: {error}")
