"""Search spaces: conditions, grids and points of the cube."""

import doctest
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets import search_space
from ml_assets.interfaces import Parameter
from ml_assets.search_space import GRID_LIMIT, from_cube, grid_points, grid_size, is_active, parameters_of, same
from ml_assets.spec import SearchSpec

SEARCH = SearchSpec.model_validate(
    {
        "trials": 5,
        "space": {
            "estimator.depth": {"choice": [None, 4, True]},
            "estimator.leaves": {"int": [7, 32], "step": 8, "when": {"estimator.depth": [4, True]}},
            "estimator.rate": {"float": [0.1, 0.35], "step": 0.1, "when": {"estimator.leaves": [7, 15]}},
            "estimator.l2": {"float": [0.01, 10], "log": True},
            "estimator.trees": {"int": [1, 1000], "log": True},
        },
    }
)
SPACE = parameters_of(SEARCH)
DISCRETE = SPACE[:3]


def test_ends_of_ranges_lie_on_the_grid_of_their_steps() -> None:
    depth, leaves, rate, l2, trees = SPACE

    assert (leaves.low, leaves.high, leaves.step) == (7, 31, 8)
    assert (rate.low, rate.high, rate.step) == (0.1, 0.3, 0.1)
    assert (l2.low, l2.high, l2.log) == (0.01, 10, True)
    assert depth.choices == (None, 4, True)
    assert trees.when == {}


def test_a_condition_on_an_inactive_parameter_fails() -> None:
    rate = SPACE[2]

    assert is_active(rate, {"estimator.depth": 4, "estimator.leaves": 7})
    assert not is_active(rate, {"estimator.depth": 4, "estimator.leaves": 23})
    assert not is_active(rate, {"estimator.depth": None})


def test_one_is_not_true() -> None:
    parameter = Parameter(name="a", kind="choice", choices=(1,), when={"b": (True,)})

    assert not is_active(parameter, {"b": 1})
    assert is_active(parameter, {"b": True})
    assert same([1, [None]], (1.0, [None]))


def test_a_grid_has_every_point_once() -> None:
    points = list(grid_points(DISCRETE))

    expected = [{"estimator.depth": None}]
    for depth, leaves in product((4, True), (7, 15, 23, 31)):
        rates = (0.1, 0.2, 0.3) if leaves < 20 else (None,)
        expected += [
            {"estimator.depth": depth, "estimator.leaves": leaves} | ({} if rate is None else {"estimator.rate": rate})
            for rate in rates
        ]
    assert points == expected
    assert grid_size(DISCRETE) == len(expected) == 17


def test_a_huge_grid_is_not_counted_to_its_end() -> None:
    wide = [Parameter(name=f"p{i}", kind="int", low=0, high=10**6) for i in range(4)]

    assert grid_size(wide) == GRID_LIMIT + 1


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=5, max_size=5))
def test_points_of_the_cube_lie_in_the_space(point: list[float]) -> None:
    params = from_cube(SPACE, point)

    assert list(params) == [p.name for p in SPACE if is_active(p, params)]
    assert 0.01 <= params["estimator.l2"] <= 10
    assert params["estimator.trees"] in range(1, 1001)
    discrete = {name: value for name, value in params.items() if name not in {"estimator.l2", "estimator.trees"}}
    assert discrete in list(grid_points(DISCRETE))


@pytest.mark.parametrize(("u", "value"), [(0.0, 0.01), (0.5, 0.1**0.5), (0.9999999, 10.0)])
def test_a_logarithmic_range_is_even_in_ratios(u: float, value: float) -> None:
    assert from_cube([SPACE[3]], [u])["estimator.l2"] == pytest.approx(value, rel=1e-4)


def test_examples_hold() -> None:
    result = doctest.testmod(search_space)

    assert result.attempted > 0
    assert result.failed == 0
