"""Checks of `compute.checkpoint`: whether the estimator has rounds, with every choice of its search too."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ml_assets.interfaces import Parameter
from ml_assets.reading.draft import Draft
from ml_assets.reading.estimators import EstimatorNotFoundError, find_estimator
from ml_assets.reading.findings import Findings
from ml_assets.search_space import GRID_LIMIT, grid_points, parameters_of, same
from ml_assets.spec import SearchSpec
from ml_assets.trainers.kinds import Kind, Params, find_kind
from ml_assets.trainers.libraries import STORED_TYPES, library

_PREFIX = "estimator."
_Place = tuple[str, str] | tuple[str, str, int]


def check_checkpoint(draft: Draft, name: str, findings: Findings, *, is_search_right: bool) -> None:
    """Refuse a checkpoint that the library's estimator cannot have; of a team's own class the training will tell.

    Args:
        draft: The description.
        name: The variant.
        findings: Takes the problems.
        is_search_right: Whether its search, if any, has no problem so far; one of a wrong form has no choices.
    """
    path = ("variants", name)
    estimator = draft.at(*path, "estimator")
    if estimator is None or not draft.at(*path, "compute", "checkpoint") or not draft.sound(*path, "params"):
        return
    if draft.at(*path, "train") is not None or not _is_known(estimator):
        return  # a team's own function saves what it likes; an estimator that there is not is told where it stands
    class_name = estimator.rpartition(".")[2]
    kind = find_kind([class_name])
    if kind is None:
        if library(estimator) in {"sklearn", *STORED_TYPES}:
            found = f"{class_name} cannot be trained in rounds: it has no rounds that are known here"
            expected = "false, or an estimator with rounds such as HistGradientBoostingClassifier"
            findings.add((*path, "compute", "checkpoint"), found, expected)
        return
    variant = draft.spec.variants[name]
    search = getattr(variant, "search", None)  # absent when it is broken as a whole
    if search is None:
        _add_plain(kind, variant.params, class_name, name, findings)
    elif is_search_right and draft.sound(*path, "search"):
        _check_space(kind, variant.params, search, class_name, name, findings)


def _is_known(estimator: str) -> bool:
    try:
        find_estimator(estimator)
    except EstimatorNotFoundError:
        return False
    return True


def _add_plain(kind: Kind, params: Params, class_name: str, name: str, findings: Findings) -> None:
    if why := kind.obstacle(params):
        found = f"{class_name} cannot be trained in rounds: {why}"
        findings.add(("variants", name, "compute", "checkpoint"), found, "false, or other parameters")


def _check_space(
    kind: Kind, params: Params, search: SearchSpec, class_name: str, name: str, findings: Findings
) -> None:
    """Record the first reason for each choice with which a trial could not be trained in rounds."""
    space = _decisive_space(kind, parameters_of(search))
    told: dict[_Place, tuple[Any, str]] = {}
    unexplained: list[dict[str, Any]] = []
    for point in itertools.islice(grid_points(space), GRID_LIMIT):
        why = kind.obstacle(_of_trial(params, point))
        if not why:
            continue
        culprit = next(_culprits(kind, params, space, point), None)
        if culprit is None:
            unexplained.append(point)
        else:
            told.setdefault(_place(culprit, point, search), (point[culprit.name], why))
    for point in unexplained:
        # Of two wrong choices neither is at fault alone; each is told for a point where it is.
        if not any(_place(parameter, point, search) in told for parameter in space if parameter.name in point):
            _add_plain(kind, _of_trial(params, point), class_name, name, findings)
    for place, (value, why) in told.items():
        shown = json.dumps(value).strip('"')
        found = f"{class_name} cannot be trained in rounds with {shown}: {why}"
        another = "no such choice" if "choice" in place else "a range without it"
        findings.add(("variants", name, "search", "space", *place), found, f"{another}, or compute.checkpoint: false")


def _place(parameter: Parameter, point: Mapping[str, Any], search: SearchSpec) -> _Place:
    """Return where below `space` a parameter's value at a point stands."""
    spec, value = search.space[parameter.name], point[parameter.name]
    if spec.choice is None:
        return parameter.name, "int" if spec.int is not None else "float"
    return parameter.name, "choice", next(i for i, one in enumerate(spec.choice) if same(one, value))


def _culprits(kind: Kind, params: Params, space: Sequence[Parameter], point: Mapping[str, Any]) -> Iterator[Parameter]:
    """Yield each parameter of the estimator in whose choice's place another one would do."""
    for parameter in space:
        if parameter.name not in point or len(parameter.choices) < 2 or not parameter.name.startswith(_PREFIX):
            continue
        others = ({**point, parameter.name: value} for value in parameter.choices)
        if any(not kind.obstacle(_of_trial(params, other)) for other in others):
            yield parameter


def _of_trial(params: Params, point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the estimator's parameters in a trial."""
    searched = {key.removeprefix(_PREFIX): value for key, value in point.items() if key.startswith(_PREFIX)}
    return {**params, **searched}


def _decisive_space(kind: Kind, space: Sequence[Parameter]) -> list[Parameter]:
    """Return the parameters that decide whether there are rounds, and those that their conditions are on.

    Of a range that no condition is on, the ends stand for all: no rule knows a number in between.
    """
    by_name = {parameter.name: parameter for parameter in space}
    wanted = {f"{_PREFIX}{name}" for name in kind.decided_by} & by_name.keys()
    conditions: set[str] = set()
    for parameter in reversed(space):  # a condition is on what was declared before
        if parameter.name in wanted | conditions:
            conditions |= parameter.when.keys()
    return [
        p if p.kind == "choice" or p.name in conditions else replace(p, kind="choice", choices=(p.low, p.high))
        for p in space
        if p.name in wanted | conditions
    ]
