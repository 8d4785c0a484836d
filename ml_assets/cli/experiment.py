"""`ml-assets experiment`: how the A/B arms of a pipeline do, on the labels that have arrived."""

import json

import click

from ml_assets.cli.backfill import find_pipeline
from ml_assets.cli.project import load_project
from ml_assets.stages.experiment import experiments


@click.command()
@click.argument("pipeline", metavar="TEAM/PIPELINE")
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON.")
def experiment(pipeline: str, *, as_json: bool) -> None:
    """Say whether a challenger that scores a share of the rows is better, worse, or not decided yet.

    It may be asked at any time and as often as you like: the rule holds under peeking.
    """
    project = load_project()
    loaded = find_pipeline(project, pipeline)
    found = experiments(project.profile.services(), loaded)
    if not found:
        click.echo(
            f"No partition of {pipeline} was scored by two arms. The policy's ab.challenger_share gives a challenger "
            "that is undecided, and not materially different, a share of the rows."
        )
    for each in found:
        if as_json:
            click.echo(
                json.dumps(
                    {"champion": each.champion, "challenger": each.challenger, "periods": each.periods}
                    | each.report.to_document()
                )
            )
            continue
        click.echo(
            f"version {each.challenger} against champion {each.champion}, {each.periods[0]} to {each.periods[-1]}, "
            f"planned share {each.share:g}: {each.report.sentence}"
        )
