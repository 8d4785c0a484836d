"""The commands dead-letters and inbox, and what status says of events, on an inbox in memory."""

import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ml_assets.cli.dead_letters import dead_letters
from ml_assets.cli.inbox import inbox as inbox_command
from ml_assets.cli.project import Location, Project
from ml_assets.cli.status import dead_letters_line, event_words
from ml_assets.interfaces import EventState
from ml_assets.testing.inbox import NOW, PIPELINE, FakeInbox, event, failure
from ml_assets.testing.inbox_examples import DEDUP, MINUTE, OTHER, RETRY

NAME = "flights/arrival_delay"


@dataclass
class ProfileDouble:
    """What these commands ask of a profile."""

    user: str = "lena"
    inbox: FakeInbox = field(default_factory=FakeInbox)

    def services(self) -> Any:
        return SimpleNamespace(inbox=self.inbox)


@dataclass
class Desk:
    """A project of one pipeline and whoever works at its command line."""

    project: Project
    inbox: FakeInbox

    def run(self, command: Any, *words: str) -> Result:
        return CliRunner().invoke(command, list(words), obj=self.project)

    def say(self, command: Any, *words: str) -> str:
        """Return what a command that succeeds prints, in one line."""
        result = self.run(command, *words)
        assert result.exit_code == 0, result.output + repr(result.exception)
        return " ".join(result.stdout.split())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    file = tmp_path / "deployments" / "flights" / "defs" / "arrival_delay" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("")
    profile: Any = ProfileDouble()
    location = Location(name="flights", module="deployments.flights.definitions")
    return Desk(project=Project(root=tmp_path, profile=profile, locations=(location,)), inbox=profile.inbox)


def fill(inbox: FakeInbox) -> None:
    """Leave an event waiting (1), dead after a run (2), buried (3), done (4), and one of another pipeline (5)."""
    inbox.receive([event(key="1"), event(key="2", partition="JFK|2013-01")], dedup=DEDUP, now=NOW)
    inbox.claim([2], "b1", lease=MINUTE, now=NOW)
    inbox.start("b1", "0f1e2d3c-run", now=NOW)
    inbox.finish("b1", {2: failure(reason="The file [bold] lacks dep_time.", transient=False)}, retry=RETRY, now=NOW)
    inbox.bury(event(key="3", partition="LGA|2013-01", payload={}), failure(reason="Empty."), now=NOW)
    inbox.receive([event(key="2")], dedup=DEDUP, now=NOW + MINUTE)
    inbox.receive([event(key="4", partition="LGA|2013-02")], dedup=DEDUP, now=NOW)
    inbox.claim([4], "b2", lease=MINUTE, now=NOW)
    inbox.finish("b2", {}, retry=RETRY, now=NOW)
    inbox.bury(event(key="5", pipeline=OTHER), failure(), now=NOW)


def test_dead_letters_are_listed_with_why(desk: Desk) -> None:
    fill(desk.inbox)

    result = desk.run(dead_letters, "list", NAME)
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if re.match(r" \d", line)]
    assert [row[:4] for row in rows] == [
        ["3", NAME, "LGA|2013-01", "3"],
        ["2", NAME, "JFK|2013-01", "EWR/2013-01.csv"],
    ]
    assert "The file [bold] lacks" in " ".join(result.stdout.split())
    assert "cancellation" not in result.stdout

    assert "cancellation" in desk.say(dead_letters, "list")


def test_no_dead_letter(desk: Desk) -> None:
    assert desk.say(dead_letters, "list") == "There is no dead letter."
    assert desk.say(dead_letters, "replay", "--all", NAME) == f"{NAME} has no dead letter."


def test_more_dead_letters_than_are_shown_are_counted(desk: Desk) -> None:
    for n in range(203):
        desk.inbox.bury(event(key=str(n)), failure(), now=NOW)

    assert "These are the newest 200 of 203." in desk.say(dead_letters, "list")


def test_a_dead_letter_is_shown_with_its_place_and_traceback(desk: Desk) -> None:
    fill(desk.inbox)

    said = desk.say(dead_letters, "show", "2")

    assert said.startswith("Event 2, flights/arrival_delay [JFK|2013-01]: dead The file [bold] lacks dep_time.")
    for fact in ("place EWR/2013-01.csv", "key 2", "last run 0f1e2d3c-run", '"bytes": 1234', "failed runs 1"):
        assert fact in said
    assert "repeats 1, the last at 2013-02-01 06:01:00 UTC" in said
    assert "Traceback … Once the cause is mended: ml-assets dead-letters replay 2 If something else" in said
    assert said.endswith('than a newer event of its partition: ml-assets dead-letters discard 2 --reason "…"')
    assert "Once the cause" not in desk.say(dead_letters, "show", "1")


def test_what_others_wrote_commands_no_terminal_and_forges_no_line(desk: Desk) -> None:
    hostile = "\x1b]0;owned\x07\x9b2J\u202e"
    kept = desk.inbox.bury(
        event(key=f"k{hostile}\nlast run  forged"), failure(reason=f"no {hostile}", transient=False), now=NOW
    )

    outputs = [
        desk.run(dead_letters, "list"),
        desk.run(dead_letters, "show", str(kept.number)),
        desk.run(dead_letters, "replay", str(kept.number)),
        desk.run(inbox_command, "list"),
    ]

    for result in outputs:
        assert result.exit_code == 0, result.output
        assert not set(hostile) & set(result.stdout) - set("]0;owned2J"), repr(result.stdout)
    assert [line for line in outputs[1].stdout.split("\n") if line.startswith("last run")] == ["last run     –"]


def test_a_refused_replay_commands_no_terminal_either(desk: Desk) -> None:
    kept = desk.inbox.receive([event(pipeline=("flights", "x\x1b[2J"))], dedup=DEDUP, now=NOW).new[0]
    result = desk.run(dead_letters, "replay", str(kept.number))
    assert result.exit_code == 1
    assert r"of flights/x\x1b[2J is waiting, and cannot be replayed" in result.stderr
    assert "\x1b" not in result.stderr


def test_an_event_that_is_not_there_cannot_be_shown(desk: Desk) -> None:
    assert "The inbox has no event 9" in repr(desk.run(dead_letters, "show", "9").exception)


def test_dead_letters_are_replayed_by_number(desk: Desk) -> None:
    fill(desk.inbox)

    result = desk.run(dead_letters, "replay", "3", "4", "2", "2")

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "Event 3, flights/arrival_delay [LGA|2013-01] waits for a run again.",
        "Event 2, flights/arrival_delay [JFK|2013-01] waits for a run again.",
    ]
    assert "Event 4 of flights/arrival_delay is done, and cannot be replayed" in result.stderr
    replayed = desk.inbox.event(3)
    assert replayed is not None
    assert replayed.reason == "Replayed by lena. Before: Empty."


def test_every_dead_letter_of_a_pipeline_is_replayed(desk: Desk) -> None:
    fill(desk.inbox)

    assert desk.say(dead_letters, "replay", "--all", NAME).count("waits for a run again") == 2

    assert desk.inbox.counts() == {PIPELINE: {"waiting": 3, "done": 1}, OTHER: {"dead": 1}}


@pytest.mark.parametrize("words", [[], ["2", "--all", NAME]])
def test_numbers_or_a_pipeline_are_needed_to_replay(desk: Desk, words: list[str]) -> None:
    result = desk.run(dead_letters, "replay", *words)

    assert result.exit_code == 2
    assert "Name the numbers of dead letters, or a pipeline with --all" in result.stderr


def test_a_dead_letter_is_discarded_with_a_reason(desk: Desk) -> None:
    fill(desk.inbox)

    said = desk.say(dead_letters, "discard", "3", "--reason", "A test file.")

    assert said == "Event 3, flights/arrival_delay [LGA|2013-01] is discarded."
    assert "Discarded by lena: A test file. Before: Empty." in desk.say(dead_letters, "show", "3")
    assert desk.run(dead_letters, "discard", "2").exit_code == 2
    assert "it is empty; say why" in desk.run(dead_letters, "discard", "2", "--reason", " ").stderr
    assert (event := desk.inbox.event(2)) is not None
    assert event.state == "dead"


def test_a_pipeline_that_is_not_there(desk: Desk) -> None:
    for command, words in ((dead_letters, ["list"]), (dead_letters, ["replay", "--all"]), (inbox_command, ["list"])):
        result = desk.run(command, *words, "flights/other")
        assert (result.exit_code, "There is no pipeline 'flights/other'" in result.stderr) == (2, True)


def test_events_are_listed_by_state(desk: Desk) -> None:
    assert desk.say(inbox_command, "list") == "The inbox is empty."
    fill(desk.inbox)

    def states(*words: str) -> list[str]:
        lines = desk.run(inbox_command, "list", *words).stdout.splitlines()
        return [" ".join(line.split()[:2]) for line in lines if re.match(r" \d", line)]

    assert states() == ["5 dead", "4 done", "3 dead", "2 dead", "1 waiting"]
    assert states("--state", "dead", "--state", "done", "--last", "3") == ["5 dead", "4 done", "3 dead"]
    assert states(NAME, "--state", "dead") == ["3 dead", "2 dead"]
    assert desk.say(inbox_command, "list", "--state", "running") == "There is no such event."


def test_status_counts_what_waits_runs_and_is_dead() -> None:
    assert event_words({}) == event_words({"done": 7, "discarded": 1}) == "–"
    counts: dict[EventState, int] = {"waiting": 1, "claimed": 2, "running": 3, "dead": 4, "done": 9}
    assert event_words(counts) == "1 waiting, 5 running, 4 dead"


def test_status_points_to_the_dead_letters() -> None:
    inbox = FakeInbox()
    assert dead_letters_line(inbox, None) == ""
    fill(inbox)

    assert dead_letters_line(inbox, None) == "3 dead letters; see: ml-assets dead-letters list"
    assert dead_letters_line(inbox, OTHER) == "1 dead letter; see: ml-assets dead-letters list flights/cancellation"
    inbox.discard(5, by="ada", reason="No.", now=NOW + timedelta(hours=1))
    assert dead_letters_line(inbox, OTHER) == ""
