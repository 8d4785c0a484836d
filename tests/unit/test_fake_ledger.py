"""FakeLedger keeps the promises of a ledger."""

import pytest

from ml_assets.interfaces import Ledger
from ml_assets.testing.ledger import FakeLedger, LedgerSuite


class TestFakeLedger(LedgerSuite):
    @pytest.fixture
    def ledger(self) -> Ledger:
        return FakeLedger()
