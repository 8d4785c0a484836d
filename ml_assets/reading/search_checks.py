"""Checks of a variant's search: its space against the estimator, its conditions, and what sampler and grid can do."""

import json
import math
from typing import Any, get_args

from ml_assets.compute import settled
from ml_assets.metrics import METRICS
from ml_assets.reading import wording
from ml_assets.reading.draft import Draft
from ml_assets.reading.estimators import EstimatorNotFoundError, find_estimator
from ml_assets.reading.findings import Findings
from ml_assets.search_space import GRID_LIMIT, count_of, grid_size, parameters_of, same, value_at
from ml_assets.spec import ParameterSpec, PreprocessingSpec, SearchSpec
from ml_assets.yaml_positions import YamlPath

_FORMS = ("float", "int", "choice")


def check_search(draft: Draft, variant: str, findings: Findings) -> None:
    """Record what is wrong in `variants.<variant>.search`."""
    path = ("variants", variant, "search")
    if not draft.present(*path) or draft.spec.variants[variant].search is None:
        return
    _check_metric(draft, path, findings)
    _check_parallel(draft, path, findings)
    known = len(findings.problems)
    for name, spec in draft.entries(*path, "space"):
        place = (*path, "space", name)
        _check_name(draft, variant, name, place, findings)
        before = len(findings.problems)
        _check_values(place, spec, findings)
        if len(findings.problems) == before:
            _check_preprocessing(name, spec, place, findings)
    if draft.sound(*path, "space"):
        _check_conditions(path, draft.spec.variants[variant].search, findings)  # pyright: ignore[reportArgumentType]
    if draft.sound(*path) and len(findings.problems) == known:
        _check_trials(path, draft.spec.variants[variant].search, findings)  # pyright: ignore[reportArgumentType]


def _check_metric(draft: Draft, path: YamlPath, findings: Findings) -> None:
    name, task = draft.at(*path, "metric"), draft.at("label", "task")
    if name is None:
        return
    offered = [metric.name for metric in METRICS.values() if task is None or task in metric.tasks]
    if name not in offered:
        hint = wording.did_you_mean(name, offered)
        where = f" for {task}" if task else ""
        found = f"there is no metric {wording.quoted(name)}{where}"
        findings.add((*path, "metric"), found, wording.one_of(offered, hint), hint)


def _check_parallel(draft: Draft, path: YamlPath, findings: Findings) -> None:
    parallel, workers = draft.at(*path, "parallel"), draft.at(*path, "workers") or 1
    compute = draft.at(*path[:2], "compute")
    if parallel is None:
        return
    if workers > parallel:
        found = f"{workers} workers for {wording.count(parallel, 'trial')} at once: some would have nothing to do"
        findings.add((*path, "workers"), found, "at most search.parallel", f"set parallel to {workers}")
    elif compute is not None and compute.profile is None:  # else compute_checks knows the profile's cores
        cores, at_once = settled(compute).cores, -(-parallel // workers)
        if at_once > cores:
            found = f"{at_once} trials at once on {wording.count(cores, 'core')}"
            hint = f"set compute.cores to {at_once}"
            findings.add((*path, "parallel"), found, "at most compute.cores of all workers together", hint)


def _check_name(draft: Draft, variant: str, name: str, place: YamlPath, findings: Findings) -> None:
    part, _, key = name.partition(".")
    if not key:
        return  # told as a name of a wrong form
    if part == "preprocessing":
        owner, params = "preprocessing", tuple(PreprocessingSpec.model_fields)
    else:
        path = draft.at("variants", variant, "estimator")
        if path is None or getattr(draft.spec.variants[variant], "train", None) is not None:
            return  # a function of the team's own takes what it likes
        try:
            estimator = find_estimator(path)
        except EstimatorNotFoundError:
            return  # told where the estimator stands
        if estimator.params is None:
            return
        owner, params = estimator.name, estimator.params
    if key not in params:
        hint = wording.did_you_mean(key, params)
        findings.add(place, f"{owner} has no parameter {wording.quoted(key)}", wording.one_of(params, hint), hint)
    elif key == "random_state":
        found = "the seed is searched, and trials would differ by luck"
        findings.add(place, found, "only what makes a model better", "training.seed is every trial's random_state")


def _check_values(place: YamlPath, spec: ParameterSpec, findings: Findings) -> None:
    given = [form for form in _FORMS if getattr(spec, form) is not None]
    if len(given) != 1:
        found = f"has {wording.listed(given)}" if given else "says no values"
        findings.add(place, found, "exactly one of float, int and choice")
    elif spec.choice is not None:
        _check_choices((*place, "choice"), spec.choice, findings)
        for field in ("log", "step"):
            if getattr(spec, field):
                findings.add((*place, field), f"{field} of a choice", f"no {field}: it is for ranges")
    else:
        _check_range(place, given[0], spec, findings)


def _check_choices(path: YamlPath, choices: tuple[Any, ...], findings: Findings) -> None:
    for index, value in enumerate(choices):
        if not _is_plain(value):
            expected = "a number, a text, true, false, null, or a list of these"
            findings.add((*path, index), wording.found(value), expected)
        elif any(same(value, earlier) for earlier in choices[:index]):
            findings.add((*path, index), f"{wording.found(value)} stands there twice", "each choice once")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) and not isinstance(item, list | tuple) for item in value)
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _check_range(place: YamlPath, form: str, spec: ParameterSpec, findings: Findings) -> None:
    bounds, path = getattr(spec, form), (*place, form)
    shown = f"[{', '.join(f'{number:g}' for number in bounds)}]"
    if len(bounds) != 2 or not all(map(math.isfinite, bounds)) or bounds[0] >= bounds[1]:
        findings.add(path, shown, "[lowest, highest] with the lowest below the highest")
        return
    low, high = bounds
    if spec.log and low <= 0:
        findings.add(
            path, f"{shown} on a logarithmic scale", "a lowest value above 0", "leave log out, or start above 0"
        )
    if spec.step is None:
        return
    if spec.log:
        findings.add((*place, "step"), "a step on a logarithmic scale", "either step or log")
    elif spec.step > high - low:
        findings.add((*place, "step"), f"a step of {spec.step:g} in {shown}", f"a step of at most {high - low:g}")
    elif form == "int" and spec.step != int(spec.step):
        findings.add((*place, "step"), f"a step of {spec.step:g} between whole numbers", "a whole number")


def _check_preprocessing(name: str, spec: ParameterSpec, place: YamlPath, findings: Findings) -> None:
    """Check that a field of `preprocessing` can have the values that are searched."""
    part, _, key = name.partition(".")
    field = PreprocessingSpec.model_fields.get(key)
    if part != "preprocessing" or field is None:
        return
    words = get_args(field.annotation)
    if not words:
        if spec.int is None or spec.int[0] < 1:
            findings.add(place, "other values than rows", "a range of whole numbers from 1, such as int: [5, 50]")
        return
    if spec.choice is None:
        findings.add(place, "a range of numbers", f"choice: [{', '.join(words)}]")
        return
    for index, value in enumerate(spec.choice):
        if value not in words:
            hint = wording.did_you_mean(str(value), words)
            findings.add((*place, "choice", index), wording.found(value), wording.one_of(words, hint), hint)


def _check_conditions(path: YamlPath, search: SearchSpec, findings: Findings) -> None:
    order = list(search.space)
    for index, (name, spec) in enumerate(search.space.items()):
        for other, values in spec.when.items():
            place = (*path, "space", name, "when", other)
            if other not in search.space:
                hint = wording.did_you_mean(other, order[:index])
                expected = wording.one_of(order[:index], hint) if index else "a parameter declared before it"
                findings.add(place, f"{wording.quoted(other)} is not searched", expected, hint)
            elif other not in order[:index]:
                found = "itself" if other == name else f"{other}, which is declared later"
                findings.add(
                    place, f"a condition on {found}", f"a parameter declared before {name}", "change the order"
                )
            else:
                _check_condition(place, search.space[other], values, findings)


def _check_condition(place: YamlPath, on: ParameterSpec, values: tuple[Any, ...], findings: Findings) -> None:
    if on.float is not None and on.step is None:
        findings.add(place, "a condition on a continuous range", "one on a choice, or on a range with a step")
        return
    sound = Findings(document=findings.document)
    _check_values((), on, sound)
    if sound.problems:
        return  # told where the other parameter stands
    parameter = parameters_of(SearchSpec.model_construct(space={"p": on}))[0]
    count = min(count_of(parameter) or 0, GRID_LIMIT)
    possible = [value_at(parameter, index) for index in range(count)]
    for index, value in enumerate(values):
        if not any(same(value, one) for one in possible):
            found = f"{wording.found(value)}, which it never is"
            findings.add((*place, index), found, f"one of {wording.listed(map(_in_yaml, possible), most=8)}")


def _in_yaml(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _check_trials(path: YamlPath, search: SearchSpec, findings: Findings) -> None:
    """Check `trials` and the space against the sampler."""
    if search.sampler != "grid":
        if search.trials is None:
            findings.add((*path, "trials"), "missing", "how many sets of parameters to try", "20 is a good beginning")
        return
    space = parameters_of(search)
    endless = [parameter for parameter in space if count_of(parameter) is None]
    for parameter in endless:
        place = (*path, "space", parameter.name)
        findings.add(place, "a continuous range in a grid", "a step, an int or a choice", "or take another sampler")
    if endless:
        return
    size = grid_size(space)
    if size > GRID_LIMIT:
        found = f"a grid of more than {GRID_LIMIT:,} points"
        findings.add((*path, "space"), found, f"at most {GRID_LIMIT:,}", "widen the steps, or take sampler: tpe")
    elif search.trials is not None and search.trials > size:
        found, expected = f"{search.trials} trials of a grid of {size} points", f"at most {size}, or nothing for all"
        findings.add((*path, "trials"), found, expected)
