"""The in-memory data store keeps the contract of every `DataStore`."""

import pytest

from ml_assets.testing.data_store import DataStoreSuite, FakeDataStore


class TestFakeDataStore(DataStoreSuite):
    @pytest.fixture
    def store(self) -> FakeDataStore:
        return FakeDataStore()
