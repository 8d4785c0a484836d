"""200 simulated months without a signal: nothing is ever promoted."""

import pytest

from tests.benchmarks.signal_free import RULES, Judged, judge_months

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MONTHS = 200


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    return list(judge_months(MONTHS))


def test_nothing_is_ever_promoted(judged):
    assert len(judged) == MONTHS
    assert not any(month.gates and month.first == "promote" for month in judged)


def test_the_comparison_alone_errs_no_more_often_than_it_says(judged):
    alpha = 1 - RULES.confidence
    assert sum(month.comparison_alone for month in judged) <= alpha * MONTHS
    assert sum(month.first == "promote" for month in judged) <= alpha * MONTHS


def test_noise_never_follows_noise_as_a_champion(judged):
    # The comparison may find one model without a signal as good as another: the gates are what refuses it.
    assert not any(month.gates for month in judged)
    assert any(month.against_noise == "promote" for month in judged)
