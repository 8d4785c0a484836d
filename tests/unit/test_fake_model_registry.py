"""The fake model registry keeps the same promises as the real one."""

import pytest

from ml_assets.testing.model_registry import FakeModelRegistry, ModelRegistrySuite, small_run


class TestFakeModelRegistry(ModelRegistrySuite):
    @pytest.fixture
    def registry(self) -> FakeModelRegistry:
        return FakeModelRegistry()


def test_a_test_can_read_what_was_recorded():
    registry = FakeModelRegistry()
    logged = registry.log_model(small_run())
    registry.log_results(logged.run_id, metrics={"test.roc_auc": 0.7}, files={"evaluation/roc.png": b"png"})
    recorded = registry.runs[logged.run_id]
    assert recorded.run.tags["partition"] == "2013-02"
    assert recorded.metrics == {"roc_auc": 0.75, "log_loss": 0.5, "test.roc_auc": 0.7}
    assert recorded.files == {"evaluation/roc.png": b"png"}
