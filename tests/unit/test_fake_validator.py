"""The fake validator keeps the same promises as the real one."""

import pytest

from ml_assets.testing.validator import FakeValidator, ValidatorSuite


class TestFakeValidator(ValidatorSuite):
    @pytest.fixture
    def validator(self) -> FakeValidator:
        return FakeValidator()
