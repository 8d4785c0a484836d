"""The strict base of every part of a pipeline's description, and the types its fields share."""

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ml_assets.spec.field_docs import field_docs

TaskType = Literal["binary", "multiclass", "regression"]
ColumnType = Literal["bool", "int8", "int16", "int32", "int64", "float32", "float64", "string", "date", "timestamp"]

_DURATION = re.compile(r"^(\d{1,6})(min|h|d|w)$")  # more digits would overflow a timedelta
_UNITS = {"min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class SpecModel(BaseModel):
    """A frozen part of the description: unknown fields are refused and nothing is coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe each field in the JSON schema by the docstring below it."""
        schema = handler(core_schema)
        fields = handler.resolve_ref_schema(schema)["properties"]
        for name, text in field_docs(cls).items():
            if name in fields:
                fields[name].setdefault("description", text)
        return schema


def parse_duration(text: Any) -> timedelta:
    """Return the time span of "90min", "12h", "1d" or "2w".

    Raises:
        ValueError: If `text` is not a whole number followed by one of these units.
    """
    if isinstance(text, timedelta):
        return text
    match = _DURATION.match(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("must be a whole number and a unit (min, h, d or w), such as 12h")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    WithJsonSchema({"type": "string", "pattern": _DURATION.pattern, "examples": ["90min", "12h", "1d", "2w"]}),
]
"""A time span, written as a whole number and a unit: 90min, 12h, 1d, 2w."""

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
"""Lower-case letters, digits and underscores, starting with a letter; at most 63 characters."""

ListOf = BeforeValidator(_as_tuple)
"""Marks a tuple field that YAML writes as a list."""
