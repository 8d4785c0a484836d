"""A pipeline whose description is wrong stands in its code location as one asset, beside healthy neighbours."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.deployments.code_locations import ROOT

PARTS = ("deployments", "policies", "resources", "sensors", "pyproject.toml", "workspace.yaml")
HEALTHY = ROOT / "deployments" / "births" / "defs" / "daily_births"
LISTING = """
import importlib, json, sys
found = {}
for team in ("births", "flights"):
    defs = importlib.import_module(f"deployments.{team}.definitions").defs
    found[team] = {spec.key.to_user_string(): spec.description for spec in defs.resolve_all_asset_specs()}
    defs.get_repository_def()
sys.stdout.write(json.dumps(found))
"""


def broken_copy(project: Path, name: str, old: str, new: str) -> None:
    """Write a copy of the births pipeline under another name with one change."""
    folder = project / "deployments" / "births" / "defs" / name
    shutil.copytree(HEALTHY, folder, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "defs.yaml"
    text = file.read_text(encoding="utf-8").replace("name: daily_births", f"name: {name}")
    assert text.count(old) == 1, old
    file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which team births has five broken pipelines and a broken module."""
    folder = tmp_path_factory.mktemp("project")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, folder / part)
    broken_copy(folder, "bad_field", "  training: {window: 3,", "  training: {windw: 3,")
    broken_copy(folder, "no_yaml", "  selection: {metric: wape}", "  selection: {metric: wape")
    broken_copy(folder, "no_type", "type: ml_assets.components.TrainingPipeline", "type: ml_assets.components.Pipline")
    broken_copy(
        folder,
        "no_profile",
        "variants:",
        "variants:\n    dear: {estimator: sklearn.linear_model.Ridge, compute: cpu-smal}",
    )
    defs = folder / "deployments" / "births" / "defs"
    shutil.copytree(HEALTHY, defs / "copied", ignore=shutil.ignore_patterns("__pycache__"))
    (defs / "raises.py").write_text("# plain Dagster definitions\nwards = {}['north']\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def assets(project: Path) -> Mapping[str, Mapping[str, str]]:
    """Team → asset key → description, as a process in the copied project finds them."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ML_ASSETS_")}
    done = subprocess.run(
        [sys.executable, "-c", LISTING],
        cwd=project,
        env=environment | {"ML_ASSETS_STATE": str(project / "state")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def line_of(project: Path, pipeline: str, text: str) -> int:
    """Return the 1-based line of a broken file that holds a text."""
    lines = (project / "deployments/births/defs" / pipeline / "defs.yaml").read_text(encoding="utf-8").splitlines()
    return 1 + next(i for i, line in enumerate(lines) if text in line)


def test_neighbours_are_complete(assets: Mapping[str, Mapping[str, str]]) -> None:
    for team in ("births", "flights"):
        golden = (ROOT / "tests" / "golden" / "graph" / f"{team}.keys.txt").read_text(encoding="utf-8").split()
        assert [key for key in sorted(assets[team]) if not key.endswith("/broken")] == golden


def test_each_broken_pipeline_is_one_asset(assets: Mapping[str, Mapping[str, str]]) -> None:
    assert sorted(key for found in assets.values() for key in found if key.endswith("/broken")) == [
        "births/bad_field/broken",
        "births/copied/broken",
        "births/no_profile/broken",
        "births/no_type/broken",
        "births/no_yaml/broken",
        "births/raises/broken",
    ]


@pytest.mark.parametrize(
    ("pipeline", "marked", "message"),
    [
        ("bad_field", "windw", "training.windw"),
        ("no_profile", "cpu-smal", "there is no compute profile 'cpu-smal'"),
        ("copied", "name:", "expected 'copied', the name of its folder"),
        ("no_yaml", "evaluation:", "expected"),
        ("no_type", "Pipline", "ml_assets.components.Pipline"),
    ],
)
def test_the_description_says_what_is_wrong_and_where(
    project: Path, assets: Mapping[str, Mapping[str, str]], pipeline: str, marked: str, message: str
) -> None:
    description = assets["births"][f"births/{pipeline}/broken"]

    assert description.startswith("This pipeline did not load.")
    assert f"deployments/births/defs/{pipeline}/defs.yaml:{line_of(project, pipeline, marked)}" in description
    assert message in description
    assert "Traceback" not in description


def test_a_broken_module_is_named_with_its_line(project: Path, assets: Mapping[str, Mapping[str, str]]) -> None:
    file = project / "deployments/births/defs/raises.py"

    assert f"{file}:2: KeyError: 'north'" in assets["births"]["births/raises/broken"]
