"""Imports once what most steps use, so that every step forked afterwards has it already."""

import great_expectations  # noqa: F401, TID253 - preloading is this module's purpose
import hamilton.driver  # noqa: F401, TID253
import matplotlib.backends.backend_agg  # noqa: TID253
import matplotlib.figure  # noqa: F401, TID253
import mlflow.pyfunc  # noqa: TID253
import mlflow.sklearn  # noqa: TID253
import mlflow.store.model_registry.sqlalchemy_store  # noqa: TID253 - a quarter of a second in each step that logs
import mlflow.store.model_registry.sqlalchemy_workspace_store  # noqa: TID253
import mlflow.store.tracking.sqlalchemy_store  # noqa: TID253
import mlflow.store.tracking.sqlalchemy_workspace_store  # noqa: F401, TID253
import pyarrow.dataset
import pyarrow.pandas_compat  # noqa: F401
import sklearn.compose  # noqa: TID253
import sklearn.ensemble  # noqa: TID253
import sklearn.impute  # noqa: TID253
import sklearn.linear_model  # noqa: TID253
import sklearn.metrics  # noqa: TID253
import sklearn.pipeline  # noqa: TID253
import sklearn.preprocessing  # noqa: F401, TID253
import skops.io  # noqa: F401, TID253
