"""The asset graph of every code location as text: first its keys, then what each asset is.

A change of either is a change that teams, dashboards and automation see: review it, then `pytest --update-golden`.
"""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from tests.deployments.code_locations import CodeLocation, code_locations
from tests.deployments.graph_text import keys_text, specs_text

GOLDEN = Path(__file__).parent.parent / "golden" / "graph"
LOCATIONS = code_locations()


@pytest.mark.parametrize("kind", ["keys", "specs"])
@pytest.mark.parametrize("location", LOCATIONS, ids=lambda location: location.name)
def test_graph(location: CodeLocation, kind: str, *, update_golden: bool) -> None:
    render: Callable[[dg.Definitions], str] = {"keys": keys_text, "specs": specs_text}[kind]

    text = render(location.definitions())

    expected = GOLDEN / f"{location.name}.{kind}.txt"
    if update_golden:
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")


def test_there_is_no_golden_file_of_a_location_that_is_gone() -> None:
    wanted = {f"{location.name}.{kind}.txt" for location in LOCATIONS for kind in ("keys", "specs")}

    assert {file.name for file in GOLDEN.iterdir()} == wanted
