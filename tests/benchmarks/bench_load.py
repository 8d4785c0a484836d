"""CPU and wall of loading code locations: `python -m tests.benchmarks.bench_load`.

`dagster definitions validate` on an empty Dagster project, laid out as `create-dagster project` lays it out, and on
teams with 1, 10 and 100 pipelines. A pipeline is a copy of flights' arrival_delay under another name, with feature
functions of its own; nothing is shared that teams would not share. The empty project has an environment in which
ml_assets is not installed, since Dagster loads the components of every package that is. Each project is loaded once
before it is measured, so that bytecode is there, and they take turns.
"""
# ruff: noqa: T201 - a benchmark prints its table

import argparse
import os
import shutil
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import distribution
from pathlib import Path

from tests.benchmarks.measure import Cost, adopt_orphans, in_turns, medians, run_measured

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "deployments" / "flights" / "defs" / "arrival_delay"
EMPTY, TEN, HUNDRED = 0, 10, 100
GOAL_TEN = 1.3
GOAL_LINEAR = 1.25
"""CPU of one more pipeline between 10 and 100, to that between 1 and 10."""

EMPTY_FILES = {
    "pyproject.toml": """\
[project]
name = "empty_project"
requires-python = ">=3.10,<3.15"
version = "0.1.0"
dependencies = ["dagster"]

[dependency-groups]
dev = ["dagster-webserver", "dagster-dg-cli"]

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "empty_project"
registry_modules = ["empty_project.components.*"]
""",
    "src/empty_project/__init__.py": "",
    "src/empty_project/components/__init__.py": "",
    "src/empty_project/defs/__init__.py": "",
    "src/empty_project/definitions.py": """\
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
""",
}


@dataclass(frozen=True, kw_only=True)
class Location:
    """A code location to load.

    Attributes:
        module: Its module.
        folder: Folder the module is imported from.
        python: Interpreter of its environment.
        paths: Further folders to import from.
    """

    module: str
    folder: Path
    python: Path = Path(sys.executable)
    paths: tuple[str, ...] = (str(ROOT),)

    def load(self, home: Path, log: Path) -> Cost:
        """Load it in a program of its own."""
        environment = {
            "PYTHONPATH": os.pathsep.join([str(self.folder), *self.paths]),
            "DAGSTER_HOME": str(home),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "ML_ASSETS_STATE": str(home / "state"),
        }
        command = [str(self.python), "-m", "dagster", "definitions", "validate", "-m", self.module]
        return run_measured(command, log=log, cwd=self.folder, environment=environment)


def empty_project(folder: Path) -> Location:
    """Write an empty Dagster project."""
    for name, content in EMPTY_FILES.items():
        file = folder / "empty_project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    python = environment_without_us(folder / "environment")
    return Location(
        module="empty_project.definitions", folder=folder / "empty_project" / "src", python=python, paths=()
    )


def environment_without_us(folder: Path) -> Path:
    """Make a virtual environment with the packages of this one except ml_assets, and return its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    ours = {file.parts[0] for file in distribution("ml-assets").files or ()}
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name not in ours:
            (packages / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def team(folder: Path, count: int) -> Location:
    """Write a team with so many pipelines."""
    name = f"team_{count}"
    package = folder / name / name
    for number in range(count):
        pipeline = package / "defs" / f"pipeline_{number:03}"
        shutil.copytree(PIPELINE, pipeline, ignore=shutil.ignore_patterns("__pycache__"))
        file = pipeline / "defs.yaml"
        text = file.read_text(encoding="utf-8")
        for old, new in (("name: arrival_delay", f"name: {pipeline.name}"), ("team: flights", f"team: {name}")):
            assert text.count(f"\n  {old}\n") == 1, f"the pipeline to copy has no line {old!r}"
            text = text.replace(f"\n  {old}\n", f"\n  {new}\n")
        file.write_text(text, encoding="utf-8")
    definitions = (ROOT / "deployments" / "flights" / "definitions.py").read_text(encoding="utf-8")
    files = {
        "__init__.py": "",
        "defs/__init__.py": "",
        "definitions.py": definitions.replace("deployments.flights", name),
    }
    for file_name, content in files.items():
        (package / file_name).write_text(content, encoding="utf-8")
    return Location(module=f"{name}.definitions", folder=folder / name)


def show(costs: Mapping[int, list[Cost]]) -> bool:
    """Print the table; return whether both goals are met."""
    middle = {count: medians(runs) for count, runs in costs.items()}
    base = middle[EMPTY]
    print(f"{'pipelines':>10}{'CPU s':>9}{'wall s':>9}{'CPU ÷ empty':>13}{'wall ÷ empty':>14}   all CPU s")
    for count, cost in middle.items():
        runs = " ".join(f"{run.cpu:.2f}" for run in costs[count])
        ratios = f"{cost.cpu / base.cpu:13.2f}{cost.wall / base.wall:14.2f}"
        print(f"{count or 'empty':>10}{cost.cpu:9.2f}{cost.wall:9.2f}{ratios}   {runs}")
    met = True
    if TEN in middle:
        ratio = middle[TEN].cpu / base.cpu
        met = ratio <= GOAL_TEN
        print(f"{TEN} pipelines ÷ empty: CPU {ratio:.2f}; goal at most {GOAL_TEN}: {'met' if met else 'missed'}")
    if {1, TEN, HUNDRED} <= middle.keys():
        first = (middle[TEN].cpu - middle[1].cpu) / (TEN - 1)
        later = (middle[HUNDRED].cpu - middle[TEN].cpu) / (HUNDRED - TEN)
        linear = later <= GOAL_LINEAR * first
        print(
            f"one more pipeline: {1000 * first:.0f} ms of CPU up to {TEN}, {1000 * later:.0f} ms up to {HUNDRED}; "
            f"goal at most {GOAL_LINEAR} times as much: {'met' if linear else 'missed'}"
        )
        met = met and linear
    return met


def main() -> int:
    """Write the projects, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--counts", type=int, nargs="*", default=[1, TEN, HUNDRED], help="pipelines of each team")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    options = parser.parse_args()
    adopt_orphans()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        home = folder / "home"
        home.mkdir()
        locations = {EMPTY: empty_project(folder), **{count: team(folder, count) for count in options.counts}}
        contenders = {count: partial(place.load, home, folder / "output.log") for count, place in locations.items()}
        in_turns(contenders, 1)  # writes bytecode
        met = show(in_turns(contenders, options.rounds))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
