"""FakeInbox and FakeAlerts keep the promises of an inbox and of a store of alerts."""

import pytest
from hypothesis import settings

from ml_assets.interfaces import AlertStore, Inbox
from ml_assets.testing.alerts import AlertsSuite, FakeAlerts
from ml_assets.testing.inbox import FakeInbox, InboxSuite
from tests.unit.inbox_machine import InboxMachine


class TestFakeInbox(InboxSuite):
    @pytest.fixture
    def inbox(self) -> Inbox:
        return FakeInbox()


class TestFakeAlerts(AlertsSuite):
    @pytest.fixture
    def alerts(self) -> AlertStore:
        return FakeAlerts()


class FakeInboxMachine(InboxMachine):
    def make_inbox(self) -> Inbox:
        return FakeInbox()


TestFakeInboxUnderAnySteps = FakeInboxMachine.TestCase
TestFakeInboxUnderAnySteps.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
