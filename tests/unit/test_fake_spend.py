"""FakeSpend keeps the promises of a store of spend."""

import pytest

from ml_assets.interfaces.spend import SpendStore
from ml_assets.testing.spend import FakeSpend, SpendSuite


class TestFakeSpend(SpendSuite):
    @pytest.fixture
    def spend(self) -> SpendStore:
        return FakeSpend()
