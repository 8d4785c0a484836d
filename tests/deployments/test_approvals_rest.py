"""The approvals sensor rests while the ledger is as it was, and holds still while a pause holds."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from ml_assets.retraining.pauses import pause, resume
from ml_assets.testing.ledger import FakeLedger
from sensors import approvals
from tests.deployments.test_approvals_sensor import PATH, approve, ask, asked


@pytest.fixture
def ledger() -> FakeLedger:
    """Return a ledger with a candidate that has its approvals."""
    ledger, now = FakeLedger(), datetime.now(UTC)
    approve(ledger, asked(ledger, recorded_at=now - timedelta(seconds=90)), now=now)
    return ledger


def test_it_looks_again_when_something_is_recorded_or_a_minute_is_over() -> None:
    ledger, now = FakeLedger(), datetime.now(UTC)
    waiting = asked(ledger, recorded_at=now - timedelta(seconds=90))
    first = ask(ledger)
    assert ask(ledger, first.cursor).skip_message == "Nothing was recorded since the last look."

    overdue = json.dumps({**json.loads(first.cursor or ""), approvals.REST: [ledger.mark(), now.timestamp() - 1]})
    assert ask(ledger, overdue).skip_message == "Nothing that waits has its approvals yet."
    approve(ledger, waiting, now=now)

    assert len(ask(ledger, first.cursor).run_requests or []) == 1


def test_what_is_approved_waits_for_the_end_of_a_pause(ledger: FakeLedger) -> None:
    pause(ledger, PATH, by="lena", reason="Inventory", now=datetime.now(UTC))
    held = ask(ledger)
    assert not held.run_requests
    assert "lena paused shop/returns on" in (held.skip_message or "")

    resume(ledger, PATH, by="lena", reason="Done", now=datetime.now(UTC))

    assert len(ask(ledger, held.cursor).run_requests or []) == 1
