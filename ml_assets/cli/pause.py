"""`ml-assets pause` and `ml-assets resume`: nothing of a team, a pipeline or at all starts by itself for a while."""

from datetime import UTC, datetime

import click

from ml_assets.cli.arguments import Sentence, current_project, pipeline_paths
from ml_assets.cli.project import Project
from ml_assets.interfaces import PipelinePath
from ml_assets.retraining import pauses
from ml_assets.texts import visible_text


@click.command()
@click.argument("scope", metavar="[TEAM|TEAM/PIPELINE]", required=False)
@click.option("--reason", type=Sentence(), required=True, help="Why, in a sentence.")
def pause(scope: str | None, reason: str) -> None:
    """Let nothing start by itself: no arrivals, retrainings or conditions, until `ml-assets resume`.

    Runs in progress go on, and people can start what they like.
    """
    project = current_project()
    covered, ledger = scope_of(project, scope), project.profile.services().ledger
    held = pauses.pause(ledger, covered, by=project.profile.user, reason=reason, now=datetime.now(UTC))
    click.echo(f"{visible_text(str(held))}\nNothing of it starts by itself until `{resuming(covered)}`.")


@click.command()
@click.argument("scope", metavar="[TEAM|TEAM/PIPELINE]", required=False)
@click.option("--reason", default="", help="Why, in a sentence.")
def resume(scope: str | None, reason: str) -> None:
    """End a pause of exactly this scope."""
    project = current_project()
    covered, ledger = scope_of(project, scope), project.profile.services().ledger
    ended = pauses.resume(ledger, covered, by=project.profile.user, reason=reason, now=datetime.now(UTC))
    if ended is None:
        click.echo(f"There is no pause of {words(covered)}.")
    else:
        click.echo(visible_text(f"Resumed: {words(covered)}. The pause that ended: {ended}"))
    for wider in pauses.scopes_of(covered):
        held = pauses.pause_of(ledger, wider)
        if held is not None:
            click.echo(visible_text(f"It stays paused by a wider one: {held} (`{resuming(wider)}` ends it)"))


def scope_of(project: Project, name: str | None) -> PipelinePath:
    """Return the scope that a team's or a pipeline's name, or nothing, means.

    Raises:
        click.UsageError: If there is no such team or pipeline, with those there are.
    """
    if name is None:
        return pauses.EVERYTHING
    if "/" in name:
        return pipeline_paths(project, name)[0]
    return project.location(name).name, pauses.ALL


def words(scope: PipelinePath) -> str:
    """Return a scope in words."""
    if scope == pauses.EVERYTHING:
        return "everything"
    return f"team {scope[0]}" if scope[1] == pauses.ALL else "/".join(scope)


def resuming(scope: PipelinePath) -> str:
    """Return the command that ends a pause."""
    named = [part for part in scope if part != pauses.ALL]
    return " ".join(["ml-assets resume", *(["/".join(named)] if named else [])])
