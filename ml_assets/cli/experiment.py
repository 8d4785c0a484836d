"""`ml-assets experiment`: how the A/B arms of a pipeline do, on the labels that have arrived."""

import json
from typing import Any

import click

from ml_assets.cli.backfill import find_pipeline
from ml_assets.cli.project import load_project
from ml_assets.stages.experiment import Experiment, experiments


@click.command()
@click.argument("pipeline", metavar="TEAM/PIPELINE")
@click.option("--json", "as_json", is_flag=True, help="The whole reports as a JSON list.")
def experiment(pipeline: str, *, as_json: bool) -> None:
    """Say whether a challenger that scores a share of the rows is better, worse, or not decided yet.

    It may be asked at any time and as often as you like: the rule holds under peeking.
    """
    project = load_project()
    loaded = find_pipeline(project, pipeline)
    found = experiments(project.profile.services(), loaded)
    if as_json:
        click.echo(json.dumps([_document(each) for each in found], indent=2))
        return
    if not found:
        click.echo(
            f"No partition of {pipeline} was scored by two arms. The policy's ab.challenger_share gives a challenger "
            "that is undecided, and not materially different, a share of the rows."
        )
    for each in found:
        click.echo(
            f"version {each.challenger} against champion {each.champion}, {each.periods[0]} to {each.periods[-1]}, "
            f"planned share {each.share:g}: {each.report.sentence}"
        )


def _document(found: Experiment) -> dict[str, Any]:
    return {
        "champion": found.champion,
        "challenger": found.challenger,
        "periods": list(found.periods),
        "share": found.share,
        **found.report.to_document(),
    }
