"""`ml-assets deploy`: add a team to a cluster installation, and check one before Helm does."""

from pathlib import Path

import click

from ml_assets.cli.arguments import current_project
from ml_assets.cli.chart_stops import stop_problems, stop_warnings
from ml_assets.cli.chart_values import FOLDER, form_problems, read_chart_values, sorted_problems
from ml_assets.cli.deploy_check import fit_problems, fit_warnings
from ml_assets.cli.new_team import missing_files
from ml_assets.cli.team_files import written
from ml_assets.errors import SpecError
from ml_assets.reading import wording
from ml_assets.reading.placement import read_placed_pipeline


@click.group()
def deploy() -> None:
    """Check a cluster installation, and add teams to it."""


@deploy.command()
@click.option("--namespace", default="ml-assets", help="Namespace of the release.", show_default=True)
def check(namespace: str) -> None:
    """Check deployments/kubernetes/values.yaml against the chart, the code locations and the compute profiles.

    Every problem is told at once; nothing is sent anywhere.
    """
    project = current_project()
    try:
        values = read_chart_values(project.root)
    except SpecError as error:
        problems, warnings, teams = list(error.problems), [], 0
    else:
        problems, warnings = form_problems(values), []
        teams = 0 if problems else len(values.merged["teams"])
        if not problems:
            rules = project.profile.services().policy.compute()
            problems = [*stop_problems(values, namespace=namespace), *fit_problems(values, project, rules)]
            warnings = [*stop_warnings(values), *fit_warnings(values, rules)]
    for problem in sorted_problems(problems):
        click.echo(str(problem), err=True)
    for warning in sorted_problems(warnings):
        click.echo(f"warning: {warning}", err=True)
    if problems:
        click.echo(f"{wording.count(len(problems), 'problem')} in {FOLDER}.", err=True)
        raise SystemExit(1)
    click.echo(f"{wording.count(teams, 'team')} without a problem.")


@deploy.command("new-team")
@click.argument("team", metavar="NAME")
@click.option("--pipeline", default="example", help="Name of the pipeline to start from.", show_default=True)
@click.option("--cores", type=int, help="Processor cores of its quota; the default of all teams otherwise.")
@click.option("--memory-gib", type=int, help="Memory of its quota in GiB; the default of all teams otherwise.")
@click.option("--gpus", type=int, help="GPUs of its quota; the default of all teams otherwise.")
def new_team(team: str, pipeline: str, cores: int | None, memory_gib: int | None, gpus: int | None) -> None:
    """Add a team: its code location with a pipeline to start from, its policy file, and its entry in the Helm values.

    What is there already stays as it is; a team that is complete is refused. All files are written, or none.
    """
    root = current_project().root
    amounts = {"cores": cores, "memoryGib": memory_gib, "gpus": gpus}
    try:
        texts = missing_files(root, team, {n: a for n, a in amounts.items() if a is not None}, pipeline=pipeline)
    except SpecError as error:
        raise click.UsageError("\n".join(str(problem) for problem in error.problems)) from error
    if not texts:
        raise click.UsageError(f"Team {team!r} is complete already; nothing was changed.")
    with written(texts):
        _require_valid(root, texts)
    for path in texts:
        click.echo(f"wrote {path.relative_to(root)}")
    click.echo(
        f"\nNext: `ml-assets deploy check`; edit the pipeline in deployments/{team}/defs; build the image; "
        "`helm upgrade` as docs/guides/kubernetes.md says."
    )


def _require_valid(root: Path, texts: dict[Path, str]) -> None:
    for path in texts:
        if path.name == "defs.yaml":
            try:
                read_placed_pipeline(path)
            except SpecError as error:  # a template that does not validate is our mistake, and must not be hidden
                raise click.ClickException(f"{path.relative_to(root)}: {error}") from error
