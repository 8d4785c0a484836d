"""The fake model registry keeps the same promises as the real one."""

import hashlib
from dataclasses import replace

import pytest

from ml_assets.errors import RegistryError
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


def test_changed_bytes_are_refused_even_with_a_forged_record():
    import skops.io

    registry = FakeModelRegistry()
    uri = registry.log_model(small_run()).model_uri
    evaluated = registry.digest(uri)
    other = skops.io.dumps(small_run().model["columns"])
    registry.runs["run0001"] = replace(registry.runs["run0001"], data=other)
    assert registry.digest(uri) == hashlib.sha256(other).hexdigest()
    with pytest.raises(RegistryError, match="was changed"):
        registry.load(uri)
    registry.runs["run0001"] = replace(registry.runs["run0001"], recorded_digest=registry.digest(uri))
    registry.load(uri)
    with pytest.raises(RegistryError, match=f"expected SHA-256 {evaluated}"):
        registry.load(uri, digest=evaluated)
