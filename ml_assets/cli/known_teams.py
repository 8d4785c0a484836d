"""Refuses the name of a team that nobody knows, so that a typing error does not look like a team with nothing."""

from collections.abc import Iterable

import click

from ml_assets.cli.project import Project
from ml_assets.interfaces import ComputeRules
from ml_assets.interfaces.spend import SpendStore
from ml_assets.reading import wording


def require_team(
    project: Project, name: str, rules: ComputeRules, spend: SpendStore, others: Iterable[str] = ()
) -> None:
    """Pass the name of a team that has a code location, stands in the rules, or ever spent something.

    Args:
        project: Whose code locations there are.
        name: As somebody typed it.
        rules: Of compute.
        spend: Asked only about a name that is known nowhere else.
        others: Further teams that there are, such as those in the run queue.

    Raises:
        click.UsageError: If nobody knows the team, with the teams there are.
        LedgerError: If what teams spent cannot be read.
    """
    known = {*(location.name for location in project.locations), *rules.teams, *others}
    if name in known:
        return
    known |= set(spend.teams())
    if name in known:
        return
    hint = wording.did_you_mean(name, sorted(known))
    there_are = wording.listed(sorted(known)) or "none"
    raise click.UsageError(
        f"There is no team {wording.quoted(name)}; there are {there_are} (of workspace.yaml, of compute.yaml and of "
        f"what was spent so far){'; ' if hint else '.'}{hint}"
    )
