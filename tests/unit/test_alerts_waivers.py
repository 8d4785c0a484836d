"""A gate that a person waived before the next look needs nobody; a waiver that does not count keeps no alert back."""

from types import SimpleNamespace
from typing import Any

import pytest

from ml_assets.alerting import Cursor, Sources, look
from ml_assets.testing.inbox import FakeInbox
from tests.unit.test_approvals_waivers import waive, world_of_waivers
from tests.unit.test_approvals_world import DAY, NOW, PIPELINE


@pytest.mark.parametrize(
    ("settings", "person", "told"),
    [({}, "olga", []), ({"waiver.roles": ["risk"]}, "olga", ["gate_failed"])],
    ids=["a waiver that counts", "one by somebody without the role"],
)
def test_only_a_waiver_that_counts_keeps_an_alert_back(settings: dict[str, Any], person: str, told: list[str]) -> None:
    world = world_of_waivers(**settings)
    failed = world.failed(recorded_at=NOW)
    waive(world, failed, person=person)
    policy: Any = SimpleNamespace(effective=lambda _: world.policy, people=lambda: world.people)
    sources = Sources(ledger=world.ledger, inbox=FakeInbox(), policy=policy, pipelines=[PIPELINE])

    found, _, unread = look(sources, Cursor(start=NOW - DAY, channels=("log",)), NOW)

    assert unread == []
    assert [alert.kind for alert in found if alert.kind != "incident"] == told
