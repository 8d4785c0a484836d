import math
import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics as sk  # noqa: TID253 - the reference
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.errors import EvaluationError
from ml_assets.metric_values import Ranking, compute
from ml_assets.metrics import METRICS, metric_for

RNG = np.random.default_rng(7)
N = 400
WEIGHT = RNG.integers(0, 4, N).astype(float)
BINARY = RNG.integers(0, 2, N)
# One decimal place: many ties, and ties between the classes.
PROBABILITY = np.round(np.clip(0.35 * BINARY + 0.65 * RNG.random(N), 0, 1), 1)
CLASSES = ("blue", "green", "red")
LABEL = np.array(CLASSES)[RNG.integers(0, 3, N)]
CLASS_PROBABILITY = RNG.dirichlet([1.0, 1.0, 1.0], N)
TARGET = RNG.poisson(6.0, N).astype(float)
PREDICTION = np.maximum(TARGET + RNG.normal(0.5, 2.0, N), 0.1)

BINARY_REFERENCE = {
    "roc_auc": lambda y, s, w: sk.roc_auc_score(y, s, sample_weight=w),
    "average_precision": lambda y, s, w: sk.average_precision_score(y, s, sample_weight=w),
    "log_loss": lambda y, s, w: sk.log_loss(y, s, sample_weight=w),
    "brier_score": lambda y, s, w: sk.brier_score_loss(y, s, sample_weight=w),
    "accuracy": lambda y, s, w: sk.accuracy_score(y, s >= 0.5, sample_weight=w),
    "balanced_accuracy": lambda y, s, w: sk.balanced_accuracy_score(y, s >= 0.5, sample_weight=w),
    "f1": lambda y, s, w: sk.f1_score(y, s >= 0.5, sample_weight=w),
}
MULTICLASS_REFERENCE = {
    "log_loss": lambda y, s, w: sk.log_loss(y, s, sample_weight=w, labels=CLASSES),
    "accuracy": lambda y, s, w: sk.accuracy_score(y, np.array(CLASSES)[s.argmax(1)], sample_weight=w),
    "balanced_accuracy": lambda y, s, w: sk.balanced_accuracy_score(y, np.array(CLASSES)[s.argmax(1)], sample_weight=w),
    "f1_macro": lambda y, s, w: sk.f1_score(y, np.array(CLASSES)[s.argmax(1)], sample_weight=w, average="macro"),
    "roc_auc_ovr": lambda y, s, w: sk.roc_auc_score(y, s, sample_weight=w, multi_class="ovr", labels=CLASSES),
}
REGRESSION_REFERENCE = {
    "wape": lambda y, s, w: float(np.sum(w * np.abs(y - s)) / np.sum(w * np.abs(y))),
    "mae": lambda y, s, w: sk.mean_absolute_error(y, s, sample_weight=w),
    "rmse": lambda y, s, w: sk.root_mean_squared_error(y, s, sample_weight=w),
    "r2": lambda y, s, w: sk.r2_score(y, s, sample_weight=w),
    "mean_poisson_deviance": lambda y, s, w: sk.mean_poisson_deviance(y, s, sample_weight=w),
    "bias": lambda y, s, w: float(np.average(s - y, weights=w)),
}


def test_every_metric_has_a_reference():
    assert {n for n, m in METRICS.items() if "binary" in m.tasks} == BINARY_REFERENCE.keys()
    assert {n for n, m in METRICS.items() if "multiclass" in m.tasks} == MULTICLASS_REFERENCE.keys()
    assert {n for n, m in METRICS.items() if "regression" in m.tasks} == REGRESSION_REFERENCE.keys()


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
class TestAgainstScikitLearn:
    @pytest.mark.parametrize("name", BINARY_REFERENCE)
    def test_binary(self, name, weight):
        expected = BINARY_REFERENCE[name](BINARY, PROBABILITY, np.ones(N) if weight is None else weight)
        assert compute(name, BINARY, PROBABILITY, weight) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("name", MULTICLASS_REFERENCE)
    def test_multiclass(self, name, weight):
        expected = MULTICLASS_REFERENCE[name](LABEL, CLASS_PROBABILITY, np.ones(N) if weight is None else weight)
        found = compute(name, LABEL, CLASS_PROBABILITY, weight, classes=CLASSES)
        assert found == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("name", REGRESSION_REFERENCE)
    def test_regression(self, name, weight):
        expected = REGRESSION_REFERENCE[name](TARGET, PREDICTION, np.ones(N) if weight is None else weight)
        assert compute(name, TARGET, PREDICTION, weight) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_r2_keeps_its_digits_far_from_zero(offset):
    expected = sk.r2_score(TARGET + offset, PREDICTION + offset)
    assert compute("r2", TARGET + offset, PREDICTION + offset) == pytest.approx(expected, rel=1e-9)


def test_log_loss_of_a_certain_mistake_is_finite():
    assert compute("log_loss", [0, 1], [1.0, 1.0]) == pytest.approx(sk.log_loss([0, 1], [1.0, 1.0]))


scores = st.lists(st.tuples(st.integers(0, 1), st.integers(-50, 50)), min_size=2, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@given(scores)
@settings(deadline=None)
def test_auc_and_average_precision_see_only_the_order(rows):
    y, raw = np.array(rows, dtype=float).T
    one, other = Ranking(y, raw), Ranking(y, np.exp(raw / 20.0) + 3.0)
    assert one.roc_auc() == other.roc_auc()
    assert one.average_precision() == other.average_precision()


@given(scores)
@settings(deadline=None)
def test_auc_of_swapped_classes_and_reversed_scores_is_the_same(rows):
    y, raw = np.array(rows, dtype=float).T
    assert Ranking(1 - y, -raw).roc_auc() == pytest.approx(Ranking(y, raw).roc_auc(), abs=1e-14)


@given(scores, st.randoms())
@settings(deadline=None)
def test_an_integer_weight_is_a_repeated_row(rows, random):
    y, raw = np.array(rows, dtype=float).T
    p = (raw + 50.0) / 100.0
    weight = np.array([random.randint(1, 3) for _ in rows])
    repeated = np.repeat(np.arange(y.size), weight)
    for name in ("roc_auc", "average_precision", "log_loss", "brier_score", "balanced_accuracy", "f1"):
        expected = compute(name, y[repeated], p[repeated])
        assert compute(name, y, p, weight) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "balanced_accuracy"])
def test_one_class_has_no_value(name):
    with pytest.raises(EvaluationError, match=rf"{name} is not defined on these 3 rows: .*too few classes \(1 "):
        compute(name, [1, 1, 1], [0.2, 0.5, 0.9])


def test_f1_without_positives_has_no_value():
    with pytest.raises(EvaluationError, match="f1 is not defined"):
        compute("f1", [0, 0], [0.2, 0.9])


def test_a_class_without_weight_does_not_count():
    with pytest.raises(EvaluationError, match="roc_auc is not defined on these 1 rows"):
        compute("roc_auc", [0, 1], [0.1, 0.9], sample_weight=[0, 1])


def test_auc_over_classes_needs_them_all():
    with pytest.raises(EvaluationError, match=r"roc_auc_ovr is not defined.*2 present"):
        compute("roc_auc_ovr", ["red", "blue"], CLASS_PROBABILITY[:2], classes=CLASSES)


def test_zero_denominators_have_no_value():
    with pytest.raises(EvaluationError, match=r"wape is not defined.*sum to zero.*choose mae or rmse"):
        compute("wape", [0.0, 0.0], [1.0, 2.0])
    with pytest.raises(EvaluationError, match=r"r2 is not defined.*does not vary"):
        compute("r2", [0.1, 0.1, 0.1], [1.0, 2.0, 3.0])


def test_poisson_deviance_refuses_predictions_of_zero():
    with pytest.raises(EvaluationError, match=r"predictions > 0; found .* prediction of 0\. Clip"):
        compute("mean_poisson_deviance", [1.0, 2.0], [0.0, 2.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("roc_auc", [], []), "there are no rows to evaluate"),
        (("roc_auc", [0, 1, 1], [0.1, 0.2]), r"y_true has shape \(3,\), but y_score has 2 rows"),
        (("roc_auc", [0, 1], [0.1, math.nan]), "y_score holds 1 missing or infinite values in 2"),
        (("roc_auc", [0, math.nan], [0.1, 0.2]), "y_true holds 1 missing or infinite"),
        (("roc_auc", [0, 2], [0.1, 0.2]), "values other than 0 and 1"),
        (("roc_auc", [0, 1], [-0.7, 3.2]), "reaches from -0.7 to 3.2.*predict_proba"),
        (("roc_auc", ["a", "b"], [0.1, 0.2]), "y_true cannot be read as numbers"),
        (("rocauc", [0, 1], [0.1, 0.2]), "there is no metric 'rocauc' for binary.*Did you mean 'roc_auc'"),
        (
            ("f1_macro", [0, 1], [0.1, 0.2]),
            "there is no metric 'f1_macro' for binary; expected one of accuracy",
        ),
        (("mae", [1, 2], [[0.5, 0.5], [0.5, 0.5]]), r"has shape \(2, 2\); expected \(2,\)"),
        (("accuracy", [0, 1], [0.1, 0.2], [-1, 1]), "sample_weight .* none negative"),
        (("accuracy", ["a"], [[0.5, 0.5]]), "need `classes`"),
        (("accuracy", ["c"], [[0.5, 0.5]], None, ["a", "b"]), "holds the classes c that are not among"),
        (("accuracy", ["a"], [[0.5, 0.4]], None, ["a", "b"]), "do not sum to 1"),
        (("accuracy", ["a"], [[0.5, 0.3, 0.2]], None, ["a", "b"]), r"shape \(1, 3\); expected \(1, 2\)"),
    ],
)
def test_wrong_arguments_are_told(arguments, message):
    with pytest.raises(EvaluationError, match=message):
        compute(*arguments)


def test_improvement_is_positive_when_the_candidate_is_better():
    half, third = np.array([0.5]), np.array([0.3])
    assert METRICS["roc_auc"].improvement(half, third)[0] > 0
    assert METRICS["log_loss"].improvement(third, half)[0] > 0
    assert METRICS["bias"].improvement(np.array([-0.1]), third)[0] == pytest.approx(0.2)


def test_metric_for_returns_the_table_entry():
    assert metric_for("wape", "regression") is METRICS["wape"]
    assert METRICS["accuracy"].needs == "label"
    assert METRICS["rmse"].unit == "target"


def test_the_table_loads_without_scikit_learn_and_pandas():
    code = "import sys, ml_assets.metrics; print({'sklearn', 'scipy', 'pandas'} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
