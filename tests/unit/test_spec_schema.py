"""The JSON schema of a pipeline's YAML: complete, and in agreement with what is read."""

import doctest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ml_assets.reading import wording
from ml_assets.reading.schema import pipeline_schema
from ml_assets.yaml_positions import load_yaml

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "golden" / "spec_errors"
FORM_CASES = (
    "unknown_and_missing_fields",
    "wrong_types",
    "values_out_of_range",
    "names_and_formats",
    "top_level",
    "search_form",
)
DEPLOYED = sorted((ROOT / "deployments").glob("*/defs/*/defs.yaml"))


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(pipeline_schema())


def loaded(file: Path) -> Any:
    return load_yaml(file.read_text(encoding="utf-8"), file=str(file)).data


def fields() -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """Yield (owner, name, schema, whether required) of every field."""
    schema = pipeline_schema()
    for owner, node in {"file": schema, **schema["$defs"]}.items():
        for name, field in node.get("properties", {}).items():
            yield owner, name, field, name in node.get("required", ())


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(pipeline_schema())


def test_there_are_deployments() -> None:
    assert DEPLOYED


@pytest.mark.parametrize("file", [*DEPLOYED, CASES / "base" / "defs.yaml"], ids=lambda file: file.parent.name)
def test_valid_files_fit(file: Path) -> None:
    assert [error.message for error in validator().iter_errors(loaded(file))] == []


@pytest.mark.parametrize("case", FORM_CASES)
def test_files_of_a_wrong_form_do_not_fit(case: str) -> None:
    assert list(validator().iter_errors(loaded(CASES / case / "defs.yaml")))


def test_every_field_has_a_description() -> None:
    without = [f"{owner}.{name}" for owner, name, field, _ in fields() if not field.get("description", "").strip()]

    assert without == []


def test_every_field_has_a_type() -> None:
    without = [f"{o}.{n}" for o, n, field, _ in fields() if not {"type", "$ref", "anyOf", "enum", "const"} & set(field)]

    assert without == []


def test_every_optional_field_has_a_default_and_no_required_one() -> None:
    wrong = [f"{owner}.{name}" for owner, name, field, required in fields() if ("default" in field) == required]

    assert wrong == []


def test_every_mapping_refuses_unknown_fields() -> None:
    schema = pipeline_schema()
    nodes = {"file": schema, **schema["$defs"]}

    assert [name for name, node in nodes.items() if node["additionalProperties"] is not False] == []


def test_limits_on_length_are_those_of_lists_and_mappings() -> None:
    definitions = pipeline_schema()["$defs"]

    assert definitions["FeaturesSpec"]["properties"]["columns"]["minItems"] == 1
    assert definitions["PipelineSpec"]["properties"]["variants"]["minProperties"] == 1


def test_every_pattern_has_words() -> None:
    def patterns(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("pattern"), str):
                yield node["pattern"]
            yield from node.get("patternProperties", {})
            for child in node.values():
                yield from patterns(child)
        elif isinstance(node, list):
            for child in node:
                yield from patterns(child)

    definitions = pipeline_schema()["$defs"]
    words = {pattern: wording.expected({"type": "string", "pattern": pattern}, {}) for pattern in patterns(definitions)}

    assert words
    assert [pattern for pattern, text in words.items() if "^" in text] == []


def test_two_schemas_are_equal_and_apart() -> None:
    first = pipeline_schema()
    first["properties"]["type"]["pattern"] = "changed"
    first["$defs"]["LabelSpec"]["description"] = "changed"

    assert pipeline_schema()["properties"]["type"]["pattern"] != "changed"
    assert pipeline_schema()["$defs"]["LabelSpec"]["description"] != "changed"


def test_examples_of_the_wording_hold() -> None:
    result = doctest.testmod(wording)

    assert result.attempted > 0
    assert result.failed == 0
