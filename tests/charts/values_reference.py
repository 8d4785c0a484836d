"""The reference of the chart's values, as a page made of its schema and its defaults."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ml_assets.cli.chart_values import FOLDER
from tests.charts.rendering import CHART

HEAD = f"""# Values of the chart

Made of `{FOLDER}/chart/values.schema.json` and the defaults beside it. An installation's own values
stand in `{FOLDER}/values.yaml`; `ml-assets deploy check` tells what is wrong in them by line. Below
`dagster` stand the values of the official Dagster chart that `ml_assets` relies on; all its others can be set too.
[Run it on Kubernetes](../guides/kubernetes.md) says how they belong together.

| value | default | meaning |
|---|---|---|
"""


def page() -> str:
    """Return the whole page."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    rows = sorted_rows(schema, defaults)
    return HEAD + "".join(f"| `{path}` | {default} | {meaning} |\n" for path, default, meaning in rows)


def sorted_rows(schema: Mapping[str, Any], defaults: Any) -> list[tuple[str, str, str]]:
    """Return (path, default, meaning) of each value that has a meaning of its own, in the schema's order."""
    return list(_rows(schema, schema, defaults, ""))


def _rows(node: Mapping[str, Any], schema: Mapping[str, Any], value: Any, path: str) -> Iterator[tuple[str, str, str]]:
    for name, child in _fields(node, schema).items():
        below = value.get(name) if isinstance(value, Mapping) else None
        here = f"{path}.{name}" if path else name
        meaning = _meaning(child, schema)
        if meaning:
            yield here, _default(below), meaning
        yield from _rows(child, schema, below, here)
        if here == "teams":
            yield from _team_rows(child["items"]["properties"], schema)
        elif items := _resolved(child, schema).get("items"):
            yield from _rows(items, schema, None, f"{here}[]")
        if isinstance(each := _resolved(child, schema).get("additionalProperties"), Mapping) and "properties" in each:
            yield from _rows(each, schema, None, f"{here}.NAME")


def _team_rows(fields: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    common = schema["properties"]["teamDefaults"]["properties"]
    for name, child in fields.items():
        default = f"`teamDefaults.{name}`" if name in common else "none"
        yield f"teams[].{name}", default, _meaning(common.get(name, child), schema)


def _fields(node: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(_resolved(node, schema).get("properties", {}))
    return {**found, **{name: child for name, child in node.get("properties", {}).items() if name not in found}}


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    for reference in [node, *node.get("allOf", ())]:
        if "$ref" in reference:
            return schema["definitions"][reference["$ref"].rpartition("/")[2]]
    return node


def _meaning(node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    return node.get("description") or _resolved(node, schema).get("description", "")


def _default(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, Mapping) or (isinstance(value, list) and isinstance(value[0], Mapping)):
        return "see below" if isinstance(value, Mapping) else ", ".join(f"`{one['name']}`" for one in value)
    return f"`{json.dumps(value, ensure_ascii=False)}`".replace('`"', "`").replace('"`', "`")
