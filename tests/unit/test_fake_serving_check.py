"""The fake serving check keeps the same promises as the real one."""

import pytest

from ml_assets.testing.model_registry import FakeModelRegistry
from ml_assets.testing.serving_check import GENEROUS, FakeServingCheck, ServingCheckSuite, evaluated, served_version


class TestFakeServingCheck(ServingCheckSuite):
    @pytest.fixture
    def registry(self) -> FakeModelRegistry:
        return FakeModelRegistry()

    @pytest.fixture
    def check(self, registry) -> FakeServingCheck:
        return FakeServingCheck(registry)


def test_a_test_can_say_what_is_found_and_see_what_was_checked():
    registry = FakeModelRegistry()
    version = served_version(registry)
    rows, scores = evaluated(registry.load(version.model_uri))
    check = FakeServingCheck(registry, problems=["It is too loud."], latency_ms=3.5, n_bytes=12)
    report = check.check(version, rows, scores, task="binary", limits=GENEROUS)
    assert report.problems == ("It is too loud.",)
    assert not report.passed
    assert (report.latency_ms, report.n_bytes) == (3.5, 12)
    assert check.checked == [version]
