"""The JSON schema of a pipeline's YAML file, for editors and for the words of error messages."""

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

from ml_assets.spec.pipeline import PipelineSpec

COMPONENT = "ml_assets.components.TrainingPipeline"
"""The type a pipeline's YAML names unless a team wrote a subclass."""

COMPONENT_PATTERN = r"^\.{0,2}[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$"
"""Dotted path of a component class; a leading dot makes it relative to the YAML's folder."""

TOP_LEVEL = {
    "type": "Component that builds the pipeline's assets: ml_assets.components.TrainingPipeline, or the "
    "dotted path of a subclass such as .component.MyPipeline.",
    "attributes": "The pipeline.",
    "requirements": "Requirements of the component, as Dagster defines them; passed on to Dagster.",
    "post_processing": "Changes to the component's assets, as Dagster defines them; passed on to Dagster.",
}
"""Keys of the file and what they mean; `template_vars_module` is none, since no text is a template here."""


@cache
def attributes_schema() -> dict[str, Any]:
    """Return the JSON schema of `attributes`; the caller must not change it."""
    schema = PipelineSpec.model_json_schema()
    definitions = schema["$defs"]
    for node in _nodes(schema):
        _tidy(node, definitions)
    return schema


def pipeline_schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a defs.yaml, each field with description, type and default."""
    attributes = deepcopy(attributes_schema())
    definitions = attributes.pop("$defs")
    name = PipelineSpec.__name__
    fields: dict[str, dict[str, Any]] = {key: {"description": text} for key, text in TOP_LEVEL.items()}
    fields["type"] |= {"type": "string", "pattern": COMPONENT_PATTERN, "examples": [COMPONENT]}
    fields["attributes"] |= {"$ref": f"#/$defs/{name}"}
    fields["requirements"] |= {"type": "object", "default": {}}
    fields["post_processing"] |= {"type": "object", "default": {}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Training pipeline",
        "description": "One pipeline of ml_assets: from arriving partitions to models and predictions.",
        "type": "object",
        "properties": fields,
        "required": ["type", "attributes"],
        "additionalProperties": False,
        "$defs": {**definitions, name: attributes},
    }


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema in a schema, itself first."""
    if not isinstance(node, dict):
        return
    yield node
    for key in ("properties", "patternProperties", "$defs"):
        for child in node.get(key, {}).values():
            yield from _nodes(child)
    for key in ("items", "additionalProperties", "propertyNames"):
        yield from _nodes(node.get(key))
    for child in node.get("anyOf", ()):
        yield from _nodes(child)


def _tidy(node: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Correct what pydantic writes for this package's lists and mappings, and drop what says nothing."""
    node.pop("title", None)
    if "description" in node:
        node["description"] = " ".join(node["description"].split())
    kind = node.get("type")
    # A limit behind a before-validator is written as that of a text.
    if kind in {"array", "object"} and "minLength" in node:
        node["minItems" if kind == "array" else "minProperties"] = node.pop("minLength")
    if kind == "object" and "patternProperties" in node:
        node["additionalProperties"] = False
    for name, child in node.get("properties", {}).items():
        if name not in node.get("required", ()) and "default" not in child:
            child["default"] = {} if child.get("type") == "object" else None
        if "$ref" in child:  # left out when it is that of the definition
            child.setdefault("description", definitions[child["$ref"].rpartition("/")[2]].get("description", ""))
    _describe_default(node, definitions)


def _describe_default(node: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Write a nested default as the empty mapping that a person would write."""
    refers = [option["$ref"] for option in (node, *node.get("anyOf", ())) if "$ref" in option]
    if refers and isinstance(node.get("default"), dict):
        fields = definitions[refers[0].rpartition("/")[2]]
        if not fields.get("required"):
            node["default"] = {}
