"""Imports once what most steps use, so that every step forked afterwards has it already."""

import great_expectations  # noqa: F401, TID253 - preloading is this module's purpose
import hamilton.driver  # noqa: F401, TID253
import matplotlib.figure  # noqa: F401, TID253
import mlflow.sklearn  # noqa: F401, TID253
import sklearn.compose  # noqa: TID253
import sklearn.ensemble  # noqa: TID253
import sklearn.impute  # noqa: TID253
import sklearn.linear_model  # noqa: TID253
import sklearn.metrics  # noqa: TID253
import sklearn.pipeline  # noqa: TID253
import sklearn.preprocessing  # noqa: F401, TID253
import skops.io  # noqa: F401, TID253
