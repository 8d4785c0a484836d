"""What LightGBM and XGBoost need beside scikit-learn's conventions: seeds, devices, types, how to install them."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ml_assets.errors import TrainingError

EXTRAS: Mapping[str, str] = {"lightgbm": "lightgbm", "xgboost": "xgboost", "torch": "torch"}
"""Importable module → the extra of ml-assets that installs it."""

STORED_TYPES: Mapping[str, tuple[str, ...]] = {
    "lightgbm": (
        "collections.OrderedDict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMRegressor",
    ),
    "xgboost": ("xgboost.core.Booster", "xgboost.sklearn.XGBClassifier", "xgboost.sklearn.XGBRegressor"),
}
"""Module → types that a fitted model of it holds. Their trees are stored in the library's own format, as data."""


def library(path: str) -> str:
    """Return the top module of a class's import path.

    >>> library("lightgbm.LGBMClassifier")
    'lightgbm'
    """
    return path.partition(".")[0]


def install_hint(module: str) -> str:
    """Return how to install a missing module; empty when no extra brings it.

    >>> install_hint("lightgbm.sklearn")
    "install it with `pip install 'ml-assets[lightgbm]'`"
    """
    extra = EXTRAS.get(library(module))
    return f"install it with `pip install 'ml-assets[{extra}]'`" if extra else ""


def library_params(path: str, declared: Mapping[str, Any], *, seed: int, device: str) -> dict[str, Any]:
    """Return the parameters of an estimator: those declared, and what LightGBM and XGBoost need beside them.

    The same data, parameters and seed give the same model whatever the number of threads; threads are as many as
    the step may use.

    Args:
        path: Import path of the class.
        declared: Parameters as the description has them; they win.
        seed: For everything random in it.
        device: "cpu" or "cuda".
    """
    return _needed(path, declared, seed=seed, device=device) | dict(declared)


def _needed(path: str, declared: Mapping[str, Any], *, seed: int, device: str) -> dict[str, Any]:
    if library(path) == "lightgbm":
        # Other values of n_jobs than 0 override the number of threads that the executor has set.
        params: dict[str, Any] = {"random_state": seed, "deterministic": True, "n_jobs": 0, "verbose": -1}
        if device == "cuda":
            return params | {"device_type": "gpu", "gpu_use_dp": True}
        return params if "force_col_wise" in declared else params | {"force_row_wise": True}
    if library(path) == "xgboost":
        # With seed_per_iteration a round's draws do not depend on what the process drew before.
        return {"random_state": seed, "seed_per_iteration": True, "verbosity": 0, "device": device}
    return {}


def device_used(path: str, device: str) -> str:
    """Return what an estimator computes on; scikit-learn's own never use a GPU."""
    return device if library(path) in STORED_TYPES else "cpu"


@contextmanager
def explained(path: str, device: str) -> Iterator[None]:
    """Turn what LightGBM or XGBoost refuses into a TrainingError that says what to do."""
    refusals: tuple[type[Exception], ...] = ()
    if library(path) == "lightgbm":
        from lightgbm.basic import LightGBMError

        refusals = (LightGBMError,)
    elif library(path) == "xgboost":
        from xgboost.core import XGBoostError

        refusals = (XGBoostError,)
    try:
        yield
    except refusals as error:
        first = str(error).partition("\n")[0]
        hint = f" {_NO_GPU}" if device == "cuda" else ""
        raise TrainingError(f"{path} cannot be fitted on {device}: {first}.{hint}") from error


def settle_device(path: str, estimator: Any, device: str) -> None:
    """Let an XGBoost model that was fitted on a GPU score on the processor, as it does wherever it is served.

    Raises:
        TrainingError: If XGBoost quietly fitted it on the processor though a GPU was asked for.
    """
    if library(path) != "xgboost" or device != "cuda":
        return
    used = json.loads(estimator.get_booster().save_config())["learner"]["generic_param"]["device"]
    if used.startswith("cpu") and estimator.get_params()["device"] != "cpu":
        raise TrainingError(f"{path} was to be fitted on a GPU, and XGBoost used the processor. {_NO_GPU}")
    estimator.set_params(device="cpu").get_booster().set_param({"device": "cpu"})


def check_torch(path: str, module: ModuleType, device: str) -> None:
    """Refuse a train function whose module imports PyTorch where PyTorch finds no GPU though the step has one.

    Raises:
        TrainingError: If so; PyTorch itself would only say that it was not compiled with CUDA.
    """
    if device != "cuda":
        return
    used = [value for value in vars(module).values() if isinstance(value, ModuleType)]
    torch: Any = sys.modules.get("torch")
    if any(library(value.__name__) == "torch" for value in used) and not torch.cuda.is_available():
        raise TrainingError(f"{path} was to train on a GPU, and PyTorch {torch.__version__} finds none. {_NO_GPU}")


_NO_GPU = (
    "Install a build of the library for GPUs and its driver in the step's image, or let the step run on the "
    "processor: leave compute.gpus out"
)
