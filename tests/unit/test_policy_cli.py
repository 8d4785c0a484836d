"""`ml-assets policy` as it is typed, in a project of its own."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ml_assets.cli.policy import policy
from ml_assets.errors import PolicyError

PROFILE = """
from pathlib import Path


class Profile:
    policy_url = str(Path(__file__).parent / "policies")
    trial_people = None

    def activate(self):
        pass
"""
FILES = {
    "pyproject.toml": '[tool.ml_assets]\nprofile = "policy_cli_profile:Profile"\n',
    "workspace.yaml": "load_from:\n- python_module: {location_name: flights, module_name: teams.flights.definitions}\n",
    "policy_cli_profile.py": PROFILE,
    "teams/flights/defs/arrival_delay/defs.yaml": "",
    "policies/organization.yaml": """owner: ml-platform
effective_from: 2013-01-01
settings:
  roc_auc.floor: {value: 0.55, reason: Better than chance., locked: true, unwaivable: true}
""",
    "policies/teams/flights.yaml": """owner: flights
settings:
  roc_auc.floor:
    - {value: 0.6, reason: The desk needs more., effective_from: 2014-01-01, expires: 2999-01-01}
    - {value: 0.57, reason: The first year was harder., effective_from: 2013-01-01}
    - {value: 0.65, reason: Once weather is in., effective_from: 2998-01-01}
    - {value: 0.58, reason: Christmas., effective_from: 2013-12-01, expires: 2014-01-01}
""",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "policy_cli_profile", raising=False)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(policy, list(arguments))


def test_explain_prints_the_chain_and_why_one_value_counts(project: Path) -> None:
    result = run("explain", "flights/arrival_delay", "auc.floor")

    assert result.output.replace(f"{project}/", "") == (
        "roc_auc.floor of flights/arrival_delay: 0.6\n"
        "The lower end of the interval must be at least this. Stricter is: raise it.\n"
        "\n"
        "  organization 0.55 (locked, unwaivable): overridden\n"
        "    policies/organization.yaml:4, ml-platform, from 2013-01-01\n"
        "    Better than chance.\n"
        "\n"
        "  team         0.6 (unwaivable): counts\n"
        "    policies/teams/flights.yaml:4, flights, from 2014-01-01 until 2999-01-01\n"
        "    The desk needs more.\n"
        "\n"
        "  team         0.57: replaced by a newer version\n"
        "    policies/teams/flights.yaml:5, flights, from 2013-01-01\n"
        "    The first year was harder.\n"
        "\n"
        "  team         0.65: begins on 2998-01-01\n"
        "    policies/teams/flights.yaml:6, flights, from 2998-01-01\n"
        "    Once weather is in.\n"
        "\n"
        "  team         0.58: ended on 2014-01-01\n"
        "    policies/teams/flights.yaml:7, flights, from 2013-12-01 until 2014-01-01\n"
        "    Christmas.\n"
        "\n"
        "The value of the level team counts: it is the lowest that sets one.\n"
        "The level organization locks it (policies/organization.yaml:4): lower levels may only raise it.\n"
    )


@pytest.mark.parametrize(
    ("at", "value"),
    [("2012-01-01", "not set"), ("2013-06-01", "0.57"), ("2013-12-24T18:00:00-05:00", "0.58"), ("2998-01-01", "0.65")],
)
def test_explain_at_another_instant(project: Path, at: str, value: str) -> None:
    result = run("explain", "flights/arrival_delay", "roc_auc.floor", "--at", at)

    assert result.output.splitlines()[0] == f"roc_auc.floor of flights/arrival_delay: {value}"


def test_explain_says_when_a_default_counts_and_when_nothing_does(project: Path) -> None:
    default = run("explain", "flights/arrival_delay", "approval.needed").output
    nothing = run("explain", "flights/arrival_delay", "wape.ceiling").output

    assert "  built-in     1: counts\n" in default
    assert default.endswith("The library's default counts: no level sets another value.\n")
    assert nothing.endswith("No level sets wape.ceiling, and it has no default: nothing asks for it.\n")


def test_explain_without_a_setting_is_a_table_of_all(project: Path) -> None:
    lines = run("explain", "flights/arrival_delay").output.splitlines()

    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[3:] if line.strip()}
    assert rows["roc_auc.floor"] == "0.6 (locked, unwaivable) team teams/flights.yaml:4"
    assert rows["approval.needed"] == "1 built-in built-in"


def test_explain_of_what_there_is_not(project: Path) -> None:
    assert (
        "There is no pipeline 'flights/arival_delay'; there are flights/arrival_delay."
        in run("explain", "flights/arival_delay").output
    )
    assert "'soon' is not a date such as 2026-01-01" in run("explain", "flights/arrival_delay", "--at", "soon").output
    error = run("explain", "flights/arrival_delay", "auc.flor").exception
    assert isinstance(error, PolicyError)
    assert str(error).startswith("There is no setting 'auc.flor'; expected one of roc_auc.floor, ")
    assert str(error).endswith("; did you mean 'roc_auc.floor'?")


def test_check_counts_what_is_right(project: Path) -> None:
    result = run("check")

    assert result.exit_code == 0
    assert result.output == (
        f"{project}/policies: 2 files, 5 settings, 1 pipeline and 0 people without a problem, "
        "now and at 2 later changes.\n"
    )


def test_check_tells_every_problem_and_fails(project: Path) -> None:
    (project / "policies" / "organization.yml").write_text("owner: x\n")
    (project / "policies" / "teams" / "births.yaml").write_text(
        "owner: b\neffective_from: 2013-01-01\nsettings: {roc_auc.floor: {value: 0.5, reason: x}}\n"
    )

    result = run("check", "policies")

    assert result.exit_code == 1
    assert [line.partition(": ")[0] for line in result.output.splitlines() if not line.startswith(" ")] == [
        "policies/organization.yml",
        "policies/teams/births.yaml:3",
        "2 problems in policies.",
    ]


def test_check_of_a_folder_needs_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "organization.yaml").write_text("owner: x\n")

    result = run("check", ".")

    assert (result.exit_code, result.output) == (
        0,
        ".: 1 file, 0 settings, 0 pipelines and 0 people without a problem.\n",
    )


def test_check_warns_of_files_for_pipelines_that_the_project_lacks(project: Path) -> None:
    (project / "policies" / "teams" / "births.yaml").write_text("owner: b\n")

    result = run("check")

    assert result.exit_code == 0
    assert "births.yaml: speaks for the team births, but the project has no such team" in result.output
