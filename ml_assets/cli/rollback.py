"""`ml-assets rollback`: put the previous champion back in one command."""

import click

from ml_assets.cli.backfill import find_pipeline
from ml_assets.cli.project import load_project
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
    loaded = find_pipeline(project, pipeline)
    services = project.profile.services()
    if not reason.strip():
        raise click.BadParameter("say why in a sentence", param_hint="--reason")
    done = roll_back(
        services,
        (loaded.spec.team, loaded.spec.name),
        reason=reason.strip(),
        by=project.profile.user,
        expected=expected,
        without_successor=without_successor,
    )
    click.echo(f"Version {done.decision.model_version} of {done.decision.partition} is no longer champion.")
    if done.champion is None:
        click.echo(f"{pipeline} has no champion now; nothing scores until one is promoted.")
    else:
        click.echo(f"Version {done.champion.model_version} of {done.champion.partition} is champion again.")
    click.echo(
        "Predictions made with it stay as they are; to score them again, materialize `predictions` of their partitions."
    )
    click.echo(f"Dossier: {dossier_of(services, loaded, done.decision)}")
