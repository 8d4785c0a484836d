"""What every `ModelRegistry` does, with small models and trials to try it on."""
# ruff: noqa: D102 - the names of the tests are the sentences

import functools
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import pytest

from ml_assets.errors import RegistryError
from ml_assets.interfaces import DatasetInput, ModelRegistry, ModelRun, TrialRun
from ml_assets.training import prepare

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class MajorityModel:
    """A classifier of a type that skops does not know, for tests of trusted types."""

    def fit(self, X: "pd.DataFrame", y: "np.ndarray") -> Self:
        """Remember the more frequent class of y, an array of 0 and 1 with shape (n,)."""
        self.class_ = int(y.mean() >= 0.5)
        return self

    def predict(self, X: "pd.DataFrame") -> "np.ndarray":
        """Return the remembered class for each row, shape (n,)."""
        import numpy as np

        return np.full(len(X), self.class_)


@functools.cache
def small_training_data() -> "tuple[pd.DataFrame, np.ndarray]":
    """Return 300 rows with numbers, a missing value, text and an integer, and a label of 0 and 1."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(7)
    X = pd.DataFrame(
        {
            "distance": rng.normal(1000.0, 300.0, 300),
            "hour": rng.integers(0, 24, 300),
            "carrier": rng.choice(["AA", "DL", "UA"], 300),
        }
    )
    X.loc[::17, "distance"] = np.nan
    return X, (X["hour"].to_numpy() + rng.normal(0.0, 4.0, 300) > 14).astype(int)


def small_run(**changes: Any) -> ModelRun:
    """Return a run with a fitted pipeline of encoder and boosted trees; `changes` replace its fields."""
    X, _ = small_training_data()
    model = changes.pop("model", None) or _fitted_pipeline()
    output = model.predict_proba(X.head(5)) if hasattr(model, "predict_proba") else model.predict(X.head(5))
    run = ModelRun(
        experiment="flights/arrival_delay",
        name="2013-02 boosted trees",
        model=model,
        input_example=X.head(5),
        output_example=output,
        params={"learning_rate": 0.1, "max_iter": 10},
        metrics={"roc_auc": 0.75, "log_loss": 0.5},
        tags={"partition": "2013-02", "code_version": "abc"},
        inputs=(
            DatasetInput(name="flights/training_set 2013-02", digest="a" * 64, context="training", url="s3://b/t"),
        ),
    )
    return replace(run, **changes)


def small_trial(number: int, **changes: Any) -> TrialRun:
    """Return a completed trial; `changes` replace its fields."""
    trial = TrialRun(
        number=number,
        name=f"trial {number}",
        state="completed",
        params={"estimator.max_depth": None, "estimator.learning_rate": 0.1 + number},
        metrics={"log_loss": 0.5},
        reports={1: 0.7, 2: 0.5},
        seconds=1.5,
    )
    return replace(trial, **changes)


@functools.cache
def _fitted_pipeline() -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer([("carrier", encoder, ["carrier"])], remainder="passthrough")
    trees = HistGradientBoostingClassifier(max_iter=10, random_state=0)
    return Pipeline([("columns", columns), ("trees", trees)]).fit(*small_training_data())


class ModelRegistrySuite:
    """What every `ModelRegistry` does; a subclass provides the fixture `registry`, empty for each test."""

    NAME = "flights.arrival_delay"

    def test_a_loaded_model_predicts_the_same_bits(self, registry: ModelRegistry) -> None:
        run = small_run()
        loaded = registry.load(registry.log_model(run).model_uri)
        X, _ = small_training_data()
        assert loaded is not run.model
        assert loaded.predict_proba(X).tobytes() == run.model.predict_proba(X).tobytes()

    def test_a_registered_model_loads_from_its_version(self, registry: ModelRegistry) -> None:
        version = registry.register(self.NAME, registry.log_model(small_run()), tags={})
        X, _ = small_training_data()
        loaded = registry.load(version.model_uri)
        assert loaded.predict_proba(X).tobytes() == _fitted_pipeline().predict_proba(X).tobytes()

    def test_a_declared_type_is_stored_and_loaded(self, registry: ModelRegistry) -> None:
        X, y = small_training_data()
        trusted = (f"{MajorityModel.__module__}.MajorityModel",)
        logged = registry.log_model(small_run(model=MajorityModel().fit(X, y), trusted_types=trusted))
        assert registry.load(logged.model_uri, trusted_types=trusted).class_ == int(y.mean() >= 0.5)
        with pytest.raises(RegistryError, match=r"MajorityModel.*trusted_types"):
            registry.load(logged.model_uri)

    def test_an_undeclared_type_is_not_stored(self, registry: ModelRegistry) -> None:
        model = MajorityModel().fit(*small_training_data())
        with pytest.raises(RegistryError, match=r"MajorityModel.*variants\.<name>\.trusted_types"):
            registry.log_model(small_run(model=model))

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_metric_that_is_not_finite_is_refused_by_name(self, registry: ModelRegistry, value: float) -> None:
        with pytest.raises(RegistryError, match="roc_auc"):
            registry.log_model(small_run(metrics={"roc_auc": value, "log_loss": 0.5}))
        logged = registry.log_model(small_run())
        with pytest.raises(RegistryError, match=r"test\.roc_auc"):
            registry.log_results(logged.run_id, metrics={"test.roc_auc": value}, files={})

    def test_a_started_run_takes_its_trials_and_then_its_model(self, registry: ModelRegistry) -> None:
        run_id = registry.start_run("flights/arrival_delay", "2013-02 forest", tags={"team": "flights"})
        registry.log_trials(run_id, [small_trial(0), small_trial(1, state="failed", metrics={})])
        registry.log_trials(run_id, [small_trial(1), small_trial(2, state="pruned")])
        logged = registry.log_model(small_run(run_id=run_id))
        X, _ = small_training_data()
        assert logged.run_id == run_id
        assert (
            registry.load(logged.model_uri).predict_proba(X).tobytes() == _fitted_pipeline().predict_proba(X).tobytes()
        )
        assert registry.log_model(small_run()).run_id != run_id

    def test_a_run_that_goes_on_is_continued_and_one_that_ended_is_not(self, registry: ModelRegistry) -> None:
        run_id = registry.start_run("flights/arrival_delay", "2013-02 forest", tags={})
        name = ("flights/arrival_delay", "2013-02 forest")
        assert registry.start_run(*name, tags={}, continues=run_id) == run_id
        registry.fail_run(run_id)
        again = registry.start_run(*name, tags={}, continues=run_id)
        assert again != run_id
        registry.log_model(small_run(run_id=again))
        assert registry.start_run(*name, tags={}, continues=again) != again
        assert registry.start_run(*name, tags={}, continues="0123456789abcdef") != "0123456789abcdef"

    def test_a_run_whose_id_was_lost_is_found_by_its_tags(self, registry: ModelRegistry) -> None:
        name, tags = ("flights/arrival_delay", "2013-02 forest"), {"study": "ab12", "run": "r1", "team": "flights"}
        run_id = registry.start_run(*name, tags=tags)
        assert registry.start_run(*name, tags=tags, once=("study", "run")) == run_id
        assert registry.start_run(*name, tags=tags) != run_id
        other = registry.start_run(*name, tags=tags | {"run": "r2"}, once=("study", "run"))
        assert other != run_id
        registry.fail_run(other)
        assert registry.start_run(*name, tags=tags | {"run": "r2"}, once=("study", "run")) != other

    def test_trials_need_a_run_and_finite_numbers(self, registry: ModelRegistry) -> None:
        with pytest.raises(RegistryError, match="0123456789abcdef"):
            registry.log_trials("0123456789abcdef", [small_trial(0)])
        with pytest.raises(RegistryError, match="0123456789abcdef"):
            registry.fail_run("0123456789abcdef")
        run_id = registry.start_run("flights/arrival_delay", "2013-02 forest", tags={})
        with pytest.raises(RegistryError, match="log_loss"):
            registry.log_trials(run_id, [small_trial(0, metrics={"log_loss": math.nan})])

    def test_results_can_be_added_again(self, registry: ModelRegistry) -> None:
        logged = registry.log_model(small_run())
        for _ in range(2):
            registry.log_results(logged.run_id, metrics={"test.roc_auc": 0.7}, files={"evaluation/roc.png": b"\x89PNG"})

    @pytest.mark.parametrize("path", ["../roc.png", "/roc.png", "evaluation/../../roc.png"])
    def test_a_file_stays_inside_its_run(self, registry: ModelRegistry, path: str) -> None:
        logged = registry.log_model(small_run())
        with pytest.raises(RegistryError, match="outside the run"):
            registry.log_results(logged.run_id, metrics={}, files={path: b""})

    def test_results_need_a_run(self, registry: ModelRegistry) -> None:
        with pytest.raises(RegistryError, match="0123456789abcdef"):
            registry.log_results("0123456789abcdef", metrics={"test.roc_auc": 0.7}, files={})

    def test_registering_twice_gives_the_same_version(self, registry: ModelRegistry) -> None:
        logged = registry.log_model(small_run())
        first = registry.register(self.NAME, logged, tags={"partition": "2013-02"})
        again = registry.register(self.NAME, logged, tags={"approval": "none"})
        assert (first.version, again.version) == ("1", "1")
        assert first.run_id == logged.run_id
        assert again.tags == {"partition": "2013-02", "approval": "none"}
        assert registry.version(self.NAME, "1") == again

    def test_another_run_gets_another_version(self, registry: ModelRegistry) -> None:
        versions = [registry.register(self.NAME, registry.log_model(small_run()), tags={}) for _ in range(2)]
        assert [version.version for version in versions] == ["1", "2"]

    @pytest.mark.parametrize("name", ["flights/arrival_delay", "flights:arrival_delay", "it's", ""])
    def test_a_name_that_cannot_be_registered_is_refused(self, registry: ModelRegistry, name: str) -> None:
        logged = registry.log_model(small_run())
        with pytest.raises(RegistryError, match="cannot name a registered model"):
            registry.register(name, logged, tags={})

    def test_an_alias_moves(self, registry: ModelRegistry) -> None:
        for _ in range(2):
            registry.register(self.NAME, registry.log_model(small_run()), tags={})
        assert registry.version_by_alias(self.NAME, "champion") is None
        for version in ("1", "2"):
            registry.set_alias(self.NAME, "champion", version)
            assert registry.version_by_alias(self.NAME, "champion") == registry.version(self.NAME, version)

    def test_a_deleted_alias_is_none_and_leaves_the_others(self, registry: ModelRegistry) -> None:
        registry.register(self.NAME, registry.log_model(small_run()), tags={})
        for alias in ("champion", "shadow"):
            registry.set_alias(self.NAME, alias, "1")
        for _ in range(2):
            registry.delete_alias(self.NAME, "shadow")
        registry.delete_alias("nobody.knows", "shadow")
        assert registry.version_by_alias(self.NAME, "shadow") is None
        assert registry.version_by_alias(self.NAME, "champion") == registry.version(self.NAME, "1")

    def test_tags_of_a_version_are_added_and_changed(self, registry: ModelRegistry) -> None:
        given = {"partition": "2013-02", "approval": "awaited"}
        registry.register(self.NAME, registry.log_model(small_run()), tags=given)
        registry.set_version_tags(self.NAME, "1", {"approval": "given", "by": "Ada"})
        expected = {"partition": "2013-02", "approval": "given", "by": "Ada"}
        assert registry.version(self.NAME, "1").tags == expected

    def test_the_digest_of_a_model_is_the_same_by_each_address(self, registry: ModelRegistry) -> None:
        logged = registry.log_model(small_run())
        version = registry.register(self.NAME, logged, tags={})
        assert re.fullmatch("[0-9a-f]{64}", registry.digest(logged.model_uri))
        assert registry.digest(version.model_uri) == registry.digest(logged.model_uri)

    def test_a_model_loads_by_its_digest_and_by_no_other(self, registry: ModelRegistry) -> None:
        uri = registry.log_model(small_run()).model_uri
        digest = registry.digest(uri)
        assert registry.load(uri, digest=digest).n_features_in_ == 3
        for other in ("0" * 64, digest[:-1], ""):
            with pytest.raises(RegistryError, match=f"expected SHA-256 {other}, found {digest}"):
                registry.load(uri, digest=other)

    def test_the_input_example_comes_back(self, registry: ModelRegistry) -> None:
        import pandas as pd

        X, _ = small_training_data()
        # The first row lacks a number, and rows keep no other label than their place.
        example = X.iloc[[17, 3, 40]].assign(ratio=[0.1 + 0.2, 1e-300, -1.0])
        example["carrier"] = ["AA", None, "ÜA"]
        logged = registry.log_model(small_run(input_example=example))
        version = registry.register(self.NAME, logged, tags={})
        for uri in (logged.model_uri, version.model_uri):
            pd.testing.assert_frame_equal(
                prepare(registry.example(uri)), prepare(example.reset_index(drop=True)), check_exact=True
            )

    def test_an_alias_of_an_unknown_model_is_none(self, registry: ModelRegistry) -> None:
        assert registry.version_by_alias("nobody.knows", "champion") is None

    def test_what_does_not_exist_is_an_error(self, registry: ModelRegistry) -> None:
        registry.register(self.NAME, registry.log_model(small_run()), tags={})
        with pytest.raises(RegistryError, match="9"):
            registry.version(self.NAME, "9")
        with pytest.raises(RegistryError, match="9"):
            registry.set_alias(self.NAME, "champion", "9")
        with pytest.raises(RegistryError, match=r"models:/m-0123"):
            registry.load("models:/m-0123")
        with pytest.raises(RegistryError, match="9"):
            registry.load(f"models:/{self.NAME}/9")
        with pytest.raises(RegistryError, match="9"):
            registry.set_version_tags(self.NAME, "9", {"approval": "given"})
        with pytest.raises(RegistryError, match=r"models:/m-0123"):
            registry.digest("models:/m-0123")
        with pytest.raises(RegistryError, match=r"models:/m-0123"):
            registry.example("models:/m-0123")
