"""What commands share of their arguments: the project, its pipelines, and who signs."""

from pathlib import Path

import click

from ml_assets.approvals.keys import KeyFileSigner, key_files
from ml_assets.approvals.signing import Signer
from ml_assets.cli.project import Project, load_project
from ml_assets.interfaces import PipelinePath


class Sentence(click.ParamType):
    """A reason for the record: text with something in it, without the blanks around it."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it; fails when it says nothing, as an unset variable of a shell does."""
        if not value.strip():
            self.fail("it is empty; say why in a sentence.", param, ctx)
        return value.strip()


def current_project() -> Project:
    """Return the project that the command line was given, or else the one around the current folder."""
    return click.get_current_context().find_object(Project) or load_project()


def pipeline_paths(project: Project, name: str | None) -> list[PipelinePath]:
    """Return (team, pipeline) of one pipeline, or of all; broken ones too, since people may have to decide on them.

    Raises:
        click.UsageError: If there is no such pipeline.
    """
    paths = [(file.parents[2].name, file.parent.name) for file in project.pipeline_files()]
    if name is None:
        return paths
    found = [path for path in paths if "/".join(path) == name]
    if not found:
        known = ", ".join("/".join(path) for path in paths) or "none"
        raise click.UsageError(f"There is no pipeline {name!r}; there are {known}.")
    return found


def pipeline_path(project: Project, name: str) -> PipelinePath:
    """Return (team, pipeline) of one pipeline; raises click.UsageError when there is none."""
    return pipeline_paths(project, name)[0]


def make_signer(project: Project, person: str | None, key: Path | None) -> Signer:
    """Return who signs: by name, by key file, or the only person with a key in the keys' folder.

    Raises:
        click.UsageError: If it is not clear who.
        ApprovalError: If the key cannot be used.
    """
    folder = project.profile.keys_folder
    if key is None and person is None:
        files = key_files(folder)
        if len(files) != 1:
            names = ", ".join(files) or "none; `ml-assets access new-key NAME` makes one"
            raise click.UsageError(f"Say with --as who you are; the keys in {folder} are: {names}.")
        person, key = next(iter(files.items()))
    path = key or folder / f"{person}.pem"

    def ask() -> str:
        return click.prompt(f"Passphrase of {path}", hide_input=True, err=True)

    return KeyFileSigner(path, person=person or path.stem, passphrase=ask)
