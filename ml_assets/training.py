"""Fits one variant: preprocessing and estimator as one scikit-learn pipeline, seeded, and scores rows with it."""

import importlib
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.errors import MlAssetsError
from ml_assets.spec import PreprocessingSpec, TaskType, VariantSpec

if TYPE_CHECKING:
    import pandas as pd

TRUSTED_TYPES = ("numpy.dtype",)
"""Types that the preprocessing here puts into a model beside scikit-learn's own; loading them runs no code."""

UNSEEN_CODE, MISSING_CODE = -1, -2


class TrainingError(MlAssetsError):
    """An estimator cannot be made or fitted."""


def make_estimator(variant: VariantSpec, *, seed: int) -> Any:
    """Return an unfitted estimator with its declared parameters and, when it has one, the seed as random_state.

    Raises:
        TrainingError: If the class cannot be imported or refuses its parameters.
    """
    module, _, name = variant.estimator.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
        params = dict(variant.params)
        if "random_state" in inspect.signature(cls).parameters:
            params.setdefault("random_state", seed)
        return cls(**params)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise TrainingError(f"{variant.estimator} cannot be made: {type(error).__name__}: {error}") from error


def build_pipeline(variant: VariantSpec, X: "pd.DataFrame", *, seed: int) -> Any:
    """Return an unfitted `sklearn.pipeline.Pipeline` for the columns of X.

    A numeric column without a single value in X is left out: nothing can be learnt from it, and histogram
    boosting fails on it. That happens while history is short, as in the first year of a lag of a year.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    numeric = [c for c in X.columns if _is_numeric(X[c])]
    categorical = [c for c in X.columns if c not in set(numeric)]
    known = [c for c in numeric if X[c].notna().any()]
    parts = [
        ("numeric", _numeric(variant.preprocessing), known),
        ("categorical", _categorical(variant.preprocessing, seed), categorical),
    ]
    columns = ColumnTransformer([p for p in parts if p[2]], verbose_feature_names_out=False)
    return Pipeline([("columns", columns), ("estimator", make_estimator(variant, seed=seed))])


def fit(variant: VariantSpec, X: "pd.DataFrame", y: NDArray, *, seed: int) -> Any:
    """Fit a variant.

    Args:
        variant: What to fit.
        X: Feature columns, shape (n_rows, n_features); text columns are categorical.
        y: Labels without missing values, shape (n_rows,).
        seed: Seed for everything random in it.

    Returns:
        The fitted `sklearn.pipeline.Pipeline`.
    """
    return build_pipeline(variant, X, seed=seed).fit(prepare(X), y)


def predict(model: Any, X: "pd.DataFrame", *, task: TaskType) -> NDArray[np.float64]:
    """Score rows, each independently of the others.

    Returns:
        binary: probability of class 1, shape (n_rows,); multiclass: probabilities in the order of
        `model.classes_`, shape (n_rows, n_classes); regression: predictions, shape (n_rows,).

    Raises:
        TrainingError: If X lacks a column the model was fitted on.
    """
    columns = list(model.feature_names_in_)
    missing = [c for c in columns if c not in X]
    if missing:
        raise TrainingError(f"The rows lack the feature columns {missing}; the model was fitted on {columns}.")
    rows = prepare(X[columns])
    if task == "regression":
        return np.asarray(model.predict(rows), dtype=np.float64)
    scores = np.asarray(model.predict_proba(rows), dtype=np.float64)
    return np.ascontiguousarray(scores[:, 1]) if task == "binary" else scores


def trusted_types(variants: Iterable[VariantSpec]) -> list[str]:
    """Return every type that a stored model of these variants may hold."""
    return sorted({*TRUSTED_TYPES, *(t for v in variants for t in v.trusted_types)})


def prepare(X: "pd.DataFrame") -> "pd.DataFrame":
    """Return X with booleans and whole numbers as float64 and text as object with None for missing values.

    One set of dtypes whatever the partition holds: a model sees the same types when it is fitted and when it scores.
    """
    import pandas as pd

    def column(values: "pd.Series") -> "pd.Series":
        if _is_numeric(values):
            return values.astype("float64")
        text = values.astype(object)
        return text.where(values.notna(), None)

    return pd.DataFrame({c: column(X[c]) for c in X.columns}, index=X.index)


def _is_numeric(values: "pd.Series") -> bool:
    import pandas as pd

    return pd.api.types.is_numeric_dtype(values.dtype)


def _numeric(preprocessing: PreprocessingSpec) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    steps: list[tuple[str, Any]] = []
    if preprocessing.missing == "median":
        steps.append(("impute", SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)))
    if preprocessing.numeric == "standardize":
        steps.append(("standardize", StandardScaler()))
    return Pipeline(steps) if steps else "passthrough"


def _categorical(preprocessing: PreprocessingSpec, seed: int) -> Any:
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

    if preprocessing.categorical == "one_hot":
        return OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            min_frequency=preprocessing.min_frequency,
            sparse_output=False,
        )
    if preprocessing.categorical == "target":
        return TargetEncoder(random_state=seed)  # pyright: ignore[reportArgumentType] - scikit-learn's own hint is wrong
    return OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=UNSEEN_CODE, encoded_missing_value=MISSING_CODE
    )
