"""Sending alerts: once a channel, with waits that double, a limit a turn, and bursts folded into one message."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.alerting import MOST_SENT, Cursor, Sources, keep, look, send_pending
from ml_assets.alerting.sending import MOST_READ
from ml_assets.interfaces import PipelinePath
from ml_assets.interfaces.alerts import Notifier
from ml_assets.testing.alerts import FakeAlerts, alert
from ml_assets.testing.inbox import FakeInbox, event, failure
from ml_assets.testing.ledger import FakeLedger, verdict
from ml_assets.testing.notifier import FakeNotifier, NotifierSuite
from ml_assets.testing.policy_source import FakePolicySource

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
PATH = ("flights", "arrival_delay")
BOTH = ("log", "slack")


class TestFakeNotifier(NotifierSuite):
    @pytest.fixture
    def notifier(self) -> Notifier:
        return FakeNotifier(channels=BOTH)


def test_a_broken_channel_does_not_repeat_the_others_and_waits_longer_each_time() -> None:
    alerts, notifier = FakeAlerts(), FakeNotifier(channels=BOTH, broken={"slack"})
    assert keep(alerts, BOTH, [alert()], NOW) == 1
    assert keep(alerts, BOTH, [alert()], NOW) == 0
    tried = [s for s in range(200) if send_pending(alerts, notifier, [PATH], NOW + s * SECOND).failures]
    assert tried == [0, 30, 90]
    assert notifier.sent == [("log", alert())]

    notifier.broken.clear()
    for s in range(200, 700):
        send_pending(alerts, notifier, [PATH], NOW + s * SECOND)

    assert notifier.sent == [("log", alert()), ("slack", alert())]


def test_a_burst_is_one_message_and_no_more_than_the_limit_are_sent_at_a_turn() -> None:
    alerts, notifier = FakeAlerts(), FakeNotifier()
    keep(alerts, ["log"], [alert(key=f"burst/{n}", title=f"letter {n}") for n in range(11)], NOW)
    keep(alerts, ["log"], [alert(key=f"one/{n}", kind=f"kind{n}") for n in range(25)], NOW)

    first = send_pending(alerts, notifier, [PATH], NOW)

    assert (first.messages, first.left) == (MOST_SENT, 6)
    message = notifier.sent[0][1]
    assert "11 alerts of kind dead_letter" in message.title
    assert "letter 0" in message.body
    assert send_pending(alerts, notifier, [PATH], NOW).messages == 6
    assert alerts.pending(now=NOW) == []


def test_ten_of_a_kind_are_ten_messages() -> None:
    alerts, notifier = FakeAlerts(), FakeNotifier()
    keep(alerts, ["log"], [alert(key=str(n)) for n in range(10)], NOW)
    assert send_pending(alerts, notifier, [PATH], NOW).messages == 10


def test_others_pipelines_and_channels_that_are_gone_are_left_alone() -> None:
    alerts, notifier = FakeAlerts(), FakeNotifier()
    keep(alerts, ["log"], [alert(pipeline=("shop", "returns"))], NOW)
    keep(alerts, ["pager"], [alert()], NOW)
    assert send_pending(alerts, notifier, [PATH], NOW).messages == 0
    assert [row.attempts for row in alerts.pending(now=NOW)] == [0, 0]


def test_alerts_of_a_channel_that_is_gone_do_not_keep_new_ones_back() -> None:
    alerts, notifier = FakeAlerts(), FakeNotifier()
    keep(alerts, ["pager"], [alert(key=f"old/{n}") for n in range(MOST_READ)], NOW)
    keep(alerts, ["log"], [alert(key=f"other/{n}", pipeline=("shop", "returns")) for n in range(MOST_READ)], NOW)
    keep(alerts, ["log"], [alert(key="new")], NOW)

    assert send_pending(alerts, notifier, [PATH], NOW).messages == 1
    assert [told.key for _, told in notifier.sent] == ["new"]


def test_no_sending_begins_after_the_time_of_a_turn() -> None:
    alerts, notifier, seconds = FakeAlerts(), FakeNotifier(), iter(range(0, 1000, 10))
    keep(alerts, ["log"], [alert(key=str(n)) for n in range(5)], NOW)
    sent = send_pending(alerts, notifier, [PATH], NOW, clock=lambda: float(next(seconds)))
    assert (sent.messages, sent.left) == (2, 3)


class World:
    """Sources in memory, and ticks over them as the sensor makes them."""

    def __init__(self) -> None:
        self.ledger, self.inbox = FakeLedger(), FakeInbox()
        self.alerts, self.notifier = FakeAlerts(), FakeNotifier(channels=BOTH)
        self.now, self.text = NOW, ""
        self.rows = 0

    def tick(self, pipelines: tuple[PipelinePath, ...] = (PATH,)) -> list[str]:
        sources = Sources(ledger=self.ledger, inbox=self.inbox, policy=FakePolicySource({}), pipelines=pipelines)
        cursor = Cursor.of(self.text, self.notifier.channels, self.now)
        found, cursor, unread = look(sources, cursor, self.now)
        assert not unread
        self.text = cursor.text
        keep(self.alerts, self.notifier.channels, found, self.now)
        send_pending(self.alerts, self.notifier, pipelines, self.now)
        return [one.kind for one in found]

    def fail_gate(self, **changes: Any) -> None:
        self.rows += 1
        fields = {"outcome": "failed", "partition": f"p{self.rows}", "recorded_at": self.now, **changes}
        self.ledger.record_verdicts([verdict(**fields)])


def test_old_verdicts_are_not_told_at_the_first_tick_but_dead_letters_are() -> None:
    world = World()
    world.fail_gate(recorded_at=NOW - timedelta(days=1))
    world.inbox.bury(event(), failure(), now=NOW)
    assert world.tick() == ["dead_letter"]
    assert world.tick() == []
    world.now += SECOND
    world.fail_gate()
    assert world.tick() == ["gate_failed"]
    assert world.tick() == []


def test_a_row_that_others_saw_late_is_told() -> None:
    world = World()
    world.now += timedelta(hours=1)
    world.text = Cursor(start=NOW, channels=BOTH).text
    world.tick()
    world.fail_gate(recorded_at=world.now - timedelta(minutes=4))
    assert world.tick() == ["gate_failed"]


def test_a_new_channel_is_told_what_needs_people_and_not_the_past() -> None:
    world = World()
    world.inbox.bury(event(), failure(), now=NOW)
    world.tick()
    world.now += timedelta(hours=1)
    world.fail_gate()
    world.tick()
    world.now += timedelta(hours=1)
    world.fail_gate(outcome="passed")
    world.tick()
    world.notifier.channels = ("log", "slack", "webhook")
    world.now += timedelta(hours=1)
    world.tick()
    assert [one.kind for channel, one in world.notifier.sent if channel == "webhook"] == ["dead_letter"]
    assert len([channel for channel, _ in world.notifier.sent if channel == "log"]) == 2


def test_nothing_is_read_while_nothing_changes() -> None:
    class OnlyMarks(FakeLedger):
        def heads(self, pipeline: PipelinePath | None = None) -> Any:
            raise AssertionError(pipeline)

    world = World()
    world.fail_gate()
    world.tick()
    marks = OnlyMarks()
    marks.record_verdicts(world.ledger.verdicts((*PATH, "raw_data")))
    world.ledger = marks
    assert world.tick() == []


@given(st.lists(st.sampled_from(["tick", "gate", "dead", "minute", "hour", "forget", "break", "mend"]), max_size=25))
def test_every_alert_is_sent_at_most_once_a_channel_and_in_the_end_on_all(steps: list[str]) -> None:
    world = World()
    world.tick()
    for number, step in enumerate(steps):
        match step:
            case "tick":
                world.tick()
            case "gate":
                world.now += SECOND
                world.fail_gate()
                world.tick()
            case "dead":
                world.inbox.bury(event(key=str(number)), failure(), now=world.now)
            case "minute" | "hour":
                world.now += timedelta(**{f"{step}s": 1})
            case "forget":
                world.text = ""
            case "break":
                world.notifier.broken.add("slack")
            case _:
                world.notifier.broken.clear()
    world.notifier.broken.clear()
    for _ in range(3):
        world.now += timedelta(hours=2)
        world.tick()
    sent = [(channel, one.key) for channel, one in world.notifier.sent]
    assert len(sent) == len(set(sent))
    assert world.alerts.pending(now=world.now) == []
    dead = [
        key for channel, key in sent if channel == "slack" and key.startswith("dead_letter") and "several" not in key
    ]
    assert len(dead) == steps.count("dead") or steps.count("dead") > 10
