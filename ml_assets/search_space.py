"""Search spaces as values: which parameters a set of others leaves active, every point of a grid, points of a cube."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from ml_assets.interfaces import Parameter
from ml_assets.spec import ParameterSpec, SearchSpec

GRID_LIMIT = 10_000
"""Most points of a grid: beyond, another sampler finds more in less time."""


def parameters_of(search: SearchSpec) -> tuple[Parameter, ...]:
    """Return the space of a description that was checked, with the ends of ranges on the grids of their steps."""
    return tuple(_parameter(name, spec) for name, spec in search.space.items())


def is_active(parameter: Parameter, params: Mapping[str, Any]) -> bool:
    """Return whether a parameter is searched beside others; a condition on one that is itself inactive fails."""
    return all(
        name in params and any(same(params[name], value) for value in values) for name, values in parameter.when.items()
    )


def same(a: Any, b: Any) -> bool:
    """Return whether two plain values are the same: true is not 1, but 1 is 1.0.

    >>> same(True, 1), same(1, 1.0), same([1, None], [1, None])
    (False, True, True)
    """
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def count_of(parameter: Parameter) -> int | None:
    """Return how many values a parameter has, or None when it has no end of them."""
    if parameter.kind == "choice":
        return len(parameter.choices)
    step = _step(parameter)
    return None if step is None else _steps(parameter.low, parameter.high, step) + 1


def value_at(parameter: Parameter, index: int) -> Any:
    """Return the value at a place, from 0, of a parameter with finitely many values."""
    if parameter.kind == "choice":
        return parameter.choices[index]
    return _rounded(parameter.kind, parameter.low + index * (_step(parameter) or 1))


def grid_points(space: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
    """Yield each point of a space once, the last parameter changing fastest; inactive parameters are absent.

    Every parameter has finitely many values.
    """
    yield from _points(space, {})


def grid_size(space: Sequence[Parameter]) -> int:
    """Return how many points a grid has, or `GRID_LIMIT` + 1 when it has more than the limit."""
    return sum(1 for _ in itertools.islice(grid_points(space), GRID_LIMIT + 1))


def from_cube(space: Sequence[Parameter], point: Sequence[float]) -> dict[str, Any]:
    """Return the parameters at a point of the unit cube, each coordinate below 1; inactive ones are left out.

    Args:
        space: The parameters, in declared order.
        point: One coordinate a parameter.
    """
    params: dict[str, Any] = {}
    for parameter, u in zip(space, point, strict=True):
        if is_active(parameter, params):
            params[parameter.name] = _from_unit(parameter, u)
    return params


def _parameter(name: str, spec: ParameterSpec) -> Parameter:
    when = {earlier: tuple(values) for earlier, values in spec.when.items()}
    if spec.choice is not None:
        return Parameter(name=name, kind="choice", choices=spec.choice, when=when)
    kind: Literal["float", "int"] = "float" if spec.float is not None else "int"
    low, high = spec.float or spec.int or (0, 0)
    if spec.step is not None:
        high = _rounded(kind, low + _steps(low, high, spec.step) * spec.step)
    return Parameter(name=name, kind=kind, low=low, high=high, step=spec.step, log=spec.log, when=when)


def _step(parameter: Parameter) -> float | None:
    return parameter.step or (1 if parameter.kind == "int" else None)


def _steps(low: float, high: float, step: float) -> int:
    return math.floor((high - low) / step + 1e-9)


def _rounded(kind: str, number: float) -> float | int:
    # 0.1 + 2 × 0.1 is written 0.3, not 0.30000000000000004.
    return round(number) if kind == "int" else float(f"{number:.12g}")


def _points(space: Sequence[Parameter], params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not space:
        yield params
    elif not is_active(space[0], params):
        yield from _points(space[1:], params)
    else:
        for index in range(count_of(space[0]) or 0):
            yield from _points(space[1:], {**params, space[0].name: value_at(space[0], index)})


def _from_unit(parameter: Parameter, u: float) -> Any:
    count = count_of(parameter)
    if count is not None and not parameter.log:
        return value_at(parameter, min(int(u * count), count - 1))
    low, high = parameter.low, parameter.high
    if not parameter.log:
        return low + u * (high - low)
    # Each whole number of a logarithmic scale has the share of its own half steps, as in Optuna.
    half = 0.5 if parameter.kind == "int" else 0.0
    bottom, top = math.log(low - half), math.log(high + half)
    number = math.exp(bottom + u * (top - bottom))
    return round(min(max(number, low), high)) if parameter.kind == "int" else min(max(number, low), high)
