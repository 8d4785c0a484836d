"""Adds a team to a cluster installation: what of it is missing, as texts of files, each with its comments kept."""

import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ml_assets.cli.chart_stops import stop_problems
from ml_assets.cli.chart_values import FOLDER, ChartValues, form_problems, read_chart_values
from ml_assets.cli.team_files import location_files, locations_in, pipeline_files, require_name, with_location
from ml_assets.errors import SpecError
from ml_assets.reading import wording

MOST_CHARACTERS = 40
"""A team's name is part of its namespace's, which has 63 characters."""
_INDEPENDENT = re.compile(r"^modules = \[(?P<modules>[^\]]*deployments\.[^\]]*)\]", re.MULTILINE)


def missing_files(root: Path, team: str, quota: Mapping[str, int], *, pipeline: str) -> dict[Path, str]:
    """Return the files to write so that a team is complete, with their texts; empty when it is already.

    Args:
        root: The project's root.
        team: The team's name.
        quota: What of the quota is not the default of all teams, such as {"gpus": 2}.
        pipeline: Name of the pipeline to start from; it is left out when the team has one.

    Raises:
        click.UsageError: If the name is not one that a team can have, or a file cannot be extended by itself.
        SpecError: If the installation's values cannot be read.
    """
    require_name("team", team)
    require_name("pipeline", pipeline)
    if len(team) > MOST_CHARACTERS or team.endswith("_"):
        raise click.UsageError(
            f"{team!r} is no name for a team on a cluster: expected at most {MOST_CHARACTERS} characters, the last "
            "one a letter or digit, since it becomes the name of a Kubernetes namespace."
        )
    texts: dict[Path, str] = {}
    values = read_chart_values(root)
    values_file = root / FOLDER / "values.yaml"
    if not any(entry["name"] == team for entry in _listed(values)):
        texts[values_file] = _with_team(root, values_file.read_text(encoding="utf-8"), team, quota)
    texts |= location_files(root, team)
    workspace = (root / "workspace.yaml").read_text(encoding="utf-8")
    if team not in locations_in(workspace):
        texts[root / "workspace.yaml"] = with_location(workspace, team)
    if not list((root / "deployments" / team / "defs").glob("*/defs.yaml")):
        texts |= pipeline_files(root, team, pipeline)
    policy = root / "policies" / "teams" / f"{team}.yaml"
    if not policy.exists():
        texts[policy] = _policy(team)
    return texts | _contract(root, team)


def _listed(values: ChartValues) -> list[dict[str, Any]]:
    teams = values.merged.get("teams") or []
    if not all(isinstance(entry, dict) and "name" in entry for entry in teams):
        raise click.UsageError(f"{values.document.file}: `teams` has problems; `ml-assets deploy check` tells them.")
    return teams


def _with_team(root: Path, text: str, team: str, quota: Mapping[str, int]) -> str:
    """Return the text of the installation's values with the team at the end of its list."""
    before = read_chart_values(root, text=text)
    document, lines = before.document, text.splitlines(keepends=True)
    entry = [f"name: {team}"]
    if quota:
        entry.append("quota: {" + ", ".join(f"{name}: {amount}" for name, amount in quota.items()) + "}")
    if not before.document.data.get("teams"):
        changed = [line for number, line in enumerate(lines, 1) if number != document.lines.get(("teams",))]
        end, indent, head = len(changed), "  ", ["teams:\n"]
        lines = [line.rstrip("\n") + "\n" for line in changed]
    else:
        end, head = _end_of(document.lines, ("teams",), lines), []
        first = lines[document.line(("teams", 0)) - 1]
        indent = first[: len(first) - len(first.lstrip())]
        lines[end - 1] = lines[end - 1].rstrip("\n") + "\n"
    item = [f"{indent}- {entry[0]}\n", *(f"{indent}  {line}\n" for line in entry[1:])]
    result = "".join([*lines[:end], *head, *item, *lines[end:]])
    _require_added(root, before, result, team)
    return result


def _end_of(lines_of: Mapping[Any, int], path: tuple[str], lines: list[str]) -> int:
    """Return how many lines there are up to the end of a top-level value, comments of the next one left out."""
    start = lines_of[path]
    end = min((line - 1 for other, line in lines_of.items() if len(other) == 1 and line > start), default=len(lines))
    while end > start and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1
    return end


def _require_added(root: Path, before: ChartValues, text: str, team: str) -> None:
    """Refuse a text that is not the one before with one team more, or that the chart refuses."""
    by_hand = click.UsageError(
        f"{before.document.file}: the list `teams` cannot be extended by itself; expected one `- name:` a team, each "
        f"on lines of its own. Add `- name: {team}` by hand, then run this again for the rest."
    )
    try:
        after = read_chart_values(root, text=text)
    except SpecError as error:
        raise by_hand from error
    names = [entry.get("name") for entry in after.document.data["teams"]]
    rest = {**after.document.data, "teams": None} == {**before.document.data, "teams": None}
    if names != [*(entry["name"] for entry in _listed(before)), team] or not rest:
        raise by_hand
    # Which namespace the release has is asked by `check`; what the team itself would stop is told now.
    place = f"teams[{len(names) - 1}]"
    problems = form_problems(after) or [p for p in stop_problems(after, namespace="") if p.field.startswith(place)]
    if problems:
        told = "\n".join(f"  {problem}" for problem in problems)
        count = wording.count(len(problems), "problem")
        raise click.UsageError(f"With {team} the values would have {count}; nothing was changed.\n{told}")


def _policy(team: str) -> str:
    return (
        f"# What is different for {team}; what is not named here is its domain's or the organization's.\n"
        f"# `ml-assets policy explain` tells where each setting comes from.\n"
        f"owner: {team}\neffective_from: {datetime.now(UTC):%Y-%m-%d}\nsettings: {{}}\n"
    )


def _contract(root: Path, team: str) -> dict[Path, str]:
    """Return pyproject.toml with the team among those that do not import each other, if it has such a contract."""
    file = root / "pyproject.toml"
    text = file.read_text(encoding="utf-8")
    found = _INDEPENDENT.search(text)
    module = f"deployments.{team}"
    if found is None or f'"{module}"' in found["modules"]:
        return {}
    modules = sorted([*re.findall(r'"([^"]+)"', found["modules"]), module])
    listed = ", ".join(f'"{name}"' for name in modules)
    changed = f"{text[: found.start()]}modules = [{listed}]{text[found.end() :]}"
    tomllib.loads(changed)
    return {file: changed}
