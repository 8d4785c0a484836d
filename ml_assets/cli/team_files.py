"""The files of a team and of a pipeline to start from, as texts, and the writing of all of them or none."""

import keyword
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
import yaml

TEMPLATES = Path(__file__).parent / "templates"
NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
TAKEN = {"local", "kubernetes", "defs"}
NO_TEXTS = {"y", "yes", "n", "no", "on", "off", "true", "false", "null"}
"""Words that Dagster's or Helm's reader of YAML takes for a truth value or for nothing."""


def require_name(what: str, value: str, form: str = "NAME") -> None:
    """Refuse a name that a folder, a Python package and an asset key cannot all have.

    Args:
        what: "team" or "pipeline".
        value: The name.
        form: How the command's argument is written.

    Raises:
        click.UsageError: If it is not in lower-case letters, digits and underscores, or means something to Python, to
            YAML or to the project already.
    """
    if not NAME.fullmatch(value):
        raise click.UsageError(
            f"{value!r} is no name for a {what}: write {form} in lower-case letters, digits and underscores."
        )
    if keyword.iskeyword(value) or value in TAKEN or (what == "team" and value in sys.stdlib_module_names):
        raise click.UsageError(f"{value!r} cannot be the name of a {what}: Python or this project uses it already.")
    if value in NO_TEXTS:
        raise click.UsageError(
            f"{value!r} cannot be the name of a {what}: in YAML it is no text, but a value of its own."
        )


def location_files(root: Path, team: str) -> dict[Path, str]:
    """Return the files of a team's code location that are not there yet, with their texts."""
    folder = root / "deployments" / team
    texts = {
        folder / "definitions.py": filled("definitions.py.txt", team=team),
        folder / "__init__.py": f'"""Team {team}."""\n',
        folder / "defs" / "__init__.py": f'"""The pipelines of team {team}, one folder each."""\n',
    }
    return {path: text for path, text in texts.items() if not path.exists()}


def pipeline_files(root: Path, team: str, name: str) -> dict[Path, str]:
    """Return the files of a complete, valid pipeline to start from, with their texts."""
    folder = root / "deployments" / team / "defs" / name
    return {
        folder / "defs.yaml": filled("defs.yaml", team=team, name=name),
        folder / "features.py": filled("features.py.txt", team=team, name=name),
    }


def with_location(workspace: str, team: str) -> str:
    """Return the text of workspace.yaml with a team's code location at its end."""
    entry = (
        f"  - python_module:\n      module_name: deployments.{team}.definitions\n"
        f"      location_name: {team}\n      working_directory: .\n"
    )
    return workspace.rstrip("\n") + "\n" + entry


def locations_in(workspace: str) -> list[str]:
    """Return the names of the code locations in the text of a workspace.yaml."""
    return [entry["python_module"]["location_name"] for entry in yaml.safe_load(workspace)["load_from"]]


def filled(template: str, *, team: str, name: str = "") -> str:
    """Return a template's text for a team and a pipeline."""
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    return text.replace("{{team}}", team).replace("{{name}}", name)


@contextmanager
def written(texts: Mapping[Path, str]) -> Iterator[None]:
    """Write files, each in one step; when writing them or what is done within fails, all is as it was before.

    Args:
        texts: Path → whole content; folders are made.
    """
    before = {path: path.read_bytes() if path.exists() else None for path in texts}
    folders: list[Path] = []
    try:
        for path, text in texts.items():
            folders += _made(path.parent)
            _replace(path, text.encode())
        yield
    except BaseException:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                _replace(path, content)
        for folder in reversed(folders):
            _removed(folder)
        raise


def _made(folder: Path) -> list[Path]:
    """Make a folder and those above it; return the new ones, the highest first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()][::-1]
    for place in missing:
        place.mkdir()
    return missing


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(content)
    if path.exists():
        draft.chmod(path.stat().st_mode)
    draft.replace(path)


def _removed(folder: Path) -> None:
    """Remove a folder that was made here, with the bytecode that reading it may have left."""
    for leftover in folder.glob("__pycache__/*"):
        leftover.unlink()
    for place in (folder / "__pycache__", folder):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
