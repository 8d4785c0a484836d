"""Training in rounds: interrupted anywhere and resumed it is the same model, and where it says so that of one fit."""

import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.errors import TrainingError, TrainingPruned
from ml_assets.interfaces import Checkpoint
from ml_assets.spec import ComputeSpec, PreprocessingSpec, VariantSpec
from ml_assets.stages.models import prediction_digest
from ml_assets.testing.checkpoints import FakeCheckpoints
from ml_assets.trainers.kinds import KINDS, find_kind
from ml_assets.trainers.rounds import boundaries, train_in_rounds
from ml_assets.training import Fitted, fit, predict, train

KEY = "shop/returns/models/it/2024-02/aa"
FILLED = PreprocessingSpec(missing="median", numeric="standardize", categorical="target")
ENSEMBLE, LINEAR, NETWORK = "sklearn.ensemble.", "sklearn.linear_model.", "sklearn.neural_network."
SAMPLED = {"subsample": 0.6, "colsample_bytree": 0.7}

EXACT: Mapping[str, tuple[str, dict[str, Any]]] = {
    "histogram": (f"{ENSEMBLE}HistGradientBoostingClassifier", {"max_iter": 23, "early_stopping": False}),
    "histogram-columns": (f"{ENSEMBLE}HistGradientBoostingClassifier", {"max_iter": 12, "max_features": 0.5}),
    "histogram-stops": (
        f"{ENSEMBLE}HistGradientBoostingClassifier",
        {"max_iter": 80, "early_stopping": True, "n_iter_no_change": 3, "learning_rate": 0.5},
    ),
    "histogram-stops-on-training-loss": (
        f"{ENSEMBLE}HistGradientBoostingRegressor",
        {"max_iter": 40, "early_stopping": True, "validation_fraction": None, "n_iter_no_change": 2, "tol": 0.02},
    ),
    "histogram-balanced": (f"{ENSEMBLE}HistGradientBoostingClassifier", {"max_iter": 9, "class_weight": "balanced"}),
    "histogram-regressor": (f"{ENSEMBLE}HistGradientBoostingRegressor", {"max_iter": 12}),
    "gradient": (f"{ENSEMBLE}GradientBoostingClassifier", {"n_estimators": 12}),
    "gradient-sampled": (
        f"{ENSEMBLE}GradientBoostingRegressor",
        {"n_estimators": 12, "subsample": 0.5, "max_features": 0.5},
    ),
    "forest": (f"{ENSEMBLE}RandomForestClassifier", {"n_estimators": 12, "class_weight": "balanced"}),
    "forest-out-of-bag": (f"{ENSEMBLE}RandomForestRegressor", {"n_estimators": 40, "oob_score": True}),
    "extra-trees": (f"{ENSEMBLE}ExtraTreesClassifier", {"n_estimators": 12}),
    "extra-trees-regressor": (f"{ENSEMBLE}ExtraTreesRegressor", {"n_estimators": 12}),
    "lightgbm": ("lightgbm.LGBMClassifier", {"n_estimators": 23}),
    "lightgbm-regressor": ("lightgbm.LGBMRegressor", {"n_estimators": 12, "class_weight": None, "subsample": 0.5}),
    "lightgbm-nothing-left-to-split": ("lightgbm.LGBMClassifier", {"n_estimators": 30, "min_split_gain": 15.0}),
    "xgboost": ("xgboost.XGBClassifier", {"n_estimators": 23}),
    "xgboost-regressor": ("xgboost.XGBRegressor", {"n_estimators": 12, "subsample": 1.0, "max_depth": 3}),
}
OTHER: Mapping[str, tuple[str, dict[str, Any]]] = {
    "lightgbm-sampled": ("lightgbm.LGBMClassifier", {"n_estimators": 23, "subsample_freq": 1, **SAMPLED}),
    "lightgbm-goss": ("lightgbm.LGBMRegressor", {"n_estimators": 12, "data_sample_strategy": "goss"}),
    "xgboost-sampled": ("xgboost.XGBClassifier", {"n_estimators": 23, **SAMPLED}),
    "network": (f"{NETWORK}MLPClassifier", {"max_iter": 12, "hidden_layer_sizes": [6]}),
    "network-adaptive": (
        f"{NETWORK}MLPRegressor",
        {"max_iter": 12, "hidden_layer_sizes": [6], "solver": "sgd", "learning_rate": "adaptive"},
    ),
    "network-converges": (f"{NETWORK}MLPClassifier", {"max_iter": 60, "tol": 0.05, "n_iter_no_change": 3}),
    "sgd": (f"{LINEAR}SGDClassifier", {"max_iter": 12, "tol": None, "loss": "log_loss"}),
    "sgd-average": (f"{LINEAR}SGDRegressor", {"max_iter": 12, "tol": None, "average": True}),
}
ALL = {**EXACT, **OTHER}


def variant(case: str, *, checkpoint: bool = True) -> VariantSpec:
    estimator, params = ALL[case]
    return VariantSpec(
        estimator=estimator, params=params, preprocessing=FILLED, compute=ComputeSpec(checkpoint=checkpoint)
    )


@cache
def data(n: int = 400) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "amount": np.where(rng.uniform(size=n) < 0.1, np.nan, rng.normal(size=n)),
            "count": rng.integers(0, 5, n),
            "country": pd.Series(rng.choice(["DE", "FR", "IT"], n), dtype="str"),
        }
    )
    return frame, (frame["count"] + rng.normal(size=n) > 2.5).astype(float).to_numpy()


def scores(fitted: Fitted, case: str) -> str:
    task = "regression" if "Regressor" in ALL[case][0] else "binary"
    return prediction_digest(predict(fitted.model, data()[0], task=task))


def trained(case: str, checkpoint: Checkpoint | None = None, *, checkpointed: bool = True, **given: Any) -> Fitted:
    X, y = data()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Maximum (number of iteration|iterations) ")
        return train(variant(case, checkpoint=checkpointed), X, y, seed=3, checkpoint=checkpoint, **given)


class Killed(Exception):  # noqa: N818 - stands for the end of a process
    pass


def killed_after(parts: int) -> Any:
    """Return a report in which the process ends: after the training of the part, before it is saved."""
    told: list[int] = []

    def report(step: int, model: Any) -> bool:
        told.append(step)
        assert hasattr(model, "predict")
        if len(told) == parts:
            raise Killed
        return False

    return report


@pytest.mark.parametrize("case", ALL)
def test_interrupted_after_every_part_and_resumed_it_is_the_same_model_bit_for_bit(case: str) -> None:
    whole = trained(case)
    store = FakeCheckpoints()
    resumed: list[object] = []
    for _ in range(11):
        # Each "process" trains two parts and is killed before the second is saved.
        try:
            done = trained(case, store.open(KEY), report=killed_after(2))
        except Killed:
            continue
        resumed.append(done.facts.get("resumed"))
        break
    last = trained(case, store.open(KEY))

    assert scores(last, case) == scores(whole, case)
    assert last.facts["rounds"] == whole.facts["rounds"]
    assert last.facts["resumed"] == f"resumed from round {store.saved[-1][1]}"
    assert not last.notes
    assert resumed
    assert str(last.model[-1].get_params()) == str(whole.model[-1].get_params())  # NaN is not NaN


@pytest.mark.parametrize("case", EXACT)
def test_in_rounds_it_is_the_same_model_as_by_one_call(case: str) -> None:
    once = trained(case, checkpointed=False)

    assert "rounds" not in once.facts
    assert scores(trained(case), case) == scores(once, case)
    assert trained(case, checkpointed=False, report=lambda *_: False).facts["rounds"] > 0


@pytest.mark.parametrize("case", OTHER)
def test_what_would_be_another_model_in_rounds_is_trained_so_only_when_it_is_declared(case: str) -> None:
    once = trained(case, checkpointed=False)
    watched = trained(case, checkpointed=False, report=lambda *_: pytest.fail("nothing is to be watched"))

    assert scores(watched, case) == scores(once, case)
    assert "rounds" not in watched.facts
    assert scores(trained(case), case) != scores(once, case)


@pytest.mark.parametrize("case", ["histogram-stops", "histogram-stops-on-training-loss", "network-converges"])
def test_it_stops_early_at_the_round_at_which_one_call_stops(case: str) -> None:
    fitted = trained(case)

    assert fitted.facts["rounds"] < max(int(v) for k, v in ALL[case][1].items() if k == "max_iter")
    if case in EXACT:
        assert fitted.facts["rounds"] == trained(case, checkpointed=False).model[-1].n_iter_


def test_every_part_is_reported_and_a_report_may_stop_the_training() -> None:
    told: list[int] = []

    def report(step: int, _: Any) -> bool:
        told.append(step)
        return step >= 10

    with pytest.raises(TrainingPruned, match="stopped after 10 rounds") as stopped:
        trained("histogram", report=report)

    assert stopped.value.step == 10
    assert told == [3, 5, 7, 10]
    assert boundaries(23) == [3, 5, 7, 10, 12, 14, 17, 19, 21, 23]


class Clocked:
    """Trains a round in so many seconds."""

    exact = True

    def __init__(self, total: int, seconds: float) -> None:
        self.total, self.seconds, self.now, self.stops = total, seconds, 0.0, list[int]()

    def advance(self, estimator: Any, X: Any, y: Any, start: int, stop: int) -> tuple[Any, bool]:
        del estimator, X, y
        self.stops.append(stop)
        self.now += (stop - start) * self.seconds
        return stop, False

    def finish(self, estimator: Any) -> Any:
        return estimator

    def rounds_of(self, estimator: Any) -> int:
        return estimator


@pytest.mark.parametrize(
    ("seconds", "exact", "stops"),
    [
        (0.001, True, [25, 250]),
        (1.0, True, [25, 55, 85, 115, 145, 175, 205, 235, 250]),
        (60.0, True, list(range(25, 251, 25))),
        (0.001, False, list(range(25, 251, 25))),
    ],
    ids=["quick", "half-an-hour", "hours", "quick-but-random"],
)
def test_a_quick_training_is_cut_into_few_parts_where_that_makes_no_other_model(
    seconds: float, exact: bool, stops: list[int]
) -> None:
    nothing = np.empty((0, 0))
    trainer = Clocked(250, seconds)
    trainer.exact = exact
    train_in_rounds(trainer, nothing, nothing, clock=lambda: trainer.now)
    assert trainer.stops == stops

    watched = Clocked(250, seconds)
    train_in_rounds(watched, nothing, nothing, watch=lambda *_: False, clock=lambda: watched.now)
    assert watched.stops == list(range(25, 251, 25))


def test_a_finished_training_cannot_be_stopped() -> None:
    assert trained("histogram", report=lambda step, _: step == 23).facts["rounds"] == 23


def test_a_part_that_was_not_saved_is_reported_again_when_it_is_resumed() -> None:
    store, told = FakeCheckpoints(), []

    with pytest.raises(Killed):
        trained("forest", store.open(KEY), report=killed_after(3))
    trained("forest", store.open(KEY), report=lambda step, _: bool(told.append(step)))

    assert told == [4, 5, 6, 8, 9, 10, 11, 12]
    assert store.saved[:3] == [(KEY, 2), (KEY, 3), (KEY, 4)]


@pytest.mark.parametrize("parts", [1, 4])
def test_a_damaged_state_is_told_and_the_one_before_or_none_is_used(parts: int) -> None:
    store = FakeCheckpoints()
    with pytest.raises(Killed):
        trained("histogram", store.open(KEY), report=killed_after(parts + 1))
    newest = max(store.content[KEY])
    store.content[KEY][newest] = store.content[KEY][newest][:-1] + b"?"

    fitted = trained("histogram", store.open(KEY))

    assert scores(fitted, "histogram") == scores(trained("histogram"), "histogram")
    assert fitted.facts.get("resumed") == ("resumed from round 7" if parts == 4 else None)
    assert "damaged" in fitted.notes[0]


def test_a_state_that_holds_what_was_not_declared_is_not_loaded() -> None:
    import skops.io
    from sklearn.pipeline import Pipeline

    store = FakeCheckpoints()
    hostile = skops.io.dumps(Pipeline([("it", pd.Series([1.0]))]))
    store.open(KEY).save(5, {"estimator.skops": hostile, "progress.json": b'{"finished": true}'})

    fitted = trained("histogram", store.open(KEY))

    assert "began anew" in fitted.notes[0]
    assert scores(fitted, "histogram") == scores(trained("histogram"), "histogram")


def test_a_training_that_cannot_be_saved_goes_on_and_says_so() -> None:
    fitted = trained("forest", FakeCheckpoints(max_bytes=1000).open(KEY))

    assert fitted.facts["rounds"] == 12
    assert "could not be saved on its way" in fitted.notes[0]
    assert "at most 1,000 are stored" in fitted.notes[0]
    assert len(fitted.notes) == 1


def test_nothing_is_saved_without_rounds_and_light_models_pay_nothing() -> None:
    store = FakeCheckpoints()
    trained("forest", store.open(KEY), checkpointed=False)

    assert not store.saved


@pytest.mark.parametrize(
    ("estimator", "params", "why"),
    [
        (f"{LINEAR}LogisticRegression", {}, "it has no rounds that are known here"),
        (f"{LINEAR}SGDClassifier", {}, "set tol: null and max_iter"),
        (f"{LINEAR}SGDClassifier", {"tol": None, "early_stopping": True}, "set early_stopping: false"),
        (f"{LINEAR}SGDClassifier", {"tol": None, "class_weight": "balanced"}, "write them out"),
        (f"{NETWORK}MLPClassifier", {"solver": "lbfgs"}, "use adam or sgd"),
        (f"{NETWORK}MLPClassifier", {"early_stopping": True}, "set early_stopping: false"),
        (f"{ENSEMBLE}HistGradientBoostingClassifier", {"scoring": "roc_auc"}, "leave scoring at loss"),
        (f"{ENSEMBLE}GradientBoostingClassifier", {"n_iter_no_change": 3}, "leave n_iter_no_change out"),
        ("lightgbm.LGBMClassifier", {"boosting_type": "dart"}, "only boosting_type: gbdt"),
        ("lightgbm.LGBMClassifier", {"num_iterations": 5}, "not by num_iterations"),
        ("lightgbm.LGBMClassifier", {"early_stopping_round": 5}, "leave early_stopping_round out"),
        ("xgboost.XGBClassifier", {"booster": "gblinear"}, "only booster: gbtree"),
        ("xgboost.XGBClassifier", {"early_stopping_rounds": 5}, "leave early_stopping_rounds out"),
        ("xgboost.XGBRFClassifier", {}, "it has no rounds that are known here"),
    ],
)
def test_what_cannot_be_trained_in_rounds_is_refused_with_what_to_do(
    estimator: str, params: dict[str, Any], why: str
) -> None:
    X, y = data()
    wanted = VariantSpec(estimator=estimator, params=params, preprocessing=FILLED, compute=ComputeSpec(checkpoint=True))

    with pytest.raises(TrainingError, match=f"compute.checkpoint: {estimator} cannot be trained in rounds: .*{why}"):
        fit(wanted, X, y, seed=0)


def test_the_defaults_of_the_table_are_the_libraries_own() -> None:
    import importlib

    for name, kind in KINDS.items():
        module = {"LGBM": "lightgbm", "XGB": "xgboost"}.get(name.rstrip("CRaeglsifor"), "")
        places = [module] if module else ["sklearn.ensemble", "sklearn.neural_network", "sklearn.linear_model"]
        cls = next(c for p in places if (c := getattr(importlib.import_module(p), name, None)) is not None)
        params = cls().get_params()
        assert kind.rounds in params, name
        assert params[kind.rounds] in (None, kind.default), name  # XGBoost says None for its 100
        assert find_kind(c.__name__ for c in cls.__mro__) is kind
