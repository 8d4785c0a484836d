"""Fitting and scoring: seeded, row-wise, and what was fitted is what scores."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.spec import PreprocessingSpec, VariantSpec
from ml_assets.stages.models import choose, prediction_digest, prior
from ml_assets.training import TrainingError, fit, make_estimator, predict, prepare

LOGISTIC = VariantSpec(
    estimator="sklearn.linear_model.LogisticRegression",
    preprocessing=PreprocessingSpec(numeric="standardize", missing="median", categorical="one_hot", min_frequency=2),
)
BOOSTING = VariantSpec(
    estimator="sklearn.ensemble.HistGradientBoostingClassifier", params={"max_iter": 10, "min_samples_leaf": 5}
)
FOREST = VariantSpec(
    estimator="sklearn.ensemble.RandomForestClassifier",
    params={"n_estimators": 5},
    preprocessing=PreprocessingSpec(missing="median"),
)


def data(n: int = 200) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "amount": np.where(rng.uniform(size=n) < 0.1, np.nan, rng.normal(size=n)),
            "count": rng.integers(0, 5, n),
            "country": pd.Series(rng.choice(["DE", "FR", "IT"], n), dtype="str").where(rng.uniform(size=n) > 0.05),
            "member": rng.uniform(size=n) < 0.5,
        }
    )
    y = (frame["count"] + frame["member"] + rng.normal(size=n) > 2.5).astype(float)
    return frame, y.to_numpy()


@pytest.mark.parametrize("variant", [LOGISTIC, BOOSTING, FOREST], ids=["logistic", "boosting", "forest"])
def test_the_same_seed_gives_the_same_model_bit_for_bit(variant: VariantSpec) -> None:
    X, y = data()

    first, second = (predict(fit(variant, X, y, seed=3), X, task="binary") for _ in range(2))

    assert prediction_digest(first) == prediction_digest(second)


@pytest.mark.parametrize("variant", [LOGISTIC, BOOSTING, FOREST], ids=["logistic", "boosting", "forest"])
@settings(max_examples=15, deadline=None)
@given(order=st.permutations(list(range(30))))
def test_a_rows_score_does_not_depend_on_the_others(variant: VariantSpec, order: list[int]) -> None:
    X, _ = data()
    model = _fitted(variant)
    scores = predict(model, X.head(30), task="binary")

    again = predict(model, X.head(30).iloc[order].assign(extra=1), task="binary")

    np.testing.assert_allclose(again, scores[order], rtol=0, atol=1e-12)


_MODELS: dict[str, object] = {}


def _fitted(variant: VariantSpec) -> object:
    if variant.estimator not in _MODELS:
        X, y = data()
        _MODELS[variant.estimator] = fit(variant, X, y, seed=3)
    return _MODELS[variant.estimator]


def test_unseen_and_missing_categories_score() -> None:
    X, y = data()
    model = fit(BOOSTING, X, y, seed=0)

    scores = predict(model, X.head(3).assign(country=["XX", None, "DE"]), task="binary")

    assert np.isfinite(scores).all()


@pytest.mark.parametrize("variant", [LOGISTIC, BOOSTING, FOREST], ids=["logistic", "boosting", "forest"])
def test_a_column_without_a_value_is_left_out_but_stays_part_of_the_input(variant: VariantSpec) -> None:
    X, y = data()

    model = fit(variant, X.assign(a_year_ago=np.nan), y, seed=3)

    assert "a_year_ago" in model.feature_names_in_
    np.testing.assert_array_equal(
        predict(model, X.assign(a_year_ago=1e6), task="binary"),
        predict(fit(variant, X, y, seed=3), X, task="binary"),
    )


def test_a_missing_column_is_an_error_not_a_zero() -> None:
    X, y = data()
    model = fit(BOOSTING, X, y, seed=0)

    with pytest.raises(TrainingError, match=r"lack the feature columns \['country'\]"):
        predict(model, X.drop(columns="country"), task="binary")


def test_prepare_gives_the_same_dtypes_whatever_is_missing() -> None:
    X, _ = data()

    kinds = {str(prepare(part).dtypes.to_dict()) for part in (X, X.head(1), X[X["country"].isna()], X.dropna())}

    assert len(kinds) == 1


def test_the_seed_reaches_an_estimator_that_takes_one_and_a_wrong_parameter_is_named() -> None:
    assert make_estimator(FOREST, seed=11).random_state == 11
    pinned = FOREST.model_copy(update={"params": {"random_state": 5}})
    assert make_estimator(pinned, seed=11).random_state == 5
    with pytest.raises(TrainingError, match="n_trees"):
        make_estimator(FOREST.model_copy(update={"params": {"n_trees": 5}}), seed=0)


def test_choose_takes_the_better_estimate_and_of_equals_the_first_declared() -> None:
    def estimates(**values: float) -> dict[str, dict[str, dict[str, float]]]:
        return {name: {"roc_auc": {"estimate": v}, "log_loss": {"estimate": v}} for name, v in values.items()}

    assert choose("roc_auc", estimates(a=0.6, b=0.7)) == "b"
    assert choose("log_loss", estimates(a=0.6, b=0.7)) == "a"
    assert choose("roc_auc", estimates(b=0.7, a=0.7)) == "b"


def test_prior() -> None:
    assert prior(np.array([0.0, 1.0, 1.0, 1.0]), "binary") == {"mean": 0.75}
    assert prior(np.array(["a", "b", "b", "b"], dtype=object), "multiclass") == {"a": 0.25, "b": 0.75}
