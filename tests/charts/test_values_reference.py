"""The reference of the chart's values in step with its schema, and the schema with its defaults."""

import json
from typing import Any

import yaml

from tests.charts.rendering import CHART, ROOT
from tests.charts.values_reference import page

FILE = ROOT / "docs" / "reference" / "chart-values.md"


def test_the_reference_is_the_schema(update_golden: bool) -> None:
    if update_golden:
        FILE.write_text(page(), encoding="utf-8")

    assert FILE.read_text(encoding="utf-8") == page(), "write it anew with --update-golden"


def test_every_default_of_ours_is_in_the_schema_and_every_field_has_a_default() -> None:
    schema: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

    assert set(defaults) == set(schema["properties"])
    assert set(defaults["teamDefaults"]) == set(schema["properties"]["teamDefaults"]["properties"])
    team = schema["properties"]["teams"]["items"]["properties"]
    assert set(team) - {"name", "module"} == set(defaults["teamDefaults"])
    for name in ("quota", "largestStep", "codeServer", "runWorker"):
        assert set(defaults["teamDefaults"][name]) == set(schema["definitions"][name]["properties"])


def test_every_object_of_ours_is_closed() -> None:
    """A misspelt value is refused, not ignored; `global` and `dagster` are the official chart's as well."""

    def unclosed(node: Any, path: str) -> list[str]:
        found = []
        if isinstance(node, dict):
            if (
                node.get("type") == "object"
                and node.get("properties")
                and node.get("additionalProperties", True) is True
            ):
                found.append(path)
            for name, child in node.items():
                found += unclosed(child, f"{path}/{name}")
        return found

    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    open_ones = unclosed(schema, "")

    assert [path for path in open_ones if not path.startswith(("/properties/global", "/properties/dagster"))] == [
        "/definitions/program"
    ]
