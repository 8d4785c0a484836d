"""The studies in memory pass the suite of every `Studies`."""

import pytest

from ml_assets.testing.studies import FakeStudies
from ml_assets.testing.studies_suite import StudiesSuite


class TestFakeStudies(StudiesSuite):
    @pytest.fixture
    def studies(self) -> FakeStudies:
        return FakeStudies()
