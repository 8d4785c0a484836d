"""Calibration, losses and verdicts on rows whose truth is known."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ml_assets.quality.calibration import calibrate
from ml_assets.quality.day_error import DayEstimate
from ml_assets.quality.gain import Gain, gains
from ml_assets.quality.loss import losses, margin_of
from ml_assets.quality.plots import calibration_picture, performance_picture
from ml_assets.quality.reference import ReferencePart, reference_part
from ml_assets.quality.settings import QualitySettings, settings_of
from ml_assets.quality.verdict import Quality, assess
from ml_assets.testing.policy_source import effective_policy

SETTINGS = QualitySettings(alpha=0.05, calibration_gap=0.05, relative_loss=0.1, margins={}, block_days=3, min_days=7)
METRICS = ("roc_auc", "log_loss")


def month(
    seed: int, *, n_days: int = 30, per_day: int = 200, shift: float = 0.0, day_effect: float = 0.0, r: float = 0.0
) -> dict[str, Any]:
    """Return rows of a calibrated model whose chances are off by `shift`, and by an AR(1) effect of each day."""
    rng = np.random.default_rng(seed)
    effect = np.zeros(n_days)
    for day, noise in enumerate(rng.normal(0, day_effect, n_days)):
        effect[day] = r * effect[day - 1] + (1 - r**2) ** 0.5 * noise
    day = np.repeat(np.arange(n_days), per_day)
    score = rng.uniform(0.05, 0.5, day.size)
    y = (rng.random(day.size) < np.clip(score + shift + effect[day], 0, 1)).astype(np.float64)
    return {"task": "binary", "y": y, "score": score, "days": np.datetime64("2024-03-01") + day}


@pytest.fixture(scope="module")
def reference() -> ReferencePart:
    return reference_part(**month(0), metrics=METRICS)


def judged(reference: ReferencePart, rows: dict[str, Any], **changes: Any) -> Quality:
    known = changes.pop("known", np.ones(rows["score"].shape[0], dtype=np.bool_))
    arguments: dict[str, Any] = {"metrics": METRICS, "settings": SETTINGS, "reference": reference} | changes
    return assess(**rows | {"y": rows["y"][known]}, known=known, **arguments)


def estimated(value: float, error: float = 0.01) -> DayEstimate:
    return DayEstimate(estimate=value, standard_error=error, degrees=10.0, n_days=30)


def gain(metric: str, value: float, over_constant: float | None) -> Gain:
    known = None if over_constant is None else estimated(over_constant)
    return Gain(metric=metric, value=estimated(value), gain=known)


# --- calibration ----------------------------------------------------------------------------------


def test_days_that_resemble_each_other_are_no_miscalibration() -> None:
    """Autocorrelated day effects as of flights (r = 0.35, spread 0.12): a gap beyond 0.05 alone would often alarm."""
    alarms, beyond = 0, 0
    for seed in range(150):
        found = calibrate(**month(seed, per_day=60, day_effect=0.12, r=0.35), settings=SETTINGS)
        assert found is not None
        alarms += found.gaps[0].miscalibrated
        beyond += abs(found.gaps[0].gap.estimate) > 0.05

    assert alarms <= 0.08 * 150
    assert beyond > 2 * alarms


def test_a_shift_beyond_the_policy_is_miscalibration() -> None:
    found = calibrate(**month(1, shift=-0.09, day_effect=0.05), settings=SETTINGS)

    assert found is not None
    assert found.worst.miscalibrated
    lower, upper = found.worst.gap.interval(0.95)
    assert lower < -0.09 < upper < 0


def test_a_sure_gap_within_the_policy_is_none() -> None:
    found = calibrate(**month(2, shift=0.03, per_day=2_000), settings=SETTINGS)

    assert found is not None
    assert found.worst.p_value < 0.001
    assert not found.worst.miscalibrated


def test_the_bins_show_where_it_is() -> None:
    found = calibrate(**month(3), settings=SETTINGS)

    assert found is not None
    assert len(found.bins) == 10
    assert sum(b.n_rows for b in found.bins) == 6_000
    assert all(b.lower <= b.mean_true <= b.upper for b in found.bins)
    assert max(abs(b.mean_true - b.mean_predicted) for b in found.bins) < 0.08


def test_a_class_that_is_off_is_named_among_many() -> None:
    rng = np.random.default_rng(4)
    score = rng.dirichlet([2.0, 2.0, 2.0], 6_000)
    moved = np.column_stack([score[:, 0] * 0.6, score[:, 1] + score[:, 0] * 0.4, score[:, 2]])
    y = (rng.random(6_000)[:, None] > moved.cumsum(axis=1)).sum(axis=1)
    days = np.datetime64("2024-03-01") + np.arange(6_000) % 30
    found = calibrate(
        task="multiclass", y=y, score=score, days=days, settings=SETTINGS, classes=("kept", "sent", "lost")
    )

    assert found is not None
    assert [gap.label for gap in found.gaps if gap.miscalibrated] == ["kept", "sent"]
    assert all(gap.adjusted >= gap.p_value for gap in found.gaps)
    assert found.worst.label in {"kept", "sent"}


def test_the_gap_of_a_regression_is_a_share_of_the_targets() -> None:
    rng = np.random.default_rng(5)
    score = rng.uniform(50, 150, 3_000)
    days = np.datetime64("2024-03-01") + np.arange(3_000) % 30
    found = calibrate(task="regression", y=score * 1.1, score=score, days=days, settings=SETTINGS)

    assert found is not None
    assert found.worst.gap.estimate == pytest.approx(1 - 1 / 1.1)
    assert found.worst.miscalibrated
    nothing = np.zeros(3_000)
    assert calibrate(task="regression", y=nothing, score=score, days=days, settings=SETTINGS) is None


# --- losses ---------------------------------------------------------------------------------------


def test_a_margin_of_the_policy_takes_the_place_of_the_share() -> None:
    reference = gain("roc_auc", 0.7, 0.2)

    assert margin_of("roc_auc", reference, SETTINGS) == pytest.approx(0.02)
    assert margin_of("roc_auc", reference, replace(SETTINGS, margins={"roc_auc": 0.05})) == 0.05
    assert margin_of("roc_auc", gain("roc_auc", 0.49, -0.01), SETTINGS) is None


def test_losses_are_tested_beyond_the_margin_and_together() -> None:
    before = {"roc_auc": gain("roc_auc", 0.75, 0.25), "log_loss": gain("log_loss", 0.5, 0.08)}
    now = {"roc_auc": gain("roc_auc", 0.70, 0.20), "log_loss": gain("log_loss", 0.5, 0.08)}
    (auc, log_loss), untested = losses(before, now, SETTINGS)

    assert untested == {}
    assert auc.loss.estimate == pytest.approx(0.05)
    assert auc.loss.p_value() < 0.01 < auc.p_value  # a loss is sure; that it is more than the margin is less so
    assert auc.adjusted == pytest.approx(2 * auc.p_value)
    assert not log_loss.sure


def test_what_cannot_be_compared_says_why() -> None:
    before = {"roc_auc": gain("roc_auc", 0.5, 0.0), "bias": gain("bias", 0.1, -0.1)}
    now = {"roc_auc": gain("roc_auc", 0.4, -0.1), "bias": gain("bias", 3.0, -3.0), "f1": gain("f1", 0.3, 0.3)}
    found, untested = losses(before, now, SETTINGS)

    assert found == ()
    assert untested == {
        "roc_auc": "the champion gained nothing by it over the best constant when it was evaluated",
        "f1": "it was not measured when the champion was evaluated",
    }


def test_without_gains_values_are_compared_in_their_own_direction() -> None:
    before, now = gain("mae", 2.0, 0.5), gain("mae", 2.4, None)
    ((error,), _) = losses({"mae": before}, {"mae": now}, SETTINGS)
    better = losses({"r2": gain("r2", 0.6, None)}, {"r2": gain("r2", 0.7, None)}, replace(SETTINGS, margins={"r2": 0}))

    assert error.loss.estimate == pytest.approx(0.4)
    assert better[0][0].loss.estimate == pytest.approx(-0.1)


def test_a_higher_rate_of_the_label_is_no_loss_of_the_gain() -> None:
    """The log loss of a calibrated model rises with the rate; what it gains over knowing the rate hardly does."""
    rng = np.random.default_rng(6)
    days = np.datetime64("2024-03-01") + np.arange(12_000) % 30

    def measure(centre: float) -> Gain:
        score = 1 / (1 + np.exp(-rng.normal(centre, 1.0, 12_000)))
        y = (rng.random(12_000) < score).astype(np.float64)
        return gains(task="binary", y=y, score=score, days=days, metrics=["log_loss"], block_days=3)[0]["log_loss"]

    rare, often = measure(-2.0), measure(-0.8)
    assert often.value.estimate > 1.4 * rare.value.estimate
    assert often.gain is not None
    assert rare.gain is not None
    assert often.gain.estimate > rare.gain.estimate


def test_settings_come_from_the_policy_and_groups_share_alpha() -> None:
    policy = effective_policy({"performance.alpha": 0.06, "roc_auc.margin": 0.03, "performance.block_days": 4})

    found = settings_of(policy, groups=3)
    assert (found.alpha, found.confidence) == pytest.approx((0.02, 0.98))
    assert found.margins == {"roc_auc": 0.03}
    assert (found.block_days, found.min_days, found.calibration_gap, found.relative_loss) == (4, 7, 0.05, 0.1)


# --- verdicts -------------------------------------------------------------------------------------


def test_the_same_kind_of_month_is_fine(reference: ReferencePart) -> None:
    found = judged(reference, month(10))

    assert (found.verdict, found.basis) == ("fine", "realised")
    assert not found.lost
    assert all("no more is sure to be lost" in r or "within it" in r for r in found.reasons)


def test_a_shift_is_decay_and_the_calibration_says_so(reference: ReferencePart) -> None:
    found = judged(reference, month(11, shift=0.1))

    assert (found.verdict, found.basis) == ("decayed", "realised")
    assert found.miscalibrated
    assert "beyond it and significant" in " ".join(found.reasons[:3])


def test_without_labels_harder_rows_are_suspected(reference: ReferencePart) -> None:
    rows = month(12)
    rows["score"] = 0.2 + rows["score"] / 10
    found = judged(reference, rows, known=np.zeros(6_000, dtype=np.bool_))

    assert (found.verdict, found.basis) == ("suspected", "estimated")
    assert {loss.metric for loss in found.lost} == {"roc_auc", "log_loss"}
    assert found.realised is found.calibration is None
    assert any("Labels are known of 0 days" in reason for reason in found.reasons)


def test_labels_settle_a_suspicion(reference: ReferencePart) -> None:
    """Scores that lost their spread while they rank well: the estimate expects a loss, and labels say there is none."""
    rows = month(13)
    third = np.arange(6_000) % 3 == 0
    squeezed = rows | {"score": np.where(third, 0.36, 0.32), "y": third.astype(np.float64)}
    some = np.datetime64("2024-03-16") > squeezed["days"]

    whole = judged(reference, squeezed)
    assert whole.estimated.lost
    assert (whole.verdict, whole.basis) == ("fine", "realised")
    assert whole.reasons[0].startswith("roc_auc (realised)")
    partly = judged(reference, squeezed, known=some)
    assert (partly.verdict, partly.basis) == ("suspected", "estimated")


def test_few_days_are_unknown(reference: ReferencePart) -> None:
    found = judged(reference, month(14, n_days=5))

    assert (found.verdict, found.basis) == ("unknown", "estimated")
    assert any("performance.min_days asks for 7" in reason for reason in found.reasons)


def test_a_document_holds_what_the_ui_and_the_retraining_read(reference: ReferencePart) -> None:
    document = judged(reference, month(15, shift=0.1)).to_document()

    assert json.loads(json.dumps(document)) == document
    assert document["verdict"] == "decayed"
    assert set(document) == {
        "verdict",
        "basis",
        "reasons",
        "calibration",
        "estimated",
        "realised",
        "reference",
        "n_rows",
        "n_labelled",
        "confidence",
    }
    assert document["calibration"].keys() >= {"gap", "lower", "upper", "p_value", "miscalibrated"}
    assert document["calibration"]["miscalibrated"] is True
    assert document == judged(reference, month(15, shift=0.1)).to_document()


def test_groups_need_stronger_evidence(reference: ReferencePart) -> None:
    rows = month(16, shift=0.07, day_effect=0.15)
    alone = judged(reference, rows)
    shared = judged(reference, rows, settings=replace(SETTINGS, alpha=0.05 / 20))

    assert alone.miscalibrated
    assert not shared.miscalibrated
    assert shared.to_document()["confidence"] == pytest.approx(0.9975)


def test_pictures_are_small_and_the_same_for_the_same_verdict(reference: ReferencePart) -> None:
    found = judged(reference, month(17, shift=0.1))
    early = judged(reference, month(17), known=np.zeros(6_000, dtype=np.bool_))

    pictures = [
        performance_picture(found, partition="DE|2024-03"),
        performance_picture(early, partition="DE|2024-03"),
        calibration_picture(found, task="binary", partition="DE|2024-03"),
    ]
    assert all(png.startswith(b"\x89PNG") and len(png) < 40_000 for png in pictures)
    assert pictures[0] == performance_picture(found, partition="DE|2024-03")
    with pytest.raises(ValueError, match="the calibration was not judged"):
        calibration_picture(early, task="binary", partition="DE|2024-03")
