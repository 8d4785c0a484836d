import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaln

from ml_assets.errors import EvaluationError
from ml_assets.experiments.sample_ratio import PRIOR_ROWS, check, log_e_value

COUNTS = st.integers(0, 100_000)
SHARES = st.floats(0.01, 0.99)


@given(challenger=COUNTS, champion=COUNTS, share=SHARES)
def test_the_next_row_changes_the_evidence_by_nothing_on_average(challenger, champion, share):
    """The martingale on which validity under peeking rests."""
    now = log_e_value(challenger, champion, share)
    up = math.exp(log_e_value(challenger + 1, champion, share) - now)
    down = math.exp(log_e_value(challenger, champion + 1, share) - now)
    assert share * up + (1 - share) * down == pytest.approx(1.0, rel=1e-6)


@given(challenger=COUNTS, champion=COUNTS, share=SHARES)
def test_the_arms_may_change_places(challenger, champion, share):
    there = log_e_value(challenger, champion, share)
    back = log_e_value(champion, challenger, 1 - share)
    assert there == pytest.approx(back, abs=1e-6, rel=1e-9)


@given(challenger=COUNTS, champion=COUNTS, share=SHARES)
def test_the_evidence_is_the_bayes_factor_of_a_beta_around_the_plan(challenger, champion, share):
    a, b = PRIOR_ROWS * share, PRIOR_ROWS * (1 - share)
    mixture = betaln(a + challenger, b + champion) - betaln(a, b)
    plan = challenger * math.log(share) + champion * math.log1p(-share)
    assert log_e_value(challenger, champion, share) == pytest.approx(mixture - plan, abs=1e-5, rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(share=st.floats(0.02, 0.98), alpha=st.floats(0.02, 0.3), seed=st.integers(0, 2**32 - 1))
def test_a_kept_plan_is_rejected_at_most_alpha_often_when_one_looks_every_day(share, alpha, seed):
    rng = np.random.default_rng(seed)
    challenger = rng.binomial(200, share, size=(400, 120)).cumsum(axis=1)
    champion = 200 * np.arange(1, 121) - challenger
    a, b = PRIOR_ROWS * share, PRIOR_ROWS * (1 - share)
    evidence = betaln(a + challenger, b + champion) - betaln(a, b)
    evidence -= challenger * math.log(share) + champion * math.log1p(-share)
    ever = (evidence >= -math.log(alpha)).any(axis=1)
    for row in np.flatnonzero(ever)[:3]:
        day = int((evidence[row] >= -math.log(alpha)).argmax())
        assert not check(int(challenger[row, day]), int(champion[row, day]), share, alpha * (1 + 1e-9)).matches
    assert ever.mean() <= alpha + 4 * math.sqrt(alpha * (1 - alpha) / 400)


def test_no_rows_are_no_evidence():
    found = check(0, 0, 0.1, 0.05)
    assert (found.matches, found.p_value, found.observed_share) == (True, 1.0, None)
    assert found.log_e_value == pytest.approx(0.0, abs=1e-12)
    assert found.reason == "no rows were assigned yet"


def test_a_split_as_planned_matches():
    found = check(10_050, 89_950, 0.1, 0.05)
    assert found.matches
    assert found.observed_share == pytest.approx(0.1005)
    assert found.reason == (
        "10,050 of 100,000 rows (10.05 %) went to the challenger; planned were 10 %, and the difference may be chance "
        "(p = 1, alpha = 0.05)"
    )


@pytest.mark.parametrize("challenger", [9_400, 10_600])
def test_rows_that_one_arm_lost_or_doubled_are_found(challenger):
    found = check(challenger, 100_000 - challenger, 0.1, 0.05)
    assert not found.matches
    assert found.p_value < 1e-4
    assert "planned were 10 %, and the difference is no chance" in found.reason
    assert "look for rows of one arm that were lost, doubled or scored by another model" in found.reason


def test_overwhelming_evidence_is_a_number_too():
    found = check(0, 10**9, 0.5, 0.05)
    assert not found.matches
    assert found.p_value == 0.0
    assert math.isfinite(found.log_e_value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 5, 0.1, 0.05), "the arms have -1 and 5 rows; expected counts ≥ 0."),
        ((1, 5, 0.0, 0.05), "the planned share is 0.0; expected a number between 0 and 1, both excluded."),
        ((1, 5, 0.1, 1.0), "alpha is 1.0; expected a number between 0 and 1, both excluded."),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(EvaluationError, match=re.escape(message)):
        check(*arguments)
