"""Which estimators can be trained in rounds, by class name and parameters alone: nothing is imported."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Family = Literal["warm_start", "epochs", "lightgbm", "xgboost"]
Params = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a class of estimators is trained in rounds.

    Attributes:
        family: Which trainer does it.
        rounds: Parameter that counts the rounds (trees, iterations or epochs).
        default: Its value when it is not set.
        obstacle: Returns why certain parameters rule it out, in words; empty when they do not.
        decided_by: The parameters that `obstacle` looks at.
        exact: Whether with these parameters training in rounds gives bit for bit what one `fit` call gives.
    """

    family: Family
    rounds: str
    default: int
    obstacle: Callable[[Params], str] = lambda _: ""
    decided_by: frozenset[str] = frozenset()
    exact: Callable[[Params], bool] = lambda _: True

    def total(self, params: Params) -> int:
        """Return how many rounds the parameters ask for."""
        value = params.get(self.rounds)
        return self.default if value is None else int(value)


def find_kind(class_names: Iterable[str]) -> Kind | None:
    """Return how a class is trained in rounds, given its name and those of its bases, nearest first."""
    name = next((name for name in class_names if name in KINDS or name in _ONE_ROUND), "")
    return KINDS.get(name)


def _histogram_obstacle(params: Params) -> str:
    # A scorer is a function, which cannot be stored without pickle; the loss needs none.
    if params.get("early_stopping", "auto") is not False and params.get("scoring", "loss") != "loss":
        return "it stops early by a scorer; leave scoring at loss, or set early_stopping: false"
    return ""


def _gradient_obstacle(params: Params) -> str:
    if params.get("n_iter_no_change") is not None:
        return "it forgets between rounds when it last improved; leave n_iter_no_change out"
    return ""


def _perceptron_obstacle(params: Params) -> str:
    if params.get("solver", "adam") == "lbfgs":
        return "the solver lbfgs has no epochs; use adam or sgd"
    return "partial_fit cannot stop early on held-out rows; set early_stopping: false" if _stops(params) else ""


def _sgd_obstacle(params: Params) -> str:
    if params.get("tol", 1e-3) is not None:
        return "partial_fit does not tell the loss by which it stops; set tol: null and max_iter to the epochs you want"
    if params.get("class_weight") == "balanced":
        return "partial_fit takes no balanced class weights; write them out as class_weight: {0: …, 1: …}"
    return "partial_fit cannot stop early on held-out rows; set early_stopping: false" if _stops(params) else ""


def _stops(params: Params) -> bool:
    return bool(params.get("early_stopping", False))


def _lightgbm_obstacle(params: Params) -> str:
    if params.get("boosting_type", "gbdt") != "gbdt" or {"boosting", "boost"} & params.keys():
        return "only boosting_type: gbdt goes on from earlier trees"
    if other := sorted(_LIGHTGBM_ROUNDS & params.keys()):
        return f"say the rounds by n_estimators, not by {other[0]}"
    return _stops_by_rounds(params, _LIGHTGBM_STOPS)


def _xgboost_obstacle(params: Params) -> str:
    if params.get("booster") not in {None, "gbtree"}:
        return "only booster: gbtree goes on from earlier trees"
    return _stops_by_rounds(params, ("early_stopping_rounds",))


def _stops_by_rounds(params: Params, names: Iterable[str]) -> str:
    found = next((name for name in names if params.get(name)), "")
    return f"it has no held-out rows to stop early by; leave {found} out" if found else ""


def _only(neutral: Mapping[str, Any]) -> Callable[[Params], bool]:
    """Return a rule: all parameters are known to draw nothing at random; None in `neutral` allows any value."""

    def rule(params: Params) -> bool:
        return all(
            value is None or (name in neutral and neutral[name] in (None, value)) for name, value in params.items()
        )

    return rule


_LIGHTGBM_ROUNDS = frozenset(
    {"num_iterations", "num_iteration", "n_iter", "num_tree", "num_trees", "num_round", "num_rounds", "nrounds"}
    | {"num_boost_round", "max_iter"}
)
_ANY_OF_BOTH = (
    *("n_estimators", "learning_rate", "max_depth", "max_bin", "min_child_weight", "reg_alpha", "reg_lambda"),
    *("random_state", "n_jobs", "importance_type", "scale_pos_weight", "objective", "monotone_constraints"),
)
_ANY_OF_LIGHTGBM = (
    *("num_leaves", "min_split_gain", "min_child_samples", "subsample_for_bin", "class_weight", "verbose"),
    *("verbosity", "device_type", "gpu_use_dp", "force_row_wise", "force_col_wise"),
)
_ANY_OF_XGBOOST = (
    *("max_leaves", "grow_policy", "gamma", "max_delta_step", "base_score", "missing", "tree_method", "verbosity"),
    *("device", "seed_per_iteration", "interaction_constraints", "validate_parameters"),
)
_LIGHTGBM_NEUTRAL: dict[str, Any] = {
    **dict.fromkeys((*_ANY_OF_BOTH, *_ANY_OF_LIGHTGBM)),
    "deterministic": True,
    "boosting_type": "gbdt",
    "colsample_bytree": 1.0,
    "subsample_freq": 0,
}
_XGBOOST_NEUTRAL: dict[str, Any] = {
    **dict.fromkeys((*_ANY_OF_BOTH, *_ANY_OF_XGBOOST)),
    **dict.fromkeys(("subsample", "colsample_bytree", "colsample_bylevel", "colsample_bynode"), 1.0),
    "enable_categorical": False,
    "booster": "gbtree",
}


def _lightgbm_exact(params: Params) -> bool:
    # Row sampling does nothing without a frequency.
    considered = {n: v for n, v in params.items() if n != "subsample" or params.get("subsample_freq", 0)}
    return _only(_LIGHTGBM_NEUTRAL)(considered)


def _never(_: Params) -> bool:
    return False


_LIGHTGBM_STOPS = ("early_stopping_round", "early_stopping_rounds", "early_stopping")
_DECIDES_LIGHTGBM = frozenset({"boosting_type", "boosting", "boost", *_LIGHTGBM_ROUNDS, *_LIGHTGBM_STOPS})

_HISTOGRAM = Kind(
    family="warm_start",
    rounds="max_iter",
    default=100,
    obstacle=_histogram_obstacle,
    decided_by=frozenset({"early_stopping", "scoring"}),
)
_GRADIENT = Kind(
    family="warm_start",
    rounds="n_estimators",
    default=100,
    obstacle=_gradient_obstacle,
    decided_by=frozenset({"n_iter_no_change"}),
)
_FOREST = Kind(family="warm_start", rounds="n_estimators", default=100)
_PERCEPTRON = Kind(
    family="epochs",
    rounds="max_iter",
    default=200,
    obstacle=_perceptron_obstacle,
    decided_by=frozenset({"solver", "early_stopping"}),
    exact=_never,
)
_SGD = Kind(
    family="epochs",
    rounds="max_iter",
    default=1000,
    obstacle=_sgd_obstacle,
    decided_by=frozenset({"tol", "class_weight", "early_stopping"}),
    exact=_never,
)
_LIGHTGBM = Kind(
    family="lightgbm",
    rounds="n_estimators",
    default=100,
    obstacle=_lightgbm_obstacle,
    decided_by=_DECIDES_LIGHTGBM,
    exact=_lightgbm_exact,
)
_XGBOOST = Kind(
    family="xgboost",
    rounds="n_estimators",
    default=100,
    obstacle=_xgboost_obstacle,
    decided_by=frozenset({"booster", "early_stopping_rounds"}),
    exact=_only(_XGBOOST_NEUTRAL),
)

KINDS: Mapping[str, Kind] = {
    "HistGradientBoostingClassifier": _HISTOGRAM,
    "HistGradientBoostingRegressor": _HISTOGRAM,
    "GradientBoostingClassifier": _GRADIENT,
    "GradientBoostingRegressor": _GRADIENT,
    "RandomForestClassifier": _FOREST,
    "RandomForestRegressor": _FOREST,
    "ExtraTreesClassifier": _FOREST,
    "ExtraTreesRegressor": _FOREST,
    "MLPClassifier": _PERCEPTRON,
    "MLPRegressor": _PERCEPTRON,
    "SGDClassifier": _SGD,
    "SGDRegressor": _SGD,
    "Perceptron": _SGD,
    "LGBMClassifier": _LIGHTGBM,
    "LGBMRegressor": _LIGHTGBM,
    "XGBClassifier": _XGBOOST,
    "XGBRegressor": _XGBOOST,
}
"""By class name; a subclass counts as its base."""

_ONE_ROUND = frozenset({"XGBRFClassifier", "XGBRFRegressor"})
"""XGBoost's random forests are subclasses of its boosting, and grow all their trees in one round."""
