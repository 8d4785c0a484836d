"""The reference of a pipeline's YAML as Markdown, made from its JSON schema: every field, in the order of the file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ml_assets.metrics import METRICS, Metric
from ml_assets.reading import wording
from ml_assets.reading.schema import COMPONENT, pipeline_schema

UNITS = {
    "source.side_tables.<table>.as_of.tolerance": "min, h, d or w",
    "features.history": "time partitions",
    "label.known_after": "min, h, d or w",
    "training.window": "time partitions",
    "training.validation_periods": "time partitions",
    "training.single_period_validation": "fraction of days",
    "training.min_rows": "rows",
    "training.seed": "none",
    "variants.<variant>.preprocessing.min_frequency": "rows",
    "variants.<variant>.compute.cores": "processor cores",
    "variants.<variant>.compute.memory_gib": "GiB",
    "variants.<variant>.compute.gpus": "graphics processors",
    "variants.<variant>.compute.time_limit": "min, h, d or w",
    "variants.<variant>.search.trials": "trials",
    "variants.<variant>.search.parallel": "trials",
    "variants.<variant>.search.workers": "steps",
    "variants.<variant>.search.folds": "time partitions, or blocks of days",
    "variants.<variant>.search.time_limit": "min, h, d or w",
    "variants.<variant>.search.space.<parameter>.step": "the parameter's",
    "evaluation.confidence": "fraction",
    "evaluation.replicates": "replicates",
    "freshness.features": "min, h, d or w",
    "freshness.predictions": "min, h, d or w",
    "freshness.warn_after": "fraction of the time span",
}
"""Unit of each number and time span, by path; a test holds it against the schema."""

_NAMES = {
    "columns": "<column>",
    "side_tables": "<table>",
    "variants": "<variant>",
    "tolerations": "<n>",
    "node_selector": "<label>",
    "space": "<parameter>",
    "raw_data": "<n>",
    "features": "<n>",
}
_COLUMNS = ("field", "type", "default", "unit", "description")
_HEAD = (
    "# The pipeline's YAML",
    "",
    "Every field of a `defs.yaml`, made from the JSON schema that `ml-assets schema` prints. Do not edit this page;",
    "`pytest tests/unit/test_docs.py --update-golden` writes it anew.",
    "",
    "A field without a default is required. Unknown fields are refused, and nothing is converted: a number in quotes",
    "is a text. A path such as `source.columns.<column>.type` begins below `attributes`. `<column>`, `<table>` and",
    "`<variant>` are names that you choose, `<n>` is a place in a list.",
    "",
)
_METRICS_HEAD = (
    "",
    "## Metrics",
    "",
    "What `selection.metric`, `evaluation.metrics` and `gates` may name, in scikit-learn's words where it has one.",
    "",
    "| metric | tasks | better | unit | definition |",
    "| --- | --- | --- | --- | --- |",
)


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the description.

    Attributes:
        name: Its definition in the schema.
        paths: Where it stands, such as ("source.columns.<column>",); a part may stand in several places.
        node: Its schema.
    """

    name: str
    paths: tuple[str, ...]
    node: Mapping[str, Any]


def pipeline_reference() -> str:
    """Return the whole page."""
    schema = pipeline_schema()
    parts = sections(schema["$defs"])
    lines = [*_HEAD, "## The file", "", *_table(Section(name="", paths=("",), node=schema), parts, schema["$defs"])]
    for part in parts:
        lines += ["", f"## `{part.paths[0] or 'attributes'}`", "", part.node["description"]]
        if part.paths[1:]:
            lines += ["", f"The same fields: {', '.join(f'`{path}`' for path in part.paths[1:])}."]
        lines += ["", *_table(part, parts, schema["$defs"])]
    lines += [*_METRICS_HEAD, *(_metric(metric) for metric in METRICS.values())]
    return "\n".join(lines) + "\n"


def sections(definitions: Mapping[str, Any]) -> list[Section]:
    """Return the parts of a description, outermost first, each once with all its paths.

    Args:
        definitions: The schema's `$defs`.
    """
    found: dict[str, list[str]] = {}
    for name, path in _walk("PipelineSpec", "", definitions):
        found.setdefault(name, []).append(path)
    return [Section(name=name, paths=tuple(paths), node=definitions[name]) for name, paths in found.items()]


def measured_paths(definitions: Mapping[str, Any]) -> set[str]:
    """Return the paths of fields that hold a number or a time span, and so need a unit."""
    return {
        _join(part.paths[0], name)
        for part in sections(definitions)
        for name, field in part.node["properties"].items()
        if any(_is_measured(option) for option in field.get("anyOf", [field]))
    }


def _walk(name: str, path: str, definitions: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield name, path
    for field, node in definitions[name]["properties"].items():
        for child, suffix in _children(field, node):
            yield from _walk(child, _join(path, field) + suffix, definitions)


def _children(field: str, node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (definition, what its path has beside the field's) for each part that a field holds."""
    for option in node.get("anyOf", [node]):
        if "$ref" in option:
            yield _definition(option), ""
        for below in (option.get("items"), option.get("additionalProperties"), *_named(option)):
            if isinstance(below, Mapping) and "$ref" in below:
                yield _definition(below), f".{_NAMES[field]}"


def _named(node: Mapping[str, Any]) -> Iterator[Any]:
    yield from node.get("patternProperties", {}).values()


def _definition(node: Mapping[str, Any]) -> str:
    return node["$ref"].rpartition("/")[2]


def _is_measured(node: Mapping[str, Any]) -> bool:
    return node.get("type") in {"integer", "number"} or "min|h|d|w" in node.get("pattern", "")


def _table(part: Section, parts: list[Section], definitions: Mapping[str, Any]) -> list[str]:
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'|'.join(' --- ' for _ in _COLUMNS)}|"]
    required = part.node.get("required", ())
    for name, field in part.node["properties"].items():
        path = _join(part.paths[0], name)
        default = "required" if name in required else _default(field)
        kind = _type(path, field, parts, definitions)
        cells = (f"`{path}`", kind, default, UNITS.get(path, ""), _escaped(field["description"]))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _type(path: str, field: Mapping[str, Any], parts: list[Section], definitions: Mapping[str, Any]) -> str:
    if path == "type":
        return f"text, such as `{COMPONENT}`"
    child, suffix = next(_children(path.rpartition(".")[2], field), ("", ""))
    if not child:
        return wording.expected(field, definitions)
    anchor = next(_anchor(part.paths[0]) for part in parts if part.name == child)
    return f"{wording.expected(field, definitions)} ([fields](#{anchor}))" if suffix else f"[a mapping](#{anchor})"


def _anchor(path: str) -> str:
    """Return the anchor that a Markdown reader makes of a part's heading."""
    return path.translate(str.maketrans("", "", ".<>")) or "attributes"


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    if value is None:
        return "none"
    return "empty" if value == "" else f"`{json.dumps(value, ensure_ascii=False)}`"


def _escaped(text: str) -> str:
    """Return a description as a cell: no cell border, and <name> not taken for HTML."""
    return text.replace("|", "\\|").replace("<", "\\<")


def _metric(metric: Metric) -> str:
    better = "nearer to 0" if metric.zero_is_best else "higher" if metric.greater_is_better else "lower"
    unit = "the label's" if metric.unit == "target" else metric.unit
    return f"| `{metric.name}` | {', '.join(metric.tasks)} | {better} | {unit} | {metric.description} |"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
