"""The fake store of dossiers keeps the same promises as the real one."""

from collections.abc import Callable

import pytest

from ml_assets.testing.dossiers import DossierStoreSuite, FakeDossierStore


class TestFakeDossierStore(DossierStoreSuite):
    @pytest.fixture
    def store(self) -> FakeDossierStore:
        return FakeDossierStore()

    @pytest.fixture
    def read(self, store) -> Callable[[str], str]:
        return store.pages.__getitem__
