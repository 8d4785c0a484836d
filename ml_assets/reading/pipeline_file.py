"""Reads a pipeline's description and checks all of it, so that each mistake is told on load."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ml_assets.errors import Problem, SpecError
from ml_assets.features.module import FeatureModule
from ml_assets.interfaces import ComputeRules, Expectation, StepResources
from ml_assets.reading import wording
from ml_assets.reading.columns import columns_of
from ml_assets.reading.compute_checks import RulesReader, check_compute
from ml_assets.reading.draft import Draft
from ml_assets.reading.expectations import read_expectations
from ml_assets.reading.feature_checks import check_features
from ml_assets.reading.feature_module import check_functions, load_features
from ml_assets.reading.files import UnreadableError, read_text
from ml_assets.reading.findings import Document, Findings
from ml_assets.reading.learning_checks import check_learning
from ml_assets.reading.period_checks import check_periods
from ml_assets.reading.schema import COMPONENT, COMPONENT_PATTERN, TOP_LEVEL
from ml_assets.reading.source_checks import check_source
from ml_assets.reading.structure import read_attributes
from ml_assets.reading.train_functions import read_train_functions
from ml_assets.spec.pipeline import PipelineSpec
from ml_assets.trainers.functions import TrainFunction
from ml_assets.yaml_positions import PositionedYaml, YamlPath, load_yaml

_ATTRIBUTES = "attributes"


@dataclass(frozen=True, kw_only=True)
class LoadedPipeline:
    """A pipeline without problems, and all that reading it brought up.

    Attributes:
        spec: Its description.
        component: Dotted path of the component class that its YAML names.
        file: The file it was read from.
        folder: Where the files it names lie.
        features: Its feature functions.
        raw_data_expectations: What must hold of arrived rows, from the file itself or a file it names.
        features_expectations: What must hold of the feature table, from the same places.
        used_columns: Source and side-table columns that it needs at all.
        compute: Variant → what its training step gets. Read without rules, profiles count for nothing.
        train_functions: Variant → the team's own function that trains it, of those that have one.
        line: Gives the 1-based line of a field's path, such as ("label", "column"); 0 for one made in Python.
    """

    spec: PipelineSpec
    component: str
    file: Path
    folder: Path
    features: FeatureModule
    raw_data_expectations: tuple[Expectation, ...]
    features_expectations: tuple[Expectation, ...]
    used_columns: frozenset[str]
    compute: Mapping[str, StepResources]
    train_functions: Mapping[str, TrainFunction]
    line: Callable[[YamlPath], int] = field(repr=False, compare=False)


def read_pipeline(file: Path, rules: RulesReader | None = None) -> LoadedPipeline:
    """Return the pipeline that a YAML file describes.

    Args:
        file: The file.
        rules: Reads the compute profiles that policy has, only if the file asks for any; None to leave them alone.

    Raises:
        SpecError: If anything is wrong with the file or the files it names, or it asks for more than the rules give its
            team; it holds every problem.
        PolicyError: If nothing else is wrong, and the rules cannot be read.
    """
    try:
        text = read_text(file)
    except UnreadableError as error:
        expected = "a pipeline's YAML file"
        problem = Problem(file=str(file), line=0, field="", found=str(error), expected=expected, hint=error.hint)
        raise SpecError([problem]) from error
    yaml = load_yaml(text, file=str(file))
    findings = Findings(document=Document(file=str(file), line=lambda path: yaml.line((_ATTRIBUTES, *path))))
    attributes = _attributes(
        yaml, Findings(document=Document(file=str(file), line=yaml.line), problems=findings.problems)
    )
    if attributes is None:
        raise SpecError(findings.problems)
    draft, flaws = read_attributes(attributes)
    for flaw in flaws:
        if flaw.told:
            findings.add(flaw.path, flaw.found, flaw.expected, flaw.hint)
    component = yaml.data.get("type", COMPONENT)
    return _checked(draft, file.parent, file, component, findings, rules)


def check_pipeline(
    spec: PipelineSpec, folder: Path, *, file: Path | None = None, rules: RulesReader | None = None
) -> LoadedPipeline:
    """Return a pipeline that was described in Python, after the checks that a YAML file gets.

    Args:
        spec: The description.
        folder: Where the files it names lie.
        file: The Python file, named in problems; the folder is named when absent.
        rules: As of `read_pipeline`.

    Raises:
        SpecError: If anything is wrong with it; problems name the field, and the file without a line.
        PolicyError: As `read_pipeline`.
    """
    place = folder if file is None else file
    findings = Findings(document=Document(file=str(place), line=lambda _: 0))
    return _checked(Draft(spec=spec), folder, place, COMPONENT, findings, rules)


def with_compute(loaded: LoadedPipeline, rules: ComputeRules) -> LoadedPipeline:
    """Return a pipeline that was read without rules, with what each variant gets by the rules.

    Raises:
        SpecError: If a variant asks for more than they give its team; it holds every problem.
    """
    findings = Findings(document=Document(file=str(loaded.file), line=loaded.line))
    found = check_compute(Draft(spec=loaded.spec), findings, lambda: rules)
    if findings.problems:
        raise SpecError(findings.problems)
    return replace(loaded, compute=found)


def _attributes(yaml: PositionedYaml, findings: Findings) -> dict[str, Any] | None:
    """Return the mapping under `attributes`, or None; records problems of the top level."""
    if not isinstance(yaml.data, dict):
        expected = f"a mapping with the fields {wording.listed(TOP_LEVEL)}"
        found = "an empty file" if yaml.data is None else wording.found(yaml.data)
        findings.add((), found, expected)
        return None
    for key in yaml.data:
        if key not in TOP_LEVEL:
            hint = wording.did_you_mean(key, TOP_LEVEL)
            findings.add((key,), "unknown field", wording.one_of(TOP_LEVEL, hint), hint)
    _check_component(yaml.data, findings)
    if not isinstance(yaml.data.get(_ATTRIBUTES), dict):
        found = wording.found(yaml.data[_ATTRIBUTES]) if _ATTRIBUTES in yaml.data else "missing"
        findings.add((_ATTRIBUTES,), found, "a mapping that describes the pipeline")
        return None
    return yaml.data[_ATTRIBUTES]


def _check_component(data: dict[str, Any], findings: Findings) -> None:
    expected = f"{COMPONENT}, or the dotted path of a subclass such as .component.MyPipeline"
    if "type" not in data:
        findings.add(("type",), "missing", expected)
        return
    name = data["type"]
    if not isinstance(name, str) or not re.fullmatch(COMPONENT_PATTERN, name):
        findings.add(("type",), wording.found(name), expected)
    elif name.rpartition(".")[0] == COMPONENT.rpartition(".")[0] and name != COMPONENT:
        found = f"there is no component {wording.quoted(name)}"
        findings.add(("type",), found, expected, wording.did_you_mean(name, [COMPONENT]))


def _checked(
    draft: Draft, folder: Path, file: Path, component: str, findings: Findings, rules: RulesReader | None
) -> LoadedPipeline:
    """Run every check on what is sound and return the pipeline, or raise all problems at once."""
    features = load_features(draft, folder, findings)
    columns = columns_of(draft, None if features is None else features.functions)
    check_source(draft, columns, findings)
    check_periods(draft, findings)
    check_learning(draft, findings)
    train_functions = read_train_functions(draft, folder, findings)
    raw_data, on_features = read_expectations(draft, folder, columns, findings)
    shown = _shown(draft, features, folder)
    check_features(draft, columns, shown, findings)
    if features is not None:
        check_functions(features, shown, columns, findings)
    compute = check_compute(draft, findings, rules)  # last: rules that cannot be read are told after all else
    if findings.problems or features is None:
        raise SpecError(findings.problems)
    return LoadedPipeline(
        spec=draft.spec,
        component=component,
        file=file,
        folder=folder,
        features=features,
        raw_data_expectations=raw_data,
        features_expectations=on_features,
        used_columns=columns.inputs_of(_named_columns(draft.spec)),
        compute=compute,
        train_functions=train_functions,
        line=findings.document.line,
    )


def _shown(draft: Draft, features: FeatureModule | None, folder: Path) -> str:
    """Return the feature module's file the way the pipeline's own file was given."""
    name = draft.at("features", "module")
    if name is not None and name.endswith(".py"):
        return str(folder / name)
    return "" if features is None else str(features.file)


def _named_columns(spec: PipelineSpec) -> list[str]:
    """Return the columns that a description names outside its expectations and side tables."""
    names = [*spec.features.columns, spec.label.column, *spec.source.row_id, spec.source.event_time.column]
    names += [*spec.evaluation.slices, *spec.scoring.columns, spec.evaluation.baseline]
    names += [] if spec.label.known_at is None else [spec.label.known_at]
    return names if spec.partitions.group is None else [*names, spec.partitions.group.column]
