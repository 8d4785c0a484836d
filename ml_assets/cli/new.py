"""`ml-assets new`: a complete, valid pipeline to start from, and its team's code location when it has none."""

import keyword
import re
import sys
from pathlib import Path

import click

from ml_assets.cli.project import Project, load_project
from ml_assets.errors import SpecError
from ml_assets.reading.placement import read_placed_pipeline

TEMPLATES = Path(__file__).parent / "templates"
NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
TAKEN = {"local", "kubernetes", "defs"}


@click.command()
@click.argument("pipeline", metavar="TEAM/NAME")
def new(pipeline: str) -> None:
    """Write a pipeline to start from: deployments/TEAM/defs/NAME/defs.yaml and features.py."""
    project = load_project()
    team, name = _parse(pipeline)
    folder = project.root / "deployments" / team / "defs" / name
    if folder.exists():
        raise click.UsageError(f"{folder.relative_to(project.root)} exists already; nothing was changed.")
    written = [] if any(loc.name == team for loc in project.locations) else _new_team(project, team)
    folder.mkdir(parents=True)
    for template, target in (("defs.yaml", "defs.yaml"), ("features.py.txt", "features.py")):
        written.append(_write(folder / target, template, team=team, name=name))
    for path in written:
        click.echo(f"wrote {path.relative_to(project.root)}")
    try:
        read_placed_pipeline(folder / "defs.yaml")
    except SpecError as error:  # a template that does not validate is our mistake, and must not be hidden
        raise click.ClickException(str(error)) from error
    click.echo(
        f"\nNext: edit it, then `ml-assets validate {folder.relative_to(project.root)}`; "
        f"`ml-assets dev` shows it under {team} (one that runs already: reload all code locations)."
    )


def _parse(pipeline: str) -> tuple[str, str]:
    team, _, name = pipeline.partition("/")
    for what, value in (("team", team), ("pipeline", name)):
        if not NAME.match(value):
            raise click.UsageError(
                f"{value!r} is no name for a {what}: write TEAM/NAME in lower-case letters, digits and underscores."
            )
        if keyword.iskeyword(value) or value in TAKEN or (what == "team" and value in sys.stdlib_module_names):
            raise click.UsageError(f"{value!r} cannot be the name of a {what}: Python or this project uses it already.")
    return team, name


def _new_team(project: Project, team: str) -> list[Path]:
    """Write the team's package and enter it in workspace.yaml."""
    root = project.root / "deployments" / team
    (root / "defs").mkdir(parents=True, exist_ok=True)
    written = [_write(root / "definitions.py", "definitions.py.txt", team=team, name="")]
    for folder, text in (
        (root, f"Team {team}."),
        (root / "defs", f"The pipelines of team {team}, one folder each."),
    ):
        path = folder / "__init__.py"
        if not path.exists():
            path.write_text(f'"""{text}"""\n', encoding="utf-8")
            written.append(path)
    workspace = project.root / "workspace.yaml"
    entry = (
        f"  - python_module:\n      module_name: deployments.{team}.definitions\n"
        f"      location_name: {team}\n      working_directory: .\n"
    )
    draft = workspace.with_suffix(".part")
    draft.write_text(workspace.read_text(encoding="utf-8").rstrip("\n") + "\n" + entry, encoding="utf-8")
    draft.replace(workspace)
    return [*written, workspace]


def _write(path: Path, template: str, *, team: str, name: str) -> Path:
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    path.write_text(text.replace("{{team}}", team).replace("{{name}}", name), encoding="utf-8")
    return path
