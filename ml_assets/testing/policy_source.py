"""FakePolicySource, and PolicySourceSuite that every policy source passes."""
# ruff: noqa: D102 - the names of the tests are the sentences

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from ml_assets.interfaces import PolicySource, Threshold


class FakePolicySource:
    """A policy in memory.

    Args:
        thresholds: By name: a whole threshold, or only its value (severity "error").
    """

    def __init__(self, thresholds: Mapping[str, Threshold | float | None]) -> None:
        self._thresholds = {
            name: given if isinstance(given, Threshold) else threshold(name, given, line=line)
            for line, (name, given) in enumerate(thresholds.items(), start=1)
        }

    def thresholds(self) -> dict[str, Threshold]:
        """Return the thresholds by name."""
        return dict(self._thresholds)


def threshold(name: str, value: float | None, *, line: int = 1) -> Threshold:
    """Return a threshold to test with."""
    return Threshold(
        name=name,
        value=value,
        severity="error",
        reason=f"What the test asks of {name}.",
        file="policies/test.yaml",
        line=line,
    )


MakePolicySource = Callable[[Mapping[str, Threshold]], PolicySource]


class PolicySourceSuite:
    """What every policy source does.

    Subclass it and provide a fixture `make_source`: a function that writes the given thresholds where a
    source reads them, and returns the source. File and line are the source's own.
    """

    def test_thresholds_come_back_by_name(self, make_source: MakePolicySource) -> None:
        given = {
            "roc_auc.floor": threshold("roc_auc.floor", 0.55),
            "log_loss.beats_baseline": replace(threshold("log_loss.beats_baseline", 0.0), severity="warning"),
            "approval.required": threshold("approval.required", None),
            "drop.ceiling": threshold("drop.ceiling", -1e-9),
            "rows.floor": replace(threshold("rows.floor", 100_000.0), reason='Größe: "n > 10⁵", it\'s a #rule'),
        }

        found = make_source(given).thresholds()

        assert {name: (t.name, t.value, t.severity, t.reason) for name, t in found.items()} == {
            name: (t.name, t.value, t.severity, t.reason) for name, t in given.items()
        }

    def test_each_threshold_says_where_it_stands(self, make_source: MakePolicySource) -> None:
        found = make_source({name: threshold(name, 1.0) for name in ("a.floor", "b.floor", "c.floor")})

        places = {(t.file, t.line) for t in found.thresholds().values()}
        assert all(file and line >= 1 for file, line in places)

    @pytest.mark.parametrize("value", [0.55, 1.0, -3.0, 0.1 + 0.2, 1e-300, 1e300])
    def test_values_are_exact_floats(self, make_source: MakePolicySource, value: float) -> None:
        found = make_source({"x": threshold("x", value)}).thresholds()["x"].value

        assert found == value
        assert type(found) is float

    def test_no_thresholds(self, make_source: MakePolicySource) -> None:
        assert make_source({}).thresholds() == {}

    def test_a_reader_may_change_its_copy(self, make_source: MakePolicySource) -> None:
        source = make_source({"x": threshold("x", 1.0)})
        source.thresholds().clear()

        assert list(source.thresholds()) == ["x"]
