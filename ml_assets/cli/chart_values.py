"""Reads a cluster installation's Helm values and tells what is wrong in them by line, before Helm is asked."""

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ml_assets.errors import Problem, SpecError
from ml_assets.reading import wording
from ml_assets.reading.files import UnreadableError, read_text
from ml_assets.yaml_positions import PositionedYaml, YamlPath, dotted, load_yaml

FOLDER = Path("deployments", "kubernetes")
"""Where a project keeps its installation: `values.yaml`, and the chart in `chart/`."""


@dataclass(frozen=True, kw_only=True)
class ChartValues:
    """The values of an installation.

    Attributes:
        document: Its own file, with lines.
        merged: The chart's defaults with what the file sets, as Helm merges them.
        schema: What the chart allows.
    """

    document: PositionedYaml
    merged: Mapping[str, Any] = field(repr=False)
    schema: Mapping[str, Any] = field(repr=False)

    def teams(self) -> dict[str, dict[str, Any]]:
        """Return each team's entry over the defaults of all teams, by name; of a file without problems."""
        defaults = self.merged["teamDefaults"]
        return {team["name"]: _merged(defaults, team) for team in self.merged["teams"]}

    def problem(self, path: YamlPath, found: str, expected: str, hint: str = "") -> Problem:
        """Return a problem at a place of the file."""
        place = self.document.line(path)
        return Problem(
            file=self.document.file, line=place, field=dotted(path), found=found, expected=expected, hint=hint
        )


def read_chart_values(root: Path, *, text: str | None = None) -> ChartValues:
    """Return the values of a project's installation.

    Args:
        root: The project's root.
        text: Content to read in place of the file's.

    Raises:
        SpecError: If a file cannot be read, or the installation's is no plain YAML mapping.
    """
    file, chart = FOLDER / "values.yaml", root / FOLDER / "chart"
    try:
        document = load_yaml(read_text(root / file) if text is None else text, file=str(file))
        defaults = yaml.safe_load(read_text(chart / "values.yaml"))
        schema = json.loads(read_text(chart / "values.schema.json"))
    except UnreadableError as error:
        expected = "values.yaml of the installation, and its chart in chart/"
        raise SpecError([Problem(file=str(FOLDER), line=0, field="", found=str(error), expected=expected)]) from error
    if not isinstance(document.data, dict):
        found = wording.found(document.data)
        raise SpecError([Problem(file=str(file), line=1, field="", found=found, expected="a mapping of values")])
    return ChartValues(document=document, merged=_merged(defaults, document.data), schema=schema)


def form_problems(values: ChartValues) -> list[Problem]:
    """Return what the chart's schema refuses, in the order of the file, each place once."""
    from jsonschema import Draft7Validator

    found: dict[tuple[str, str], Problem] = {}
    for error in Draft7Validator(values.schema).iter_errors(values.merged):
        for problem in _problems_of(error, values):
            found.setdefault((problem.field, problem.found), problem)
    return sorted(found.values(), key=lambda problem: (problem.line, problem.field))


def _problems_of(error: Any, values: ChartValues) -> Iterator[Problem]:
    path: YamlPath = tuple(error.absolute_path)
    node = error.schema
    if "propertyNames" in error.absolute_schema_path:
        names = wording.quoted(error.instance)
        yield values.problem((*path, error.instance), f"the name {names}", _expected(node, values.schema))
    elif error.validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                wanted = node.get("properties", {}).get(name) or node.get("additionalProperties") or {}
                yield values.problem((*path, name), "nothing", _expected(wanted, values.schema))
    elif error.validator == "additionalProperties":
        known = list(node["properties"])
        for name in sorted(set(error.instance) - set(known)):
            hint = wording.did_you_mean(name, known)
            yield values.problem((*path, name), "an unknown field", wording.one_of(known, hint), hint)
    else:
        yield values.problem(path, wording.found(error.instance), _expected(node, values.schema))


def _expected(node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return what a node of the chart's schema asks for, in words."""
    if "expected" in node:
        return node["expected"]
    for reference in [node, *node.get("allOf", ())]:
        if "$ref" in reference:
            return _expected(schema["definitions"][reference["$ref"].rpartition("/")[2]], schema)
    if "const" in node:
        return json.dumps(node["const"])
    if isinstance(node.get("type"), list):  # a variable's value
        return "text, a number, or true or false"
    return wording.expected(node, schema["definitions"])


def _merged(below: Any, above: Any) -> Any:
    """Return two levels of values as Helm merges them: mappings by key, all else from above; null removes a key."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return deepcopy(above)
    merged: dict[str, Any] = {key: deepcopy(value) for key, value in below.items() if key not in above}
    merged |= {key: _merged(below.get(key), value) for key, value in above.items() if value is not None}
    return merged


def sorted_problems(problems: Sequence[Problem]) -> list[Problem]:
    """Return problems in the order in which a reader meets them."""
    return sorted(problems, key=lambda problem: (problem.file, problem.line, problem.field))
