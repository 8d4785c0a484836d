"""`ml-assets deploy` on a copy of the project: a team is added whole or not at all, and what does not fit is told."""

import base64
import gzip
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from ml_assets.cli import team_files
from ml_assets.cli.deploy import deploy
from ml_assets.cli.new_team import missing_files
from ml_assets.cli.project import Location, Project
from ml_assets.cli.team_files import locations_in
from resources.policy_files import PolicyFiles
from tests.charts.rendering import ROOT, of, only, render

VALUES = Path("deployments") / "kubernetes" / "values.yaml"
COPIED = ("deployments", "policies", "pyproject.toml", "workspace.yaml")


class Desk:
    """Somebody at the command line of a copy of the project."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.parquet"))
            else:
                shutil.copy(ROOT / name, root / name)

    def run(self, *words: str) -> Result:
        services = SimpleNamespace(policy=PolicyFiles(str(self.root / "policies")))
        profile: Any = SimpleNamespace(services=lambda: services)
        names = locations_in((self.root / "workspace.yaml").read_text())
        found = tuple(Location(name=name, module=f"deployments.{name}.definitions") for name in names)
        return CliRunner().invoke(deploy, list(words), obj=Project(root=self.root, profile=profile, locations=found))

    def say(self, *words: str) -> str:
        result = self.run(*words)
        assert result.exit_code == 0, result.output
        return result.output

    def refuse(self, *words: str, code: int = 2) -> str:
        result = self.run(*words)
        assert result.exit_code == code, result.output
        return " ".join(result.output.replace("\u2502", " ").split())

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}

    def change(self, file: Path | str, before: str, after: str) -> None:
        path = self.root / file
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1, text.count(before)
        path.write_text(text.replace(before, after), encoding="utf-8")

    def values(self) -> dict[str, Any]:
        return yaml.safe_load((self.root / VALUES).read_text(encoding="utf-8"))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# new-team


def test_a_new_team_is_in_the_values_the_workspace_the_policies_and_the_contract(desk: Desk) -> None:
    before = desk.files()

    told = desk.say("new-team", "acme", "--gpus", "1", "--cores", "24")

    after = desk.files()
    assert sorted(set(after) - set(before)) == [
        "deployments/acme/__init__.py",
        "deployments/acme/definitions.py",
        "deployments/acme/defs/__init__.py",
        "deployments/acme/defs/example/defs.yaml",
        "deployments/acme/defs/example/features.py",
        "policies/teams/acme.yaml",
    ]
    assert sorted(name for name in before if before[name] != after[name]) == [
        "deployments/kubernetes/values.yaml",
        "pyproject.toml",
        "workspace.yaml",
    ]
    assert desk.values()["teams"][-1] == {"name": "acme", "quota": {"cores": 24, "gpus": 1}}
    assert locations_in(after["workspace.yaml"].decode())[-1] == "acme"
    contracts = tomllib.loads(after["pyproject.toml"].decode())["tool"]["importlinter"]["contracts"]
    [modules] = [contract["modules"] for contract in contracts if contract["type"] == "independence"]
    assert modules == ["deployments.acme", "deployments.births", "deployments.flights"]
    assert all(f"wrote {name}" in told for name in set(after) - set(before))


def test_comments_and_the_order_of_the_files_stay(desk: Desk) -> None:
    before = {file: (desk.root / file).read_text() for file in (VALUES, Path("workspace.yaml"), Path("pyproject.toml"))}

    desk.say("new-team", "acme")

    for file in (VALUES, Path("workspace.yaml")):
        assert (desk.root / file).read_text().startswith(before[file])
    lines = set((desk.root / "pyproject.toml").read_text().splitlines())
    assert len(set(before[Path("pyproject.toml")].splitlines()) - lines) == 1


def test_the_new_team_is_rendered_and_checked(desk: Desk) -> None:
    desk.say("new-team", "acme_two", "--gpus", "1")
    values = desk.values()
    values["dagster"]["enabled"] = False

    objects = render(values)

    assert of(objects, "Namespace", "team-acme-two")
    hard = only(objects, "ResourceQuota", "team", namespace="team-acme-two")["spec"]["hard"]
    assert hard["requests.nvidia.com/gpu"] == "1"
    server = only(objects, "Deployment", "code-server", namespace="team-acme-two")
    assert (
        "--module-name=deployments.acme_two.definitions" in server["spec"]["template"]["spec"]["containers"][0]["args"]
    )
    assert "3 teams without a problem." in desk.say("check")


def test_the_teams_policy_file_is_valid(desk: Desk) -> None:
    desk.say("new-team", "acme")

    tree = PolicyFiles(str(desk.root / "policies"))

    assert tree.effective(("acme", "example")).settings["roc_auc.floor"] is not None


def test_a_complete_team_is_refused_and_nothing_changes(desk: Desk) -> None:
    desk.say("new-team", "acme")
    before = desk.files()

    assert "Team 'acme' is complete already; nothing was changed." in desk.refuse("new-team", "acme")
    assert desk.files() == before


def test_what_is_missing_of_a_team_is_added_and_the_rest_stays(desk: Desk) -> None:
    """As after `ml-assets new`, or a machine that died on the way."""
    desk.say("new-team", "acme", "--pipeline", "returns")
    whole = desk.files()
    shutil.copy(ROOT / VALUES, desk.root / VALUES)
    (desk.root / "policies" / "teams" / "acme.yaml").unlink()

    told = desk.say("new-team", "acme")

    assert "wrote deployments/kubernetes/values.yaml" in told
    assert "defs.yaml" not in told
    assert desk.files() == whole


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Acme", "'Acme' is no name for a team: write NAME in lower-case letters, digits and underscores."),
        ("acme-two", "'acme-two' is no name for a team"),
        ("../x", "'../x' is no name for a team"),
        ("no", "'no' cannot be the name of a team: in YAML it is no text, but a value of its own."),
        ("a" * 41, "at most 40 characters"),
        ("acme\n", "is no name for a team"),
        ("acme_", "the last one a letter or digit"),
        ("kubernetes", "'kubernetes' cannot be the name of a team: Python or this project uses it already."),
        ("class", "'class' cannot be the name of a team"),
        ("json", "'json' cannot be the name of a team"),
    ],
)
def test_bad_names_are_refused(desk: Desk, name: str, told: str) -> None:
    before = desk.files()

    assert told in desk.refuse("new-team", name)
    assert desk.files() == before


def test_a_quota_that_the_chart_refuses_is_told_and_nothing_is_written(desk: Desk) -> None:
    before = desk.files()

    told = desk.refuse("new-team", "acme", "--gpus", "-1")

    assert "teams[2].quota.gpus: -1 (whole number); expected a whole number from 0 to 100,000" in told
    assert desk.files() == before


def test_a_team_whose_namespace_is_kubernetes_own_is_told_and_nothing_is_written(desk: Desk) -> None:
    with (desk.root / VALUES).open("a") as file:
        file.write('\nnamespacePrefix: ""\n')
    before = desk.files()

    told = desk.refuse("new-team", "kube_system")

    assert "teams[2].name: the team 'kube_system', whose namespace would be kube-system, Kubernetes' own" in told
    assert desk.files() == before


@pytest.mark.slow
def test_fifty_teams_are_added_one_by_one_and_render(desk: Desk) -> None:
    for number in range(48):
        with team_files.written(missing_files(desk.root, f"team_{number}", {}, pipeline="example")):
            pass
    values = desk.values()
    values["dagster"]["enabled"] = False

    told = desk.say("check")

    assert "50 teams without a problem." in told
    # Once for all of them, not fifty times.
    [warning] = [line for line in told.splitlines() if "may use the compute profile 'gpu-small'" in line]
    assert "and births, team_0, " in warning
    assert "more) may use" in warning
    text = yaml.safe_dump_all(render(values))
    # Helm keeps a release, packed and in base64, in a Secret of at most 1 MiB, with the chart beside it.
    assert len(base64.b64encode(gzip.compress(text.encode()))) < 2**20 / 4


def test_values_that_a_person_wrote_otherwise_are_not_guessed_at(desk: Desk) -> None:
    text = (desk.root / VALUES).read_text()
    (desk.root / VALUES).write_text(text[: text.index("\nteams:")] + "\nteams: [{name: flights}, {name: births}]\n")
    before = desk.files()

    assert "Add `- name: acme` by hand, then run this again for the rest." in desk.refuse("new-team", "acme")
    assert desk.files() == before


def test_a_list_in_the_middle_of_the_file_is_extended_at_its_end(desk: Desk) -> None:
    with (desk.root / VALUES).open("a") as file:
        file.write("\n# What follows the teams.\nnamespacePrefix: t-")  # and no line end

    desk.say("new-team", "acme")

    assert (
        (desk.root / VALUES)
        .read_text()
        .endswith("  - name: births\n  - name: acme\n\n# What follows the teams.\nnamespacePrefix: t-")
    )


@pytest.mark.parametrize("empty", ["", "teams: []\n"])
def test_the_first_team(desk: Desk, empty: str) -> None:
    text = (desk.root / VALUES).read_text()
    (desk.root / VALUES).write_text(text[: text.index("\nteams:") + 1] + empty)

    desk.say("new-team", "acme")

    assert desk.values()["teams"] == [{"name": "acme"}]


@pytest.mark.parametrize("failing", range(1, 10))
def test_a_write_that_fails_leaves_everything_as_it_was(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    before, folders = desk.files(), {path for path in desk.root.rglob("*") if path.is_dir()}
    replace, written = team_files._replace, list[Path]()

    def full_disk(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) == failing:
            raise OSError(28, "No space left on device")
        replace(path, content)

    monkeypatch.setattr(team_files, "_replace", full_disk)

    assert isinstance(desk.run("new-team", "acme").exception, OSError)
    assert desk.files() == before
    assert {path for path in desk.root.rglob("*") if path.is_dir() and path.name != "__pycache__"} <= folders


def test_as_a_program(tmp_path: Path) -> None:
    """The real command, on a copy with all that it imports."""
    Desk(tmp_path)
    for name in ("resources", "sensors"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = [sys.executable, "-c", "from ml_assets.cli.main import main; main()", "deploy", "new-team", "acme"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    assert result.returncode == 0, result.stderr
    assert "Next: `ml-assets deploy check`" in result.stdout
    assert (tmp_path / "deployments" / "acme" / "defs" / "example" / "defs.yaml").exists()


# check


def test_what_would_stop_helm_is_told_with_what_does_not_fit_and_with_its_line(desk: Desk) -> None:
    desk.change(VALUES, "- name: births", "- {name: births, runWorker: {cores: 16}}\n  - name: acme")

    told = desk.refuse("check", code=1)

    line = (desk.root / VALUES).read_text().splitlines().index("  - {name: births, runWorker: {cores: 16}}") + 1
    assert f"values.yaml:{line}: teams[1].runWorker.cores: 16 for births; expected at most 8" in told
    assert "the team 'acme', which workspace.yaml lacks" in told
    assert told.endswith("2 problems in deployments/kubernetes.")


def test_the_releases_namespace_can_be_another_one(desk: Desk) -> None:
    assert "2 teams without a problem." in desk.say("check", "--namespace", "elsewhere")

    told = desk.refuse("check", "--namespace", "team-births", code=1)

    assert "the team 'births', whose namespace would be team-births, the release's own" in told


def test_credentials_of_the_machine_are_a_warning(desk: Desk) -> None:
    desk.change(VALUES, "[10.20.0.0/24]", "[10.20.0.0/24, 169.254.169.254/32]")

    told = desk.say("check")

    assert "network.destinations.objectStorage.cidrs[1]: 169.254.169.254/32, where a cloud hands out" in told


def test_the_project_has_no_problem(desk: Desk) -> None:
    assert "2 teams without a problem." in desk.say("check")


def test_problems_of_form_are_told_with_their_line(desk: Desk) -> None:
    desk.change(VALUES, "gpus: 2", "gpus: two")

    told = desk.refuse("check", code=1)

    line = (desk.root / VALUES).read_text().splitlines().index("    quota: {cores: 32, memoryGib: 256, gpus: two}") + 1
    assert f"deployments/kubernetes/values.yaml:{line}: teams[0].quota.gpus: 'two' (text)" in told
    assert told.endswith("1 problem in deployments/kubernetes.")


def test_a_location_without_a_team_and_a_team_without_a_location_are_told(desk: Desk) -> None:
    desk.change(VALUES, "- name: births", "- name: acme")

    told = desk.refuse("check", code=1)

    assert "the team 'acme', which workspace.yaml lacks" in told
    assert "no entry for the code location 'births'" in told
    assert "`ml-assets deploy new-team births` adds it" in told
    assert "2 problems" in told


def test_a_misspelt_team_is_not_offered_as_a_new_one(desk: Desk) -> None:
    desk.change(VALUES, "- name: births", "- name: brths")

    told = desk.refuse("check", code=1)

    assert "the team 'brths', which workspace.yaml lacks; expected a code location hint: did you mean 'births'?" in told
    assert "new-team brths" not in told


def test_a_team_twice_and_another_module_are_told(desk: Desk) -> None:
    desk.change(VALUES, "- name: births", "- name: flights\n  - {name: births, module: deployments.elsewhere}")

    told = desk.refuse("check", code=1)

    assert "teams[1].name: the team 'flights' a second time" in told
    assert "teams[2].module: the module 'deployments.elsewhere'; expected deployments.births.definitions" in told


def test_a_priority_that_no_class_has_is_told(desk: Desk) -> None:
    desk.change("policies/compute.yaml", "cpu-small: {cores: 1,", "cpu-small: {priority: urgent, cores: 1,")

    told = desk.refuse("check", code=1)

    assert "no priority class 'urgent', which the compute profile 'cpu-small' names" in told
    assert "without it Kubernetes makes no pod" in told


def test_a_step_that_no_quota_lets_run_is_told(desk: Desk) -> None:
    pipeline = desk.root / "deployments" / "births" / "defs" / "daily_births" / "defs.yaml"
    spec = yaml.safe_load(pipeline.read_text())
    name, variant = next(iter(spec["attributes"]["variants"].items()))
    variant["compute"] = {"profile": "gpu-small"}
    pipeline.write_text(yaml.safe_dump(spec, sort_keys=False))

    told = desk.refuse("check", code=1)

    assert (
        f"teams[1].quota.gpus: 0 GPUs, and births/daily_births variant {name!r} asks for 1; "
        "expected at least 1: its pod would never be made"
    ) in told


def test_profiles_that_never_fit_are_a_warning(desk: Desk) -> None:
    told = desk.say("check")

    assert "warning: deployments/kubernetes/values.yaml:" in told
    assert "0 GPUs, and births may use the compute profile 'gpu-small'" in told
    assert "flights may use" not in told


def test_a_daemon_of_another_release_is_a_warning(desk: Desk) -> None:
    desk.change(
        VALUES,
        'dagsterDaemon:\n    image: {repository: registry.example/ml-assets, tag: "0.1.0"}',
        'dagsterDaemon:\n    image: {repository: registry.example/ml-assets, tag: "0.0.9"}',
    )

    told = desk.say("check")

    assert (
        "dagster.dagsterDaemon.image: registry.example/ml-assets:0.0.9; expected registry.example/ml-assets:0.1.0"
        in told
    )


def test_a_project_without_an_installation_is_told_what_belongs_there(desk: Desk) -> None:
    shutil.rmtree(desk.root / "deployments" / "kubernetes")

    assert "deployments/kubernetes: " in desk.refuse("check", code=1)
    assert "values.yaml of the installation, and its chart in chart/" in desk.refuse("new-team", "acme")
