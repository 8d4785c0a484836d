"""`ml-assets dossier`: the page of a decision, written anew from what is recorded."""

import click

from ml_assets.cli.backfill import find_pipeline
from ml_assets.cli.project import load_project
from ml_assets.stages.dossiers import dossier_of


@click.command()
@click.argument("pipeline", metavar="TEAM/PIPELINE")
@click.argument("partition", metavar="[PARTITION]", required=False)
def dossier(pipeline: str, partition: str | None) -> None:
    """Write the dossier of the last decision on PARTITION of TEAM/PIPELINE and print its place.

    Without PARTITION it is that of the pipeline's last decision. What the pipeline decided has its dossier already;
    this is for what people did since, such as a rejection.
    """
    project = load_project()
    loaded = find_pipeline(project, pipeline)
    services = project.profile.services()
    decisions = services.ledger.decisions((loaded.spec.team, loaded.spec.name))
    chosen = [d for d in decisions if partition is None or d.partition == partition]
    if not chosen:
        known = ", ".join(sorted({d.partition for d in decisions})) or "nothing"
        raise click.UsageError(f"Nothing was decided on {partition or pipeline} yet; decided on: {known}.")
    click.echo(dossier_of(services, loaded, chosen[-1]))
