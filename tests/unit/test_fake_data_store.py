"""The in-memory data store keeps the contract of every `DataStore`."""

import pytest

from ml_assets.testing.data_store import FakeDataStore
from ml_assets.testing.data_store_suite import DataStoreSuite


class TestFakeDataStore(DataStoreSuite):
    @pytest.fixture
    def store(self) -> FakeDataStore:
        return FakeDataStore()
