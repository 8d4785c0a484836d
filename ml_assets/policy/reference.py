"""The reference of policies as Markdown: the fields of the files, and every setting of the catalogue."""

import re
from collections.abc import Iterator
from typing import Any

from ml_assets.metrics import METRICS
from ml_assets.policy.catalogue import CATALOGUE, Definition, shown
from ml_assets.policy.merge import WHICH_WAY
from ml_assets.policy.schema import (
    INSTANT_WORDS,
    EntryModel,
    KeyModel,
    PeopleModel,
    PersonModel,
    TeamPolicyModel,
)
from ml_assets.spec.model import SpecModel

_HEAD = """# Policies

The files of a policy tree and every setting, made from the code that reads them. Do not edit this page;
`pytest tests/unit/test_policy_reference.py --update-golden` writes it anew. How they are used is told in
[policies and gates](../guides/policies-and-gates.md).

## Files

| file | level | speaks for |
|---|---|---|
| `organization.yaml` | organization | everybody; the one file that must be there |
| `domains/<domain>.yaml` | domain | the teams whose file names the domain |
| `teams/<team>.yaml` | team | the team's pipelines |
| `pipelines/<team>/<pipeline>.yaml` | pipeline | one pipeline |
| `people.yaml` | | who may decide |
| `compute.yaml` | | [what steps may use, and what it costs](compute.md) |

Names are lower-case letters, digits and underscores. Hidden files, `*.md`, `CODEOWNERS` and `LICENSE` are passed over;
any other file or folder is a problem, so that nothing is overlooked."""

_TYPES = {
    "owner": "text",
    "reason": "text",
    "effective_from": "date or instant",
    "expires": "date or instant",
    "settings": "mapping",
    "domain": "name",
    "value": "as the setting asks",
    "severity": "`error` or `warning`",
    "locked": "`true` or `false`",
    "unwaivable": "`true` or `false`",
    "people": "mapping",
    "logins": "list of texts",
    "roles": "list of names",
    "teams": "list of names",
    "keys": "list of mappings",
    "ed25519": "64 hexadecimal digits",
}
_PARTS: tuple[tuple[str, str, type[SpecModel]], ...] = (
    ("A policy file", "", TeamPolicyModel),
    ("A setting in a file", "settings.<name>.", EntryModel),
    ("`people.yaml`", "", PeopleModel),
    ("A person", "people.<name>.", PersonModel),
    ("A key", "people.<name>.keys[].", KeyModel),
)
_DEFAULTS = {
    "severity": "`error`",
    "locked": "`false`",
    "unwaivable": "`false`",
    "settings": "none",
    "people": "nobody",
    "owner": "the file's",
}


def policy_reference() -> str:
    """Return the whole page."""
    lines = [_HEAD]
    for title, prefix, model in _PARTS:
        lines += ["", f"## {title}", "", "| field | type | default | meaning |", "|---|---|---|---|"]
        lines += [_field(prefix, name, node, model) for name, node in _properties(model).items()]
    lines += ["", f"A date or instant is {INSTANT_WORDS}. `domain` stands in a team's file only."]
    lines += ["", "## Directions", "", "What a lower level may do to a setting that an upper level locks:", ""]
    lines += ["| direction | a lower level may only |", "|---|---|"]
    lines += [f"| {kind} | {way} |" for kind, way in WHICH_WAY.items()]
    lines += ["", "## Settings of each metric", "", *_metric_lines()]
    lines += ["", "## Other settings", "", *_table(d for d in CATALOGUE.values() if not _is_of_metric(d))]
    return "\n".join(lines) + "\n"


def _properties(model: type[SpecModel]) -> dict[str, Any]:
    return model.model_json_schema()["properties"]


def _field(prefix: str, name: str, node: dict[str, Any], model: type[SpecModel]) -> str:
    default = _DEFAULTS.get(name, "none")
    if name in model.model_json_schema().get("required", ()):
        default = "required"
    if name == "effective_from" and default != "required":
        default = "required in the file or the entry"
    text = _escaped(" ".join(node.get("description", "").split()))
    return f"| `{prefix}{name}` | {_TYPES[name]} | {default} | {text} |"


def _metric_lines() -> Iterator[str]:
    yield "For each metric: " + ", ".join(f"`{name}`" for name in METRICS) + "."
    yield "[Their definitions](pipeline-yaml.md#metrics). None has a default; a pipeline needs those it names under"
    yield "`gates`, and the margin of its `selection.metric`. Gates may have a `severity` and be `unwaivable`."
    yield ""
    yield "| setting | direction | values | gate | meaning |"
    yield "|---|---|---|---|---|"
    for definition in CATALOGUE.values():
        metric, _, rule = definition.name.partition(".")
        if metric == next(iter(METRICS)):
            values = "within the metric's bounds" if rule in {"floor", "ceiling"} else definition.expected
            gate = "yes" if definition.gate else ""
            yield f"| `<metric>.{rule}` | {definition.kind} | {values} | {gate} | {_escaped(definition.description)} |"


def _table(definitions: Iterator[Definition]) -> Iterator[str]:
    yield "| setting | direction | values | unit | default | meaning |"
    yield "|---|---|---|---|---|---|"
    for d in definitions:
        values = re.sub("^a list, each entry once: ", "list: ", d.expected)
        cells = (f"`{d.name}`", d.kind, values, d.unit, f"`{shown(d.default)}`", _escaped(d.description))
        yield f"| {' | '.join(cells)} |"


def _is_of_metric(definition: Definition) -> bool:
    return definition.name.partition(".")[0] in METRICS


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")
