"""The commands alerts list and alerts test, on alerts and channels in memory."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ml_assets.cli.alerts import alerts as command
from ml_assets.cli.project import Project
from ml_assets.testing.alerts import FakeAlerts, alert
from ml_assets.testing.notifier import FakeNotifier

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


class Desk:
    """Somebody at the command line of a project without pipelines."""

    def __init__(self, root: Path) -> None:
        self.alerts, self.notifier = FakeAlerts(), FakeNotifier(channels=("log", "slack"))
        services = SimpleNamespace(alerts=self.alerts, notifier=self.notifier)
        profile: Any = SimpleNamespace(user="lena", services=lambda: services)
        self._project = Project(root=root, profile=profile, locations=())

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(command, list(words), obj=self._project)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_list_says_what_became_of_each_alert(desk: Desk) -> None:
    assert "There was no alert yet." in desk.run("list").output
    for key in ("log|a", "slack|a", "slack|b"):
        desk.alerts.raise_once(alert(key=key, title=f"title of {key}"), now=NOW)
    desk.alerts.sent("log|a", now=NOW)
    desk.alerts.failed("slack|a", "it answered with status 500", not_before=NOW + timedelta(minutes=1))

    shown = " ".join(desk.run("list").output.split())

    assert shown.index("title of slack|b") < shown.index("title of log|a")
    assert all(words in shown for words in ("sent 2026-11-25 12:00", "failed 1 time,", "to be sent"))
    assert "title of log|a" not in desk.run("list", "--pending").output


def test_what_did_not_arrive_is_shown_however_many_did_since(desk: Desk) -> None:
    for key in ("slack|old", "pager|old", *(f"log|{n}" for n in range(250))):
        desk.alerts.raise_once(alert(key=key, title=f"title of {key}"), now=NOW)
    desk.alerts.failed("slack|old", "it answered with status 500", not_before=datetime.now(UTC) + timedelta(hours=1))
    for n in range(250):
        desk.alerts.sent(f"log|{n}", now=NOW)

    shown = " ".join(desk.run("list", "--pending").output.split())

    assert "title of slack|old failed 1 time" in shown
    assert "title of pager|old there is no such channel now; sent when there is again" in shown
    assert "title of log" not in shown
    for number in range(250):
        desk.alerts.raise_once(alert(key=f"log|later/{number}"), now=NOW)
    assert "These are the oldest 200 that did not arrive" in desk.run("list", "--pending").output


def test_the_list_shows_what_others_wrote_without_obeying_it(desk: Desk) -> None:
    desk.alerts.raise_once(alert(key="log|a", title="a\x1b[2J\u202eb [/red]"), now=NOW)
    desk.alerts.failed("log|a", "no\x07", not_before=NOW + timedelta(minutes=1))

    shown = desk.run("list")

    assert shown.exit_code == 0, shown.output
    assert not set("\x1b\x07\u202e") & set(shown.output)
    assert r"a\x1b[2J\u202eb [/red]" in " ".join(shown.output.split())


def test_a_test_message_goes_over_every_channel_and_is_not_kept(desk: Desk) -> None:
    result = desk.run("test")
    assert (result.exit_code, result.stdout) == (0, "log: sent.\nslack: sent.\n")
    assert [(channel, sent.kind) for channel, sent in desk.notifier.sent] == [("log", "test"), ("slack", "test")]
    assert desk.alerts.recent() == []


def test_a_channel_that_fails_is_said_with_code_1_and_an_unknown_one_is_a_wrong_call(desk: Desk) -> None:
    desk.notifier.broken.add("slack")
    result = desk.run("test")
    assert result.exit_code == 1
    assert "slack: The channel slack does not answer." in result.output
    assert "log: sent." in result.output
    assert desk.run("test", "--channel", "log").exit_code == 0
    assert desk.run("test", "--channel", "pigeon").exit_code == 2
