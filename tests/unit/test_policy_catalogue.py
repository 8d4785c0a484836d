"""The catalogue of settings, and the form in which values are compared, digested and shown."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.gates import parse_gate
from ml_assets.metrics import METRICS
from ml_assets.policy.catalogue import CATALOGUE, as_value, shown
from ml_assets.yaml_positions import load_yaml

DEFAULTED = sorted(name for name, definition in CATALOGUE.items() if definition.default is not None)


def test_every_metric_has_its_settings_and_every_gate_can_be_parsed() -> None:
    rules = {"floor", "ceiling", "beats_baseline", "margin", "slice_margin", "material_band"}

    for metric in METRICS:
        assert {f"{metric}.{rule}" for rule in rules} <= set(CATALOGUE)
    gates = {name for name, definition in CATALOGUE.items() if definition.gate}
    assert {parse_gate(name)[0] for name in gates} == set(METRICS)
    assert len(gates) == 3 * len(METRICS)


@pytest.mark.parametrize("name", DEFAULTED)
def test_a_default_is_a_value_that_a_file_might_set(name: str) -> None:
    definition = CATALOGUE[name]

    assert definition.accepts(definition.default)
    assert as_value(definition.default) == definition.default
    built_in = definition.built_in()
    assert built_in is not None
    assert (built_in.level, built_in.file, built_in.line, built_in.kind) == ("built-in", "built-in", 0, definition.kind)


def test_a_metric_setting_has_no_default() -> None:
    assert CATALOGUE["roc_auc.floor"].built_in() is None


@pytest.mark.parametrize(
    ("name", "accepted", "refused"),
    [
        ("roc_auc.floor", [0, 1, 0.5], [-0.1, 1.1, True, None, "0.5", math.nan, math.inf, [0.5], 10**400]),
        ("bias.ceiling", [-3, 3], [-math.inf]),
        ("log_loss.beats_baseline", [-1, 0, 5], [10**400]),
        ("comparison.confidence", [0.51, 0.99], [0.5, 1]),
        ("comparison.replicates", [100, 100_000, 2e3], [99, 100_001, 1500.5]),
        ("approval.valid_days", [0.25, 365], [0, 366]),
        ("approval.always", [True, False], [0, 1, "true", None]),
        ("approval.roles", [[], ["a", "b_2"]], ["a", ["A"], ["a", "a"], [1], ["a\n"], None]),
        ("material.protected_slices", [["origin"], ["origin=JFK", "origin=A b"]], [["=JFK"], ["origin="], [""]]),
    ],
)
def test_values_are_of_the_right_type_and_in_range(name: str, accepted: list, refused: list) -> None:
    assert [value for value in accepted if not CATALOGUE[name].accepts(value)] == []
    assert [value for value in refused if CATALOGUE[name].accepts(value)] == []


@given(st.one_of(st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.lists(st.sampled_from("abc"))))
def test_one_form_for_each_value(value: bool | float | list[str]) -> None:
    found = as_value(value)

    assert as_value(list(found) if isinstance(found, tuple) else found) == found
    assert found == (tuple(sorted(set(value))) if isinstance(value, list) else value)
    assert repr(as_value(-0.0)) == "0.0"


@given(st.one_of(st.booleans(), st.integers(-(10**6), 10**6).map(lambda n: n / 1000), st.just(("a", "b"))))
def test_what_is_shown_can_be_written_in_a_file(value: bool | float | tuple[str, ...]) -> None:
    assert as_value(load_yaml(f"value: {shown(value)}", file="f").data["value"]) == as_value(value)
