"""Real flights: ten honest challengers are promoted, and no bad one that is worse by the margin is."""

import re
from pathlib import Path

import pytest

from tests.benchmarks.ten_comparisons import RULES, Compared, compare_months, flights_spec, labelled_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "champion-and-challenger.md"


@pytest.fixture(scope="module")
def compared() -> list[Compared]:
    spec = flights_spec()
    return list(compare_months(spec, labelled_rows(spec)))


def test_all_ten_honest_challengers_are_promoted(compared):
    honest = {c.month: c.result.outcome for c in compared if c.kind == "honest"}
    assert honest == dict.fromkeys([f"2013-{month:02d}" for month in range(3, 13)], "promote")


def test_no_bad_challenger_that_is_worse_by_the_margin_is_promoted(compared):
    bad = [c.result for c in compared if c.kind == "bad"]
    worse = [result for result in bad if result.comparison.improvement.estimate <= -RULES.margin]
    assert len(bad) == 10
    assert len(worse) >= 6
    assert {result.outcome for result in worse} <= {"keep", "undecided"}


def test_every_slice_of_airport_and_carrier_was_looked_at(compared):
    for one in compared:
        assert {guard.column for guard in one.result.slices} == {"origin", "carrier"}
        n_rows = sum(guard.n_rows for guard in one.result.slices if guard.column == "origin")
        assert n_rows == sum(guard.n_rows for guard in one.result.slices if guard.column == "carrier")


def test_the_page_shows_these_verdicts(compared):
    rows = re.findall(
        r"^\| (2013-\d\d) \| (honest|bad) \|.*\*\*(\w+)\*\*", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {(month, kind): verdict for month, kind, verdict in rows} == {
        (c.month, c.kind): c.result.outcome for c in compared
    }
