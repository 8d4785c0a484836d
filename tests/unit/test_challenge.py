import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.blocks import blocks_of_days
from ml_assets.bootstrap import block_bootstrap
from ml_assets.challenge import challenge
from ml_assets.challenge_result import ChallengeResult, ChallengeRules
from ml_assets.errors import EvaluationError

FIRST = np.datetime64("2013-03-01")
RULES = ChallengeRules(
    metric="roc_auc",
    margin=0.02,
    confidence=0.95,
    replicates=400,
    block_days=1,
    slice_margin=0.05,
    calibration_guard=True,
    seed=7,
)


class Month:
    """A made-up month: a signal, labels that follow it, and models that see it through noise."""

    def __init__(self, n_rows: int = 6000, n_days: int = 30, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.n_rows = n_rows
        self.days = FIRST + np.sort(self.rng.integers(0, n_days, n_rows))
        self.signal = self.rng.normal(0, 1.2, n_rows)
        self.y = (self.rng.random(n_rows) < 1 / (1 + np.exp(1.0 - self.signal))).astype(int)
        self.origin = self.rng.choice(["EWR", "JFK", "LGA"], n_rows, p=[0.45, 0.4, 0.15])

    def model(self, noise: float | np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(1.0 - (self.signal + noise * self.rng.normal(0, 1, self.n_rows))))

    def prior(self) -> np.ndarray:
        return np.full(self.n_rows, 0.3)

    def challenge(self, candidate, champion=None, *, rules=RULES, columns=None, **changes) -> ChallengeResult:
        scores = {"candidate": candidate, "baseline": self.prior()}
        scores |= {} if champion is None else {"champion": champion}
        arguments = {"task": "binary", "y_true": self.y, "scores": scores, "days": self.days} | changes
        return challenge(columns=columns, rules=rules, **arguments)


class TestAgainstTheChampion:
    def test_a_better_candidate_is_promoted(self):
        month = Month()
        found = month.challenge(month.model(0.3), month.model(1.2))
        assert (found.reference, found.outcome, found.comparison.outcome) == ("champion", "promote", "better")
        assert "roc_auc against the champion: the improvement is +0." in found.reason
        assert (found.more_days, found.more_rows) == (None, None)

    def test_a_candidate_that_is_worse_by_less_than_the_margin_is_promoted(self):
        month = Month(20_000)
        found = month.challenge(month.model(0.7), month.model(0.6))
        assert (found.outcome, found.comparison.outcome) == ("promote", "not_worse")

    def test_a_candidate_that_is_worse_by_more_is_not(self):
        month = Month()
        found = month.challenge(month.model(1.5), month.model(0.3))
        assert (found.outcome, found.comparison.outcome) == ("keep", "worse")

    def test_the_same_model_again_is_promoted(self):
        month = Month()
        model = month.model(0.5)
        assert month.challenge(model, model.copy()).outcome == "promote"

    def test_undecided_says_how_many_days_and_rows_are_missing(self):
        month = Month(600)
        found = month.challenge(month.model(0.6), month.model(0.7))
        assert found.outcome == "undecided"
        assert found.comparison.more_blocks is not None
        share = found.comparison.more_blocks / 30
        assert found.more_days == found.comparison.more_blocks
        assert found.more_rows == math.ceil(share * 600)
        assert f"about {found.more_days:,} more days or {found.more_rows:,} more rows" in found.reason

    def test_in_longer_blocks_the_missing_days_are_those_of_the_blocks(self):
        month = Month(600)
        found = month.challenge(month.model(0.6), month.model(0.7), rules=replace(RULES, block_days=3))
        assert (found.outcome, found.comparison.improvement.n_blocks) == ("undecided", 10)
        assert found.more_days == 3 * (found.comparison.more_blocks or 0)

    def test_where_weeks_hang_together_blocks_of_weeks_are_less_sure(self):
        month = Month(14_000, n_days=140)
        week = (month.days - FIRST).astype(int) // 7
        candidate = month.model(np.exp(month.rng.normal(-0.5, 0.8, 20))[week])
        champion = month.model(0.7)
        by_day, by_week = (
            month.challenge(candidate, champion, rules=replace(RULES, block_days=n)).comparison.improvement
            for n in (1, 7)
        )
        assert (by_day.n_blocks, by_week.n_blocks) == (140, 20)
        assert by_week.upper - by_week.lower > 1.4 * (by_day.upper - by_day.lower)


class TestAgainstTheBaseline:
    def test_a_signal_is_promoted(self):
        month = Month()
        found = month.challenge(month.model(0.5), columns=pd.DataFrame({"origin": month.origin}))
        assert (found.reference, found.outcome, found.slices) == ("baseline", "promote", ())

    def test_the_margin_is_not_for_candidates_that_know_nothing(self):
        month = Month()
        noise = 0.3 + 0.001 * month.rng.random(month.n_rows)
        found = month.challenge(noise, rules=replace(RULES, margin=0.5))
        assert found.outcome == "undecided"
        assert found.to_document()["margin"] == 0.0

    def test_a_candidate_below_the_baseline_is_not_promoted(self):
        month = Month()
        assert month.challenge(1 - month.model(0.5)).outcome == "keep"

    def test_the_baseline_itself_is_nothing_to_promote(self):
        month = Month()
        found = month.challenge(month.prior())
        assert found.outcome == "keep"
        assert "worth exactly as much as the baseline, so there is nothing to promote" in found.reason

    def test_noise_with_sure_probabilities_is_refused_by_its_calibration(self):
        month = Month()
        found = month.challenge(month.rng.random(month.n_rows))
        assert found.calibration is not None
        assert (found.outcome, found.calibration.outcome) == ("keep", "worse")
        assert "Calibration worse: the improvement of log_loss is -" in found.reason

    def test_a_regression_is_held_against_the_naive_forecast(self):
        rng = np.random.default_rng(3)
        y = rng.poisson(50, 900).astype(float)
        naive = y + rng.normal(0, 8, 900)
        rules = replace(RULES, metric="wape", margin=0.005)
        days = FIRST + np.arange(900) // 30
        outcomes = {
            noise: challenge(
                task="regression",
                y_true=y,
                scores={"candidate": y + rng.normal(0, noise, 900), "baseline": naive},
                days=days,
                columns=None,
                rules=rules,
            )
            for noise in (4.0, 20.0)
        }
        assert {noise: found.outcome for noise, found in outcomes.items()} == {4.0: "promote", 20.0: "keep"}
        assert all(found.calibration is None for found in outcomes.values())


class TestSlices:
    def test_a_slice_that_is_surely_worse_keeps_the_champion(self):
        month = Month(12_000)
        broken = np.where(month.origin == "LGA", 3.0, 0.1)
        found = month.challenge(month.model(broken), month.model(1.2), columns=pd.DataFrame({"origin": month.origin}))
        assert found.comparison.outcome in {"better", "not_worse"}
        assert {guard.value: guard.outcome for guard in found.slices} == {"EWR": "held", "JFK": "held", "LGA": "worse"}
        assert found.outcome == "keep"
        assert "1 of 3 guarded slices worse by more than 0.05: origin=LGA." in found.reason

    def test_the_level_is_corrected_for_the_number_of_slices(self):
        month = Month()
        columns = pd.DataFrame({"origin": month.origin, "half": np.arange(month.n_rows) % 2})
        found = month.challenge(month.model(0.5), month.model(0.6), columns=columns)
        levels = [guard.improvement.confidence for guard in found.slices if guard.improvement is not None]
        assert levels == pytest.approx([0.99] * 5)

    def test_a_slice_is_measured_as_if_it_were_alone(self):
        month = Month()
        candidate, champion = month.model(0.5), month.model(0.6)
        found = month.challenge(candidate, champion, columns=pd.DataFrame({"origin": month.origin}))
        inside = month.origin == found.slices[0].value
        drawn = block_bootstrap(
            task="binary",
            y_true=month.y[inside],
            scores={"candidate": candidate[inside], "champion": champion[inside]},
            blocks=month.days[inside],
            metrics=["roc_auc"],
            replicates=RULES.replicates,
            seed=RULES.seed,
        )
        expected = drawn.improvement("roc_auc", "candidate", "champion", confidence=1 - 0.05 / 3)
        assert found.slices[0].improvement == expected

    def test_a_slice_that_cannot_be_measured_says_why_and_decides_nothing(self):
        month = Month()
        new = np.where(month.days >= FIRST + 27, "new", "old")
        found = month.challenge(month.model(0.3), month.model(1.2), columns=pd.DataFrame({"route": new}))
        (guard,) = [guard for guard in found.slices if guard.value == "new"]
        assert (guard.outcome, guard.improvement) == ("not_measured", None)
        assert "rows fall into 3 blocks; an interval needs at least 5" in guard.reason
        assert found.outcome == "promote"
        assert "1 could not be measured." in found.reason

    def test_many_worse_slices_are_counted(self):
        month = Month(30_000)
        carrier = np.array(list("ABCDEFGH"))[np.arange(month.n_rows) % 8]
        found = month.challenge(month.model(3.0), month.model(0.1), columns=pd.DataFrame({"carrier": carrier}))
        assert "8 of 8 guarded slices worse by more than 0.05: carrier=A, " in found.reason
        assert "carrier=E and 3 more." in found.reason


class TestCalibration:
    def test_a_good_ranking_with_wrong_probabilities_keeps_the_champion(self):
        month = Month()
        found = month.challenge(0.9 + 0.1 * month.model(0.3), month.model(1.2))
        assert found.calibration is not None
        assert (found.comparison.outcome, found.calibration.outcome, found.outcome) == ("better", "worse", "keep")

    def test_it_is_not_guarded_when_the_policy_does_not_ask(self):
        month = Month()
        rules = replace(RULES, calibration_guard=False)
        found = month.challenge(0.9 + 0.1 * month.model(0.3), month.model(1.2), rules=rules)
        assert (found.calibration, found.outcome) == (None, "promote")

    def test_probabilities_that_may_be_worse_are_held(self):
        month = Month()
        found = month.challenge(np.clip(0.3 + 0.05 * (month.model(0.3) - 0.35), 0.01, 0.99), month.model(1.2))
        assert found.calibration is not None
        assert found.calibration.outcome == "held"

    def test_where_the_log_loss_is_infinite_the_brier_score_is_used(self):
        month = Month()
        candidate = month.model(0.3)
        candidate[np.flatnonzero(month.y == 1)[0]] = 0.0
        found = month.challenge(candidate, month.model(1.2))
        assert found.calibration is not None
        assert (found.calibration.metric, found.calibration.outcome) == ("brier_score", "held")

    def test_several_classes_are_guarded_by_the_log_loss(self):
        rng = np.random.default_rng(1)
        y = rng.integers(0, 3, 900)
        sure = np.full((900, 3), 0.1) + 0.7 * np.eye(3)[y]
        wrong = np.roll(sure, 1, axis=1)
        for score, outcome in ((sure, "held"), (wrong, "worse")):
            found = challenge(
                task="multiclass",
                y_true=np.array(["a", "b", "c"])[y],
                scores={"candidate": score, "baseline": np.full((900, 3), 1 / 3)},
                days=FIRST + np.arange(900) // 30,
                columns=None,
                rules=replace(RULES, metric="accuracy"),
                classes=["a", "b", "c"],
            )
            assert found.calibration is not None
            assert (found.calibration.metric, found.calibration.outcome) == ("log_loss", outcome)


@pytest.mark.parametrize(
    ("n_days", "block_days", "sizes"),
    [
        (30, 1, [1] * 30),
        (28, 7, [7, 7, 7, 7]),
        (31, 7, [7, 7, 7, 10]),
        (32, 7, [7, 7, 7, 7, 4]),
        (31, 2, [2] * 15 + [1]),
        (31, 3, [3] * 9 + [4]),
        (3, 7, [3]),
    ],
)
def test_days_make_blocks_and_a_short_rest_joins_the_last(n_days, block_days, sizes):
    codes = blocks_of_days(FIRST + np.arange(n_days), block_days)
    assert np.bincount(codes).tolist() == sizes


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(1, 10))
def test_a_block_holds_days_that_are_near_and_blocks_are_in_order(days, block_days):
    present = FIRST + np.array(sorted(days))
    codes = blocks_of_days(present, block_days)
    assert (np.diff(codes) >= 0).all()
    for code in np.unique(codes):
        inside = present[codes == code]
        assert (inside.max() - inside.min()).astype(int) < 1.5 * block_days


def test_too_few_blocks_are_refused():
    month = Month(n_days=21)
    with pytest.raises(EvaluationError) as refused:
        month.challenge(month.model(0.5), rules=replace(RULES, block_days=7))
    assert str(refused.value) == (
        "the 6000 rows from 2013-03-01 to 2013-03-21 make 3 blocks of 7 days; a comparison needs at least 5. Evaluate "
        "on longer partitions, or lower comparison.block_days in the policy if days that far apart are independent."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_days": 0}, "block_days is 0; expected at least 1. Correct comparison.block_days in the policy"),
        ({"slice_margin": -0.1}, r"slice_margin is -0.1; expected a number ≥ 0.* Correct roc_auc.slice_margin"),
        ({"slice_margin": math.nan}, "slice_margin is nan; expected a number ≥ 0"),
    ],
)
def test_rules_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(EvaluationError, match=message):
        replace(RULES, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": {"candidate": [0.5]}}, "scores are of candidate; expected candidate and baseline, and champion"),
        ({"days": np.arange(3)}, r"blocks has shape \(3,\); expected one label for each of 6000 rows"),
        ({"columns": pd.DataFrame({"a": [1]})}, "the slice columns have 1 rows, but y_true has 6000"),
    ],
)
def test_wrong_arrays_are_refused(changes, message):
    month = Month()
    with pytest.raises(EvaluationError, match=message):
        month.challenge(month.model(0.5), **changes)


def test_missing_days_are_refused():
    month = Month()
    month.days[5] = np.datetime64("NaT")
    with pytest.raises(EvaluationError, match="1 of 6000 rows have no block label; expected the day of each row"):
        month.challenge(month.model(0.5))


def test_the_document_is_json_with_all_that_was_asked_and_found():
    month = Month()
    found = month.challenge(month.model(0.3), month.model(1.2), columns=pd.DataFrame({"origin": month.origin}))
    document = found.to_document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert list(document) == [
        "reference", "outcome", "reason", "metric", "margin", "confidence", "block_days", "replicates", "seed",
        "improvement", "more_days", "more_rows", "slices", "calibration",
    ]  # fmt: skip
    assert document["improvement"]["lower"] == found.comparison.improvement.lower
    assert [list(guard) for guard in document["slices"]] == [
        ["column", "value", "n_rows", "outcome", "improvement", "reason"]
    ] * 3
    assert list(document["calibration"]) == ["metric", "outcome", "improvement", "reason"]


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=10)
def test_the_order_of_rows_does_not_matter(seed):
    month = Month(1500)
    candidate, champion = month.model(0.5), month.model(0.7)
    one = month.challenge(candidate, champion)
    order = np.random.default_rng(seed).permutation(month.n_rows)
    month.y, month.days = month.y[order], month.days[order]
    other = month.challenge(candidate[order], champion[order])
    assert other.outcome == one.outcome
    assert other.comparison.improvement.lower == pytest.approx(one.comparison.improvement.lower, rel=1e-12)


@given(st.floats(0.0, 0.1), st.floats(0.0, 0.1))
@settings(deadline=None, max_examples=15)
def test_a_larger_margin_never_takes_a_promotion_back(one, other):
    month = Month(1500)
    candidate, champion = month.model(0.9), month.model(0.7)
    small, large = (
        month.challenge(candidate, champion, rules=replace(RULES, margin=margin)) for margin in sorted((one, other))
    )
    assert small.outcome != "promote" or large.outcome == "promote"
    assert large.outcome != "keep" or small.outcome == "keep"
