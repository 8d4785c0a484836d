"""The reference of policies/compute.yaml as Markdown, made from the models that read it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ml_assets.policy.compute_schema import (
    AgeingModel,
    AmountsModel,
    ComputeModel,
    ProfileModel,
    SpotModel,
    TeamModel,
)
from ml_assets.reading import wording
from ml_assets.spec import TolerationSpec
from ml_assets.spec.field_docs import field_docs
from ml_assets.spec.model import SpecModel

_HEAD = """# Compute profiles

Every field of `compute.yaml` in a policy tree, made from the code that reads it. Do not edit this page;
`pytest tests/unit/test_compute_reference.py --update-golden` writes it anew. What the fields do is told in
[compute](../concepts/compute.md). Without the file there are no profiles and no limits. Unknown fields are refused; a
name of a profile is lower-case letters, digits and hyphens."""

_PARTS: tuple[tuple[str, str, type[SpecModel]], ...] = (
    ("The file", "", ComputeModel),
    ("A profile", "profiles.<profile>.", ProfileModel),
    ("A profile on spot nodes", "profiles.<profile>.on_spot.", SpotModel),
    ("A toleration", "profiles.<profile>.tolerations.<n>.", TolerationSpec),
    ("A team", "teams.<team>.", TeamModel),
    ("Amounts: `capacity`, and a team's `reserve` and `limit`", "capacity.", AmountsModel),
    ("Ageing", "ageing.", AgeingModel),
)


def compute_reference() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *(line for part in _PARTS for line in _section(*part))]) + "\n"


def _section(title: str, prefix: str, model: type[SpecModel]) -> Iterator[str]:
    schema, docs = model.model_json_schema(), field_docs(model)
    yield from ("", f"## {title}", "", "| field | type | default | meaning |", "|---|---|---|---|")
    for name, node in schema["properties"].items():
        meaning = " ".join(docs.get(name, "").split()).replace("|", "\\|")
        kind = "a mapping" if _is_part(node) else wording.expected(node, schema.get("$defs", {}))
        default = "required" if name in schema.get("required", ()) else _default(node)
        yield f"| `{prefix}{name}` | {kind} | {default} | {meaning} |"


def _is_part(node: Mapping[str, Any]) -> bool:
    return "$ref" in node or node.get("type") == "object"


def _default(node: Mapping[str, Any]) -> str:
    value = node.get("default")
    return "none" if value in (None, [], {}) or isinstance(value, dict) else f"`{json.dumps(value)}`"
