"""The guide on policies quotes files that are right, and messages and explanations as they are."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ml_assets.cli.policy import chain_lines
from ml_assets.errors import PolicyError
from ml_assets.policy.merge import effective
from resources.policy_files import PolicyFiles

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "policies-and-gates.md"
PIPELINE = ("flights", "arrival_delay")
SUMMER = datetime(2013, 7, 1, tzinfo=UTC)
WRONG = {
    "organization.yaml": """owner: ml-platform
effective_from: 2013-01-01
settings:
  roc_auc.floor: {value: 0.55, reason: Better than chance., locked: true}
  auc.margin: {value: 0.02, reason: Small.}
""",
    "teams/flights.yaml": """owner: flights
domain: operation
settings:
  roc_auc.floor: {value: 0.5, reason: Fewer refusals., effective_from: 2013-01-01}
  approval.needed: {value: 0, reason: x}
""",
    "pipelines/flights/arrival_delay.yml": "",
}


def blocks(language: str) -> list[str]:
    text = GUIDE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def lay_out(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PolicyFiles:
    """The tree of the guide's YAML."""
    named = [(re.match(r"# (\S+\.yaml)\n", block), block) for block in blocks("yaml")]
    lay_out(tmp_path / "policies", {match[1]: block for match, block in named if match})
    monkeypatch.chdir(tmp_path)
    return PolicyFiles("policies")


def test_the_files_of_the_guide_are_valid(policies: PolicyFiles) -> None:
    in_summer, later = (
        policies.effective(PIPELINE, SUMMER),
        policies.effective(PIPELINE, datetime(2026, 1, 1, tzinfo=UTC)),
    )

    assert (in_summer.number("approval.needed"), later.number("approval.needed")) == (2, 1)
    assert (in_summer.number("roc_auc.margin"), later.number("roc_auc.margin")) == (0.02, 0.015)
    assert later.settings["log_loss.beats_baseline"].severity == "warning"
    assert policies.people()["olga"].teams == ("*",)


def test_the_explanation_is_quoted_as_it_is(policies: PolicyFiles) -> None:
    tree = policies.tree()
    lines = chain_lines(effective(tree, PIPELINE, SUMMER), tree, "roc_auc.floor", SUMMER)

    assert "\n".join(lines) + "\n" in blocks("text")


def test_the_messages_are_quoted_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path / "policies", WRONG)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(PolicyError) as error:
        PolicyFiles("policies").effective(PIPELINE)

    assert f"{error.value}\n" in blocks("text")
