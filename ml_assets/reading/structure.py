"""Reads a mapping into a PipelineSpec, and says in plain words what has a wrong form."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from ml_assets.reading import wording
from ml_assets.reading.draft import Draft, salvage
from ml_assets.reading.schema import attributes_schema
from ml_assets.spec.pipeline import PipelineSpec
from ml_assets.yaml_positions import YamlPath

MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """A field that is missing, unknown or of a wrong form.

    Attributes:
        path: Of the field.
        found: What stands there, in words.
        expected: What would be right, in words.
        hint: The next step, or empty.
        breaks: Whether the field cannot be read; an unknown field leaves its neighbours readable.
        told: Whether a reader is to see it; False when another flaw says the same.
    """

    path: YamlPath
    found: str
    expected: str
    hint: str = ""
    breaks: bool = True
    told: bool = True


def read_attributes(data: dict[str, Any]) -> tuple[Draft, list[Flaw]]:
    """Return a pipeline's description, as far as it can be read, and its flaws of form."""
    try:
        return Draft(spec=PipelineSpec.model_validate(data)), []
    except ValidationError as error:
        flaws = flaws_of(error, data, attributes_schema())
        return salvage(data, frozenset(flaw.path for flaw in flaws if flaw.breaks)), flaws


def flaws_of(error: ValidationError, data: Any, schema: Mapping[str, Any]) -> list[Flaw]:
    """Return one flaw for each field that a validation error is about.

    Args:
        error: Raised by validating `data`.
        data: The plain data as YAML gave it.
        schema: JSON schema of the model, with `$defs`.
    """
    seen = _Schema(schema, data)
    places = [_Place.of(entry, seen) for entry in error.errors(include_url=False)]
    paths = {place.path for place in places if not place.is_key}
    # Of a union every option that fails is told, so the field itself is told beside what is wrong inside it.
    parents = {path[:n] for path in paths for n in range(len(path))}
    flaws: dict[tuple[YamlPath, bool], Flaw] = {}
    for place in places:
        if place.is_key or place.path not in parents:
            flaws.setdefault((place.path, place.is_key), place.flaw(seen))
    # A required field that is missing because its name is misspelt is told once, at the misspelt name.
    meant = {(*p.path[:-1], _misspelt(p, seen)) for p in places if p.kind == "extra_forbidden"}
    return [replace(f, told=False) if f.found == MISSING and f.path in meant else f for f in flaws.values()]


class _Schema:
    """The schema and the data that it is about, walked together."""

    def __init__(self, schema: Mapping[str, Any], data: Any) -> None:
        self.definitions: Mapping[str, Any] = schema.get("$defs", {})
        self._schema, self._data = schema, data

    def node(self, path: YamlPath) -> Mapping[str, Any]:
        """Return the schema of a field, or an empty one when the field is unknown."""
        node: Mapping[str, Any] = self._schema
        for i, part in enumerate(path):
            node = self._child(self._option(node, self.value(path[:i])), part)
        return wording.resolved(node, self.definitions)

    def fields(self, path: YamlPath) -> Mapping[str, Any]:
        """Return the fields that a mapping may have, by name."""
        return self._option(self.node(path), self.value(path)).get("properties", {})

    def value(self, path: YamlPath) -> Any:
        """Return the data of a field, or None when there is none."""
        value: Any = self._data
        for part in path:
            container: Any = value
            fits = (isinstance(value, dict) and part in value) or (
                isinstance(value, list) and isinstance(part, int) and part < len(value)
            )
            value = container[part] if fits else None
        return value

    def is_union(self, path: YamlPath) -> bool:
        """Return whether pydantic names the option it tried after this path."""
        options = [option for option in self.node(path).get("anyOf", ()) if option.get("type") != "null"]
        return len(options) > 1

    def _option(self, node: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
        node = wording.resolved(node, self.definitions)
        kind = {list: "array", dict: "object"}.get(type(value))
        options = [wording.resolved(option, self.definitions) for option in node.get("anyOf", ())]
        return next((option for option in options if option.get("type") == kind), node)

    def _child(self, node: Mapping[str, Any], part: str | int) -> Mapping[str, Any]:
        if isinstance(part, int):
            return node.get("items", {})
        if part in node.get("properties", {}):
            return node["properties"][part]
        patterns = node.get("patternProperties", {})
        rest = node.get("additionalProperties")
        return next(iter(patterns.values()), rest if isinstance(rest, dict) else {})


@dataclass(frozen=True, kw_only=True)
class _Place:
    """One error of pydantic and the field it is about."""

    path: YamlPath
    kind: str
    is_key: bool
    reason: str

    @classmethod
    def of(cls, entry: Any, seen: _Schema) -> "_Place":
        path: YamlPath = ()
        is_key = False
        in_union = False
        for part in entry["loc"]:
            if not in_union and seen.is_union(path):
                in_union = True  # this part names the option, not a field
            elif part == "[key]" and path and "patternProperties" in seen.node(path[:-1]):
                is_key = True  # this part says that the name before it is wrong
            else:
                path, in_union = (*path, part), False
        cause = entry.get("ctx", {}).get("error")
        return cls(path=path, kind=entry["type"], is_key=is_key, reason=str(cause or entry["msg"]))

    def flaw(self, seen: _Schema) -> Flaw:
        """Return the error in words."""
        node = seen.node(self.path)
        value = seen.value(self.path)
        if self.is_key:
            return self._bad_name(seen)
        if self.kind == "extra_forbidden":
            return self._unknown_field(seen)
        if self.kind == "missing":
            hint = wording.first_sentence(node.get("description", ""))
            return Flaw(path=self.path, found=MISSING, expected=wording.expected(node, seen.definitions), hint=hint)
        if self.kind == "value_error" and isinstance(value, dict) and "properties" in node:
            found = f"has the fields {wording.listed(value)}"
            expected = self.reason.removesuffix(" must be given")
            return Flaw(path=self.path, found=found, expected=expected, breaks=False)
        return Flaw(
            path=self.path,
            found=wording.found(value),
            expected=wording.expected(node, seen.definitions),
            hint=wording.advice(value, node, seen.definitions),
        )

    def _bad_name(self, seen: _Schema) -> Flaw:
        pattern = next(iter(seen.node(self.path[:-1]).get("patternProperties", {"": None})))
        return Flaw(
            path=self.path,
            found=f"the name {wording.quoted(str(self.path[-1]))}",
            expected=wording.expected({"type": "string", "pattern": pattern}, {}),
            breaks=False,
        )

    def _unknown_field(self, seen: _Schema) -> Flaw:
        meant = _misspelt(self, seen)
        hint = f"did you mean {meant!r}?" if meant else ""
        return Flaw(
            path=self.path,
            found="unknown field",
            expected=wording.one_of(seen.fields(self.path[:-1]), hint),
            hint=hint,
            breaks=False,
        )


def _misspelt(place: _Place, seen: _Schema) -> str | None:
    """Return the absent field that an unknown one probably means."""
    present = seen.value(place.path[:-1]) or {}
    absent = [field for field in seen.fields(place.path[:-1]) if field not in present]
    return wording.closest(str(place.path[-1]), absent)
