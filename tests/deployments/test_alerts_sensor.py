"""The sensor that sends alerts: freshness out of Dagster's event log, and the rows of ledger and inbox, once each."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from dagster._core.definitions.sensor_definition import SensorExecutionData

from ml_assets.assets.team_pipeline import TeamPipeline
from ml_assets.interfaces import Decision, PipelinePath, Record
from ml_assets.retraining.pauses import EVERYTHING
from ml_assets.sources import LandingZone
from ml_assets.testing.alerts import FakeAlerts
from ml_assets.testing.inbox import NOW, FakeInbox, event, failure
from ml_assets.testing.ledger import FakeLedger, verdict
from ml_assets.testing.notifier import FakeNotifier
from ml_assets.testing.policy_source import FakePolicySource
from sensors import alerts as module
from sensors.alerts import build_alerts_sensor
from tests.integration.test_quarantine_status import put_aside, spec

PATH = ("flights", "arrival_delay")
MONTHS = dg.MonthlyPartitionsDefinition("2013-01", end_date="2013-06", fmt="%Y-%m")
SPEC: Any = SimpleNamespace(
    team=PATH[0],
    name=PATH[1],
    freshness=SimpleNamespace(features="2d", predictions=None),
    automation=SimpleNamespace(arrivals=False),
)
LOADED: Any = SimpleNamespace(spec=SPEC)


class Location:
    """The sensor in a code location with everything in memory."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.ledger, self.inbox, self.alerts = FakeLedger(), FakeInbox(), FakeAlerts()
        self.notifier, self.instance = FakeNotifier(), instance
        self.sensor = build_alerts_sensor({PATH: TeamPipeline(loaded=LOADED, data=MONTHS, time=MONTHS)})
        self.cursor: str | None = None
        self.landing: LandingZone | None = None

    def tick(self) -> SensorExecutionData:
        resources = {"ledger": self.ledger, "inbox": self.inbox, "policy": FakePolicySource({})}
        resources |= {"landing": self.landing, "alerts": self.alerts, "notifier": self.notifier}
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor, resources=resources) as context:
            result = self.sensor.evaluate_tick(context)
        self.cursor = result.cursor
        return result

    @property
    def kinds(self) -> list[str]:
        return [alert.kind for _, alert in self.notifier.sent]

    def judge(self, stage: str, old: FreshnessState, new: FreshnessState, at: float) -> None:
        """Report what Dagster's freshness daemon reports."""
        change = FreshnessStateChange(
            key=dg.AssetKey([*PATH, stage]), new_state=new, previous_state=old, state_change_timestamp=at
        )
        self.instance._report_runless_asset_event(change)


@pytest.fixture
def location() -> Any:
    with dg.instance_for_test() as instance:
        yield Location(instance)


def test_gates_and_dead_letters_are_told_once_also_while_everything_is_paused(location: Location) -> None:
    assert location.tick().skip_message == "Nothing is new."
    location.ledger.append(Record(pipeline=EVERYTHING, kind="pause", subject="pause", body={"by": "a", "reason": "b"}))
    location.ledger.record_verdicts([verdict(outcome="failed")])
    location.inbox.bury(event(), failure(), now=NOW)

    assert location.tick().skip_message == "2 new, 2 sent, 0 failed, 0 left."

    assert location.kinds == ["gate_failed", "dead_letter"]
    for _ in range(3):
        assert location.tick().skip_message == "Nothing is new."
    location.cursor = None
    location.tick()
    assert len(location.kinds) == 2


def test_missed_freshness_is_told_once_for_each_miss(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESHNESS_EVERY", 0 * module.FRESHNESS_EVERY)
    location.judge("features", FreshnessState.UNKNOWN, FreshnessState.WARN, 1000.0)
    location.judge("predictions", FreshnessState.UNKNOWN, FreshnessState.FAIL, 1000.0)
    location.tick()
    assert location.kinds == [], "a warning is none, and what the pipeline does not watch neither"

    location.judge("features", FreshnessState.WARN, FreshnessState.FAIL, 2000.0)
    for _ in range(3):
        location.tick()
    assert location.kinds == ["freshness_missed"]
    assert "flights/arrival_delay/features" in location.notifier.sent[0][1].body

    location.judge("features", FreshnessState.FAIL, FreshnessState.PASS, 3000.0)
    location.tick()
    location.judge("features", FreshnessState.PASS, FreshnessState.FAIL, 4000.0)
    for _ in range(2):
        location.tick()
    assert location.kinds == ["freshness_missed"] * 2


def test_a_bad_file_is_told_once(location: Location, tmp_path: Path) -> None:
    watching: Any = SimpleNamespace(spec=spec())
    months = TeamPipeline(loaded=watching, data=MONTHS, time=MONTHS)
    location.sensor = build_alerts_sensor({("shop", "returns"): months})
    location.landing = LandingZone(root=str(tmp_path))
    assert location.tick().skip_message == "Nothing is new."
    put_aside(location.landing, "20130201T060000Z_0_a.csv")

    assert location.tick().skip_message == "1 new, 1 sent, 0 failed, 0 left."

    assert location.kinds == ["quarantined"]
    for cursor in (location.cursor, None):
        location.cursor = cursor
        assert location.tick().skip_message == "Nothing is new."


def test_a_pipeline_that_cannot_be_read_is_said_and_tried_again(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    location.tick()
    location.inbox.bury(event(), failure(), now=NOW)

    def tampered(pipeline: PipelinePath) -> list[Decision]:
        raise KeyError(pipeline)

    monkeypatch.setattr(location.ledger, "decisions", tampered)
    location.ledger.append(Record(pipeline=PATH, kind="automation", subject="x", body={"event": "request"}))

    said = location.tick().skip_message

    assert said is not None
    assert "flights/arrival_delay: KeyError" in said
    assert location.kinds == ["dead_letter"]
    assert "KeyError" in (location.tick().skip_message or "")
