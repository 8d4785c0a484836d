"""`ml-assets pause`, `resume` and `automation request`: what they record, refuse and say."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from ml_assets.cli import automation, status
from ml_assets.cli.automation import decision_lines
from ml_assets.cli.pause import pause, resume
from ml_assets.cli.project import Location, Project
from ml_assets.cli.tables import plain
from ml_assets.interfaces import Record
from ml_assets.retraining.decision import Cause, Guard, RetrainingDecision
from ml_assets.retraining.pauses import paused
from ml_assets.retraining.recording import KIND
from ml_assets.testing.inbox import FakeInbox
from ml_assets.testing.ledger import FakeLedger, decision

PATH = ("flights", "arrival_delay")
HOSTILE = "a\x1b]0;owned\x07\u202e [/red]\x9b2J"
SHOWN = r"a\x1b]0;owned\x07\u202e [/red]\x9b2J"


@dataclass
class ProfileDouble:
    """What these commands ask of a profile."""

    user: str = "lena"
    ledger: FakeLedger = field(default_factory=FakeLedger)

    def services(self) -> Any:
        return SimpleNamespace(ledger=self.ledger, inbox=FakeInbox(), landing=None, data_store=OnePartition())


class OnePartition:
    """A data store that knows one partition."""

    def partitions(self, asset: tuple[str, ...]) -> list[str]:
        del asset
        return ["2013-01"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "deployments" / "flights" / "defs" / "arrival_delay"
    folder.mkdir(parents=True)
    (folder / "defs.yaml").touch()
    locations = (Location(name="flights", module="deployments.flights.definitions"),)
    profile: Any = ProfileDouble()
    return Project(root=tmp_path, profile=profile, locations=locations)


def say(project: Project, command: Any, *words: str, code: int = 0) -> str:
    result = CliRunner().invoke(command, list(words), obj=project)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("scope", "covers", "ending"),
    [
        ((), "all pipelines", "ml-assets resume"),
        (("flights",), "all pipelines of flights", "ml-assets resume flights"),
        (("flights/arrival_delay",), "flights/arrival_delay", "ml-assets resume flights/arrival_delay"),
    ],
)
def test_each_scope_is_paused_and_resumed(project: Project, scope: tuple[str, ...], covers: str, ending: str) -> None:
    ledger: Any = project.profile.services().ledger

    told = say(project, pause, *scope, "--reason", "Inventory")

    held = paused(ledger, PATH)
    assert held is not None
    assert (held.covers, held.by, held.reason) == (covers, "lena", "Inventory")
    assert told.endswith(f"Nothing of it starts by itself until `{ending}`.")
    ended = say(project, resume, *scope)
    assert re.fullmatch(r"Resumed: \S.*\. The pause that ended: lena paused .+: Inventory", ended)
    assert paused(ledger, PATH) is None


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_what_has_no_reason_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    spec = SimpleNamespace(automation=SimpleNamespace(retraining=True))
    monkeypatch.setattr(automation, "find_pipeline", lambda *_: SimpleNamespace(spec=spec))
    ledger: Any = project.profile.services().ledger

    assert "it is empty; say why in a sentence." in say(project, pause, "--reason", reason, code=2)
    asked = say(project, automation.automation, "request", "/".join(PATH), "--reason", reason, code=2)
    assert "it is empty; say why in a sentence." in asked

    assert paused(ledger, PATH) is None
    assert ledger.records(PATH) == []


def test_a_reason_that_is_a_whole_sentence_ends_once(project: Project) -> None:
    assert "UTC: Inventory Nothing" in say(project, pause, "flights", "--reason", " Inventory. ")


def test_a_wider_pause_stays_and_is_named(project: Project) -> None:
    say(project, pause, "--reason", "Inventory")

    told = say(project, resume, "flights")

    assert told.startswith(
        "There is no pause of team flights. It stays paused by a wider one: lena paused all pipelines"
    )
    assert told.endswith("Inventory (`ml-assets resume` ends it)")


def test_other_teams_are_not_paused_and_unknown_ones_are_refused(project: Project) -> None:
    say(project, pause, "flights", "--reason", "Inventory")
    ledger: Any = project.profile.services().ledger

    assert paused(ledger, ("births", "daily_births")) is None
    assert "There is no team 'ships'" in say(project, pause, "ships", "--reason", "Inventory", code=2)
    assert "There is no pipeline 'flights/x'" in say(project, pause, "flights/x", "--reason", "Inventory", code=2)


def test_a_decision_is_told_with_causes_guards_and_the_next_look() -> None:
    decision = RetrainingDecision(
        outcome="wait",
        period="2013-09",
        causes=(Cause(name="drift", sentence="Inputs drifted.", evidence="e", counts=False),),
        guards=(Guard(name="cooldown", holds=True, sentence="The newest training was 1 hour ago."),),
    )

    assert list(decision_lines("flights/arrival_delay", decision)) == [
        "flights/arrival_delay: wait for 2013-09",
        "  because The newest training was 1 hour ago.",
        "Causes",
        "  o drift        Inputs drifted.",
        "Guards",
        "  x cooldown     The newest training was 1 hour ago.",
        "Next look: when something new comes.",
    ]


def assert_tame(output: str, *, times: int = 1) -> None:
    """Assert that hostile text was shown so often, and never raw."""
    assert not set(HOSTILE) & set(output) & set("\x1b\x07\u202e\x9b"), repr(output)
    assert output.count(SHOWN) == times, repr(output)


def test_a_pauses_reason_commands_no_terminal(project: Project) -> None:
    assert_tame(say(project, pause, "--reason", HOSTILE))
    assert_tame(say(project, pause, "flights", "--reason", HOSTILE))
    assert_tame(say(project, resume, "flights"), times=2)


def test_status_shows_stored_text_as_it_is(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "load_project", lambda: project)
    say(project, pause, "--reason", HOSTILE)
    assert_tame(say(project, status.status))

    spec = SimpleNamespace(team=PATH[0], name=PATH[1], automation=SimpleNamespace(arrivals=False))
    monkeypatch.setattr(status, "find_pipeline", lambda *_: SimpleNamespace(spec=spec))
    monkeypatch.setattr(status, "summary", lambda *_: "")
    ledger: Any = project.profile.services().ledger
    ledger.record_decision(decision(pipeline=PATH, reason=HOSTILE))
    assert_tame(say(project, status.status, "/".join(PATH)), times=2)


def test_cells_show_text_as_it_is() -> None:
    assert plain(f"{HOSTILE}\n[bold]", style="red").plain == f"{SHOWN}\n[bold]"


def test_an_explanation_shows_stored_text_as_it_is(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = RetrainingDecision(
        outcome="wait", period=None, causes=(), guards=(Guard(name="paused", holds=True, sentence=HOSTILE),)
    )
    monkeypatch.setattr(automation, "find_pipeline", lambda *_: None)
    monkeypatch.setattr(automation, "Step", lambda **_: SimpleNamespace(path=PATH, policy=None))
    monkeypatch.setattr(automation, "gather", lambda *_: None)
    monkeypatch.setattr(automation, "decide", lambda *_: wait)
    body = {"event": "decision", "outcome": "wait", "guards": [{"sentence": HOSTILE}], "causes": []}
    ledger: Any = project.profile.services().ledger
    ledger.append(Record(pipeline=PATH, kind=KIND, subject="2013-09", body=body))

    told = say(project, automation.automation, "explain", "/".join(PATH))

    assert_tame(told, times=3)


def test_a_request_that_waits_says_so_without_obeying(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SimpleNamespace(automation=SimpleNamespace(retraining=True))
    monkeypatch.setattr(automation, "find_pipeline", lambda *_: SimpleNamespace(spec=spec))
    say(project, pause, "--reason", HOSTILE)
    assert_tame(say(project, automation.automation, "request", "/".join(PATH), "--reason", "New data"))
