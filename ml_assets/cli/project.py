"""Finds the project a command runs in: its root, its profile and its code locations."""

import importlib
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import click
import yaml

from ml_assets.chain import AnchorStore
from ml_assets.delivery.push import Push
from ml_assets.interfaces import PolicySource
from ml_assets.interfaces.spend import SpendStore
from ml_assets.sharing.report import QueueReport
from ml_assets.stages.step import Services


class Profile(Protocol):
    """What the command line asks of a project's profile (`resources/profiles.py` here)."""

    @property
    def project_root(self) -> Path:
        """Return the repository's root."""
        ...

    @property
    def state(self) -> Path:
        """Return the folder of everything that is made here."""
        ...

    @property
    def dagster_home(self) -> Path:
        """Return the folder of Dagster's instance."""
        ...

    @property
    def landing_url(self) -> str:
        """Return the root of the landing zone."""
        ...

    @property
    def policy_url(self) -> str:
        """Return the root of the policy tree."""
        ...

    @property
    def trial_people(self) -> Path | None:
        """Return the file of people for trying things out on this machine, or None."""
        ...

    @property
    def keys_folder(self) -> Path:
        """Return the folder of people's private keys."""
        ...

    @property
    def user(self) -> str:
        """Return who works at this command line."""
        ...

    @property
    def cores(self) -> int | None:
        """Return the most cores that the steps of one run use together; None for all there are."""
        ...

    @property
    def memory_mib(self) -> int | None:
        """Return the memory in MiB that a step may ask for without a pod; None for all there is."""
        ...

    @property
    def cluster(self) -> object | None:
        """Return where steps get pods, or None."""
        ...

    def services(self) -> Services:
        """Return what pipelines run with."""
        ...

    def policy_source(self, url: str) -> PolicySource:
        """Return another policy tree, such as a changed one to try."""
        ...

    def spend(self) -> SpendStore:
        """Return what steps cost."""
        ...

    def queue_report(self) -> QueueReport:
        """Return what waits in the run queue and why."""
        ...

    def anchors(self, url: str | None = None) -> AnchorStore | None:
        """Return where the heads of the ledger's chains are kept outside of it, or None."""
        ...

    def push(self, location: str) -> Push:
        """Return what takes events of a code location up and submits their runs."""
        ...

    def serve_inbox(self, pushes: Sequence[Push], *, host: str, port: int, ready: Callable[[int], None]) -> None:
        """Serve the inbox over HTTP until interrupted; `ready` is told the port."""
        ...

    def reap(self, namespaces: Sequence[str], *, keep_seconds: float, grace_seconds: float) -> list[str]:
        """Remove what runs that are over have left in the cluster; return a line for each thing removed."""
        ...

    def activate(self) -> None:
        """Make this process, and those it starts, use this profile."""
        ...

    def initialise(self) -> None:
        """Create every database before several processes open them at once."""
        ...

    def daemon_command(self, workspace: Path) -> list[str]:
        """Return the command that runs Dagster's daemon here."""
        ...

    def tracker_command(self, port: int) -> list[str] | None:
        """Return the command that serves the tracker's UI, or None when it is a server already."""
        ...


@dataclass(frozen=True, kw_only=True)
class Location:
    """One code location of `workspace.yaml`.

    Attributes:
        name: Its name, the team's.
        module: Importable module with `defs`.
    """

    name: str
    module: str


@dataclass(frozen=True, kw_only=True)
class Project:
    """The project around the current folder.

    Attributes:
        root: Folder of `pyproject.toml` and `workspace.yaml`.
        profile: Where it keeps things.
        locations: Its code locations, in the order of `workspace.yaml`.
    """

    root: Path
    profile: Profile
    locations: tuple[Location, ...]

    def location(self, name: str) -> Location:
        """Return a code location by name.

        Raises:
            click.UsageError: If there is none, with those there are.
        """
        for location in self.locations:
            if location.name == name:
                return location
        known = ", ".join(location.name for location in self.locations)
        raise click.UsageError(f"There is no team {name!r} in {self.root / 'workspace.yaml'}; it has {known}.")

    def pipeline_files(self) -> list[Path]:
        """Return the YAML file of every pipeline of every location."""
        return sorted(
            file for location in self.locations for file in (self.team_folder(location) / "defs").glob("*/defs.yaml")
        )

    def team_folder(self, location: Location) -> Path:
        """Return the folder of a team's code location."""
        return self.root.joinpath(*location.module.split(".")[:-1])


def load_project(start: Path | None = None) -> Project:
    """Return the project that `start` (the current folder) lies in.

    Raises:
        click.UsageError: If no folder above has a pyproject.toml with [tool.ml_assets].
    """
    here = (start or Path.cwd()).resolve()
    for root in (here, *here.parents):
        settings = _settings(root / "pyproject.toml")
        if settings is not None:
            return _project(root, settings)
    raise click.UsageError(
        f"{here} is in no ml_assets project: no pyproject.toml above it has a section [tool.ml_assets]."
    )


def _settings(file: Path) -> dict[str, str] | None:
    if not file.is_file():
        return None
    return tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("ml_assets")


def _project(root: Path, settings: dict[str, str]) -> Project:
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    module, _, function = settings["profile"].partition(":")
    profile: Profile = getattr(importlib.import_module(module), function)()
    profile.activate()
    workspace = yaml.safe_load((root / settings.get("workspace", "workspace.yaml")).read_text(encoding="utf-8"))
    entries = [entry["python_module"] for entry in workspace["load_from"]]
    locations = tuple(Location(name=e["location_name"], module=e["module_name"]) for e in entries)
    return Project(root=root, profile=profile, locations=locations)
