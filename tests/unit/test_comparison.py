import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.bootstrap import Interval, block_bootstrap
from ml_assets.comparison import decide, paired_differences
from ml_assets.errors import EvaluationError


def interval(lower: float, estimate: float, upper: float, n_blocks: int = 30) -> Interval:
    return Interval(
        estimate=estimate,
        lower=lower,
        upper=upper,
        standard_error=(upper - lower) / 3.92,
        n_blocks=n_blocks,
        confidence=0.95,
        replicates=500,
    )


@pytest.mark.parametrize(
    ("ends", "outcome"),
    [
        ((0.001, 0.02, 0.04), "better"),
        ((0.0, 0.02, 0.04), "not_worse"),
        ((-0.009, 0.02, 0.04), "not_worse"),
        ((-0.009, -0.005, -0.001), "not_worse"),
        ((-0.01, 0.02, 0.04), "undecided"),
        ((-0.05, -0.02, -0.01), "undecided"),
        ((-0.05, -0.03, -0.011), "worse"),
    ],
)
def test_the_outcome_is_where_the_interval_lies(ends, outcome):
    assert decide(interval(*ends), margin=0.01).outcome == outcome


def test_the_reason_has_the_numbers():
    better = decide(interval(0.0178, 0.0354, 0.0532, n_blocks=31), margin=0.005)
    assert better.reason == (
        "the improvement is +0.0354 [+0.0178, +0.0532] at 95 % over 31 blocks: the whole interval is above 0."
    )
    assert better.more_blocks is None
    assert "any loss is below the margin of 0.01" in decide(interval(-0.005, 0.0, 0.01), margin=0.01).reason
    assert "the loss is above the margin of 0.01" in decide(interval(-0.09, -0.05, -0.02), margin=0.01).reason


def test_undecided_says_how_many_blocks_are_missing():
    # The lower end lies 0.03 below the estimate and must come within 0.02: 30 · (3/2)² = 67.5 blocks in all.
    comparison = decide(interval(-0.02, 0.01, 0.04), margin=0.01)
    assert comparison.outcome == "undecided"
    assert comparison.more_blocks == 38
    assert "about 38 more blocks would decide it" in comparison.reason


@given(
    st.floats(-0.1, 0.1),
    st.floats(0.001, 0.2),
    st.floats(0.001, 0.2),
    st.floats(0.0, 0.05),
    st.integers(5, 200),
)
def test_with_the_missing_blocks_it_would_be_decided(estimate, below, above, margin, n_blocks):
    found = decide(interval(estimate - below, estimate, estimate + above, n_blocks), margin=margin)
    if found.more_blocks is None:
        assert found.outcome != "undecided" or abs(estimate + margin) <= max(below, above) / 10
        return
    narrower = (n_blocks / (n_blocks + found.more_blocks)) ** 0.5
    later = interval(estimate - below * narrower, estimate, estimate + above * narrower)
    assert decide(later, margin=margin).outcome != "undecided"


def test_no_number_of_blocks_decides_an_estimate_on_the_margin():
    comparison = decide(interval(0.0, 0.0, 0.0), margin=0.0)
    assert (comparison.outcome, comparison.more_blocks) == ("undecided", None)
    assert "more blocks would not decide it" in comparison.reason


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_the_margin_is_a_loss(margin):
    with pytest.raises(EvaluationError, match=r"the margin is .*; expected a number ≥ 0"):
        decide(interval(0, 1, 2), margin=margin)


def test_differences_are_of_the_candidate_and_point_the_right_way():
    rng = np.random.default_rng(0)
    y = rng.normal(0, 1, 300)
    good, poor = y + rng.normal(0, 0.1, 300), y + rng.normal(0, 1, 300)
    drawn = block_bootstrap(
        task="regression",
        y_true=y,
        scores={"candidate": good, "baseline": poor},
        blocks=np.arange(300) // 30,
        metrics=["mae", "r2"],
        replicates=50,
    )
    mae, r2 = paired_differences(drawn, ["candidate", "baseline"], ["mae", "r2"], confidence=0.9)
    assert (mae.metric, mae.reference, mae.improvement.confidence) == ("mae", "baseline", 0.9)
    assert mae.difference.estimate < 0 < mae.improvement.lower
    assert mae.improvement.estimate == -mae.difference.estimate
    assert r2.difference == r2.improvement
    assert decide(mae.improvement, margin=0.0).outcome == "better"
