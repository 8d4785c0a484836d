"""A year of flights with all gates: what is decided, in the order of deciding, is what the documentation shows."""

from pathlib import Path

import pytest

from tests.benchmarks.year_of_decisions import BEGIN, END, PAGE, run_the_year, table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def decided(text: str) -> list[tuple[str, str, str, str]]:
    """Return month, candidate, decision and reason of each row of the table."""
    rows = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in text.splitlines()[2:] if line]
    return [(cells[0], cells[1], cells[6], cells[7]) for cells in rows]


def test_the_year_is_decided_as_documented(tmp_path: Path) -> None:
    shown = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert len(decided(shown)) == 13

    run_the_year(tmp_path / "state")

    assert decided(table(tmp_path / "state")) == decided(shown)
