"""Performance before labels: what it equals when labels are known, and when scores are calibrated."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.metric_values import compute
from ml_assets.metrics import METRICS
from ml_assets.quality.calibrator import class_chances, expected_error, extrapolated
from ml_assets.quality.estimate import estimate
from ml_assets.quality.expected_metrics import ExpectedMetrics
from ml_assets.quality.reference import bins_of, reference_part
from ml_assets.quality.settings import QualitySettings

BINARY = [name for name, metric in METRICS.items() if "binary" in metric.tasks]
MULTICLASS = [name for name, metric in METRICS.items() if "multiclass" in metric.tasks]
SETTINGS = QualitySettings(alpha=0.05, calibration_gap=0.05, relative_loss=0.1, margins={}, block_days=3, min_days=7)


def days(n_rows: int, n_days: int = 30) -> np.ndarray:
    return np.datetime64("2024-03-01") + np.arange(n_rows) % n_days


def calibrated(n_rows: int, seed: int, *, low: float = 0.02, high: float = 0.98) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and the chances that they were drawn with."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(low, high, n_rows)
    return (rng.random(n_rows) < score).astype(np.float64), score


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(BINARY))
def test_sure_chances_give_the_metric_itself(seed: int, metric: str) -> None:
    rng = np.random.default_rng(seed)
    y = np.r_[0.0, 1.0, rng.integers(0, 2, 30)]
    score, unit = rng.integers(1, 9, 32) / 10, np.arange(32) % 4
    weights = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 0.5, 1.0]])
    value, _ = ExpectedMetrics(score, unit, 4).values(metric, np.column_stack([1 - y, y]), weights)

    expected = [compute(metric, y, score, sample_weight=weight[unit]) for weight in weights]
    np.testing.assert_allclose(value, expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(MULTICLASS))
def test_sure_chances_of_many_classes_give_the_metric_itself(seed: int, metric: str) -> None:
    rng = np.random.default_rng(seed)
    y = np.r_[0, 1, 2, rng.integers(0, 3, 30)]
    score, unit = rng.dirichlet([1.0, 1.0, 1.0], 33), np.arange(33) % 3
    value, _ = ExpectedMetrics(score, unit, 3).values(metric, np.eye(3)[y], np.ones((1, 3)))

    np.testing.assert_allclose(value, [compute(metric, y, score, classes=[0, 1, 2])], atol=1e-12)


def test_the_best_constant_has_its_closed_forms() -> None:
    _, score = calibrated(400, 1)
    chances = np.column_stack([1 - score, score])
    expected, rate = ExpectedMetrics(score, np.zeros(400, dtype=np.int64), 1), float(score.mean())

    def constant(metric: str) -> float:
        return float(expected.values(metric, chances, np.ones((1, 1)))[1][0])

    assert constant("roc_auc") == 0.5
    assert constant("average_precision") == pytest.approx(rate)
    assert constant("brier_score") == pytest.approx(rate * (1 - rate))
    assert constant("log_loss") == pytest.approx(-rate * np.log(rate) - (1 - rate) * np.log(1 - rate))


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss", "brier_score", "accuracy", "average_precision"])
def test_the_expected_metric_is_the_mean_over_labels_drawn_by_the_chances(metric: str) -> None:
    _, score = calibrated(600, 2)
    rng = np.random.default_rng(3)
    drawn = [compute(metric, (rng.random(600) < score).astype(float), score) for _ in range(300)]
    value, _ = ExpectedMetrics(score, np.zeros(600, dtype=np.int64), 1).values(
        metric, np.column_stack([1 - score, score]), np.ones((1, 1))
    )

    assert value[0] == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 300**0.5)


def test_a_row_is_no_pair_with_itself() -> None:
    # Two rows, each 1 with chance 1/2: of unlike labels the higher score wins as often as it loses.
    score, chances = np.array([0.2, 0.8]), np.full((2, 2), 0.5)
    value, _ = ExpectedMetrics(score, np.zeros(2, dtype=np.int64), 1).values("roc_auc", chances, np.ones((1, 1)))

    assert value[0] == pytest.approx(0.5)


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss", "brier_score"])
def test_the_estimate_finds_what_labels_would_say_on_harder_rows(metric: str) -> None:
    y, score = calibrated(12_000, 4)
    reference = reference_part(task="binary", y=y, score=score, days=days(12_000), metrics=[metric])
    harder_y, harder = calibrated(12_000, 5, low=0.35, high=0.65)
    found = estimate(
        task="binary", score=harder, days=days(12_000), reference=reference, metrics=[metric], settings=SETTINGS
    )

    realised = compute(metric, harder_y, harder)
    value = found.gains[metric].value
    assert value.estimate == pytest.approx(realised, abs=0.02)
    assert abs(value.estimate - realised) < 4 * value.standard_error + 0.005
    assert [loss.metric for loss in found.lost] == [metric]  # the rows are harder, and that is sure


def test_the_estimate_is_calibrated_by_the_reference() -> None:
    y, chance = calibrated(12_000, 6)
    score = chance**2  # ranks alike, and says too little
    reference = reference_part(task="binary", y=y, score=score, days=days(12_000), metrics=["log_loss"])
    found = estimate(
        task="binary", score=score, days=days(12_000), reference=reference, metrics=["log_loss"], settings=SETTINGS
    )

    assert found.gains["log_loss"].value.estimate == pytest.approx(compute("log_loss", y, score), rel=0.02)
    assert not found.lost


def test_the_estimate_cannot_see_that_scores_mean_something_else() -> None:
    y, score = calibrated(6_000, 7)
    reference = reference_part(task="binary", y=y, score=score, days=days(6_000), metrics=["roc_auc"])
    found = estimate(
        task="binary", score=score, days=days(6_000), reference=reference, metrics=["roc_auc"], settings=SETTINGS
    )

    assert compute("roc_auc", 1 - y, score) < 0.5 < found.gains["roc_auc"].value.estimate
    assert not found.lost


def test_many_classes_are_estimated() -> None:
    rng = np.random.default_rng(8)
    score = rng.dirichlet([1.0, 1.0, 2.0], 9_000)
    y = (rng.random(9_000)[:, None] > score.cumsum(axis=1)).sum(axis=1)
    metrics = ["log_loss", "accuracy", "roc_auc_ovr"]
    part = reference_part(
        task="multiclass", y=y, score=score, days=days(9_000), metrics=metrics, classes=("a", "b", "c")
    )
    found = estimate(
        task="multiclass", score=score, days=days(9_000), reference=part, metrics=metrics, settings=SETTINGS
    )

    for metric in metrics:
        realised = compute(metric, y, score, classes=[0, 1, 2])
        assert found.gains[metric].value.estimate == pytest.approx(realised, abs=0.01)
    assert not found.lost


def regression(n_rows: int, seed: int, low: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and predictions whose errors grow with the prediction."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(low, 100, n_rows)
    return score + rng.normal(0, 1 + score / 5), score


def test_errors_of_a_regression_are_estimated_by_its_predictions() -> None:
    y, score = regression(9_000, 9)
    metrics = ["mae", "rmse", "wape", "r2"]
    part = reference_part(task="regression", y=y, score=score, days=days(9_000), metrics=metrics)
    larger_y, larger = regression(9_000, 10, low=70)
    found = estimate(
        task="regression", score=larger, days=days(9_000), reference=part, metrics=metrics, settings=SETTINGS
    )

    for metric in ("mae", "rmse", "wape"):
        assert found.gains[metric].value.estimate == pytest.approx(compute(metric, larger_y, larger), rel=0.04)
        assert found.gains[metric].gain is None
    assert {loss.metric for loss in found.lost} == {"mae", "rmse"}
    assert "r2 cannot be estimated before labels arrive; bias, mae, rmse, wape can" in found.untested["r2"]


def test_chances_rise_with_the_score_and_sum_to_one() -> None:
    y, score = calibrated(3_000, 11)
    bins = bins_of("binary", y, score, days(3_000))
    chances = class_chances(bins, np.linspace(-1, 2, 50), np.ones(30))

    assert (np.diff(chances[:, 1]) >= 0).all()
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    assert extrapolated(bins, np.array([0.5, 0.001, 0.999])) == pytest.approx(2 / 3)


def test_left_out_days_of_the_reference_move_the_calibrator() -> None:
    y, score = calibrated(3_000, 12)
    bins = bins_of("binary", y, score, days(3_000))
    without = np.ones(30)
    without[0] = 0.0

    assert not np.array_equal(class_chances(bins, score, np.ones(30)), class_chances(bins, score, without))
    kept = days(3_000) != np.datetime64("2024-03-01")
    assert bins[0].means("y", without) @ (without @ bins[0].counts) == pytest.approx(y[kept].sum())


def test_expected_errors_are_the_reference_means_at_the_bins() -> None:
    y, score = regression(2_000, 13)
    (bins,) = bins_of("regression", y, score, days(2_000))
    found = expected_error(bins, "absolute_error", bins.centres, np.ones(30))

    np.testing.assert_allclose(found, bins.means("absolute_error", np.ones(30)))


@pytest.mark.parametrize("n_days", [5, 400])
def test_few_and_many_days(n_days: int) -> None:
    y, score = calibrated(4_000, 14)
    part = reference_part(task="binary", y=y, score=score, days=days(4_000), metrics=["log_loss"])
    arguments: dict[str, Any] = {"task": "binary", "score": score, "reference": part, "metrics": ["log_loss"]}
    found = estimate(**arguments, days=days(4_000, n_days), settings=SETTINGS)

    if n_days == 5:
        assert "there are 5 days; an error needs at least 6" in found.untested["log_loss"]
    else:
        assert found.n_days == 400
        assert found.gains["log_loss"].value.n_days == 100  # blocks of four days
