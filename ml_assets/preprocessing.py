"""Turns columns into the numbers that estimators take; fitted and stored together with the estimator."""

from typing import TYPE_CHECKING, Any

from ml_assets.spec import PreprocessingSpec

if TYPE_CHECKING:
    import pandas as pd

TRUSTED_TYPES = ("numpy.dtype",)
"""Types that the preprocessing here puts into a model beside scikit-learn's own; loading them runs no code."""

UNSEEN_CODE, MISSING_CODE = -1, -2


def encoder(preprocessing: PreprocessingSpec, X: "pd.DataFrame", *, seed: int) -> Any:
    """Return an unfitted `sklearn.compose.ColumnTransformer` for the columns of X.

    A numeric column without a single value in X is left out: nothing can be learnt from it, and histogram
    boosting fails on it. That happens while history is short, as in the first year of a lag of a year.
    """
    from sklearn.compose import ColumnTransformer

    numeric = [c for c in X.columns if _is_numeric(X[c])]
    categorical = [c for c in X.columns if c not in set(numeric)]
    known = [c for c in numeric if X[c].notna().any()]
    parts = [
        ("numeric", _numeric(preprocessing), known),
        ("categorical", _categorical(preprocessing, seed), categorical),
    ]
    return ColumnTransformer([p for p in parts if p[2]], verbose_feature_names_out=False)


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
    from sklearn.model_selection import KFold
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

    if preprocessing.categorical == "one_hot":
        return OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            min_frequency=preprocessing.min_frequency,
            sparse_output=False,
        )
    if preprocessing.categorical == "target":
        folds = KFold(n_splits=5, shuffle=True, random_state=seed)
        return TargetEncoder(cv=folds)  # pyright: ignore[reportArgumentType] - scikit-learn's own hint is wrong
    return OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=UNSEEN_CODE, encoded_missing_value=MISSING_CODE
    )
