"""The form of policy files: strict models, and what is wrong in plain words with file and line."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, WithJsonSchema

from ml_assets.interfaces import Severity
from ml_assets.policy.catalogue import ROLE_PATTERN
from ml_assets.reading import wording
from ml_assets.reading.findings import Findings
from ml_assets.reading.structure import MISSING, flaws_of
from ml_assets.spec.model import Identifier, ListOf, SpecModel
from ml_assets.yaml_positions import YamlPath

INSTANT_WORDS = "a date such as 2026-01-01 (midnight UTC), or an instant with its zone such as 2026-01-01T12:00:00Z"
TEXT_WORDS = "a text that is not empty"
_EXPECTED = {
    "owner": TEXT_WORDS,
    "reason": TEXT_WORDS,
    "effective_from": INSTANT_WORDS,
    "expires": INSTANT_WORDS,
    "ed25519": "the 64 hexadecimal digits of an Ed25519 public key",
    "roles[]": "a name of lower-case letters, digits and underscores",
    "teams[]": 'the name of a team, or "*" for all',
    "logins[]": TEXT_WORDS,
}
_INSTANTS = ("effective_from", "expires")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

Model = TypeVar("Model", bound=SpecModel)


def parse_instant(text: Any) -> datetime:
    """Return the instant of a date (midnight UTC) or of an ISO 8601 instant with its zone, in UTC.

    >>> parse_instant("2026-01-01"), parse_instant("2026-01-01T12:00:00+02:00").hour
    (datetime.datetime(2026, 1, 1, 0, 0, tzinfo=datetime.timezone.utc), 10)

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(text, str) and _DATE.fullmatch(text):
        day = date.fromisoformat(text)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    instant = datetime.fromisoformat(text) if isinstance(text, str) else None
    if instant is None or instant.tzinfo is None:
        raise ValueError(f"must be {INSTANT_WORDS}")
    try:
        return instant.astimezone(UTC)
    except OverflowError as error:  # an offset on the first or last day of the calendar
        raise ValueError(f"must be {INSTANT_WORDS}") from error


def shown_instant(instant: datetime) -> str:
    """Return an instant as a file would have it: a date when it is midnight UTC."""
    text = instant.astimezone(UTC).isoformat()
    return text.removesuffix("T00:00:00+00:00").replace("+00:00", "Z")


Instant = Annotated[datetime, BeforeValidator(parse_instant), WithJsonSchema({"type": "string", "format": "date-time"})]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class PolicyModel(SpecModel):
    """The head of a policy file."""

    owner: Text
    """Who answers for the file; an entry may name another."""
    effective_from: Instant | None = None
    """From when its entries hold, unless one says otherwise; a date is midnight UTC."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings by name: a mapping, or a list of dated versions."""


class TeamPolicyModel(PolicyModel):
    """The head of a team's file."""

    domain: Identifier | None = None
    """Domain that the team belongs to: a file of `domains/`."""


class EntryModel(SpecModel):
    """One version of one setting."""

    value: Any
    """What holds, in the setting's own unit."""
    reason: Text
    """Why it has this value; shown to whoever meets it."""
    severity: Severity = "error"
    """For a gate: a failed `error` closes it, a `warning` is shown only."""
    locked: bool = False
    """Lower levels may only tighten it."""
    unwaivable: bool | None = None
    """For a gate: nobody may waive it."""
    owner: Text | None = None
    """Who answers for this entry; the file's owner when it is left out."""
    effective_from: Instant | None = None
    """From when it holds; the file's when it is left out."""
    expires: Instant | None = None
    """When it ends; never when it is left out. What it covered, such as an older version, holds again then."""


class KeyModel(SpecModel):
    """One public key of a person."""

    ed25519: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")]
    """The 32 bytes of an Ed25519 public key as hexadecimal digits."""
    effective_from: Instant
    """From when what it signs counts."""
    expires: Instant | None = None
    """From when what it signs no longer counts; what it signed before still does."""


class PersonModel(SpecModel):
    """Somebody who may decide."""

    logins: Annotated[tuple[Text, ...], ListOf] = ()
    """Names under which the person launches runs, beside the own one."""
    roles: Annotated[tuple[Annotated[str, StringConstraints(pattern=ROLE_PATTERN)], ...], ListOf] = ()
    """Such as model_reviewer."""
    teams: Annotated[tuple[Annotated[str, StringConstraints(pattern=r"^(\*|[a-z][a-z0-9_]{0,62})$")], ...], ListOf] = ()
    """Teams for which the roles hold; "*" for all."""
    keys: Annotated[tuple[KeyModel, ...], ListOf] = ()
    """Public keys, one at least to decide anything."""


class PeopleModel(SpecModel):
    """The file of the people."""

    owner: Text
    """Who answers for the file."""
    people: dict[str, Any] = Field(default_factory=dict)
    """People by name."""


def validated(
    model: type[Model], data: Any, path: YamlPath, findings: Findings, words: Mapping[str, str] | None = None
) -> Model | None:
    """Return data as a model, or None after telling every field that has a wrong form.

    Args:
        model: What is expected.
        data: As YAML gave it.
        path: Where it stands in the document.
        findings: Takes the problems.
        words: What is expected of a field by its name, where the schema cannot say it.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        expected = {**_EXPECTED, **(words or {})}
        for flaw in flaws_of(error, data, _schema(model)):
            if flaw.told:
                field = _field(flaw.path) if flaw.found != "unknown field" else ""
                # A date without quotes is text already; a number in its place is none with quotes either.
                hint = "" if field in _INSTANTS and flaw.found != MISSING else flaw.hint
                findings.add((*path, *flaw.path), flaw.found, expected.get(field, flaw.expected), hint)
        return None


def _field(path: YamlPath) -> str:
    """Return a field's own name; with [] for an item of it."""
    if len(path) > 1 and isinstance(path[-1], int):
        return f"{path[-2]}[]"
    return str(path[-1]) if path else ""


@cache
def _schema(model: type[SpecModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    for node in (schema, *schema.get("$defs", {}).values()):
        for field in node.get("properties", {}).values():
            field["description"] = " ".join(field.get("description", "").split())
    return schema


def name_problem(name: str, pattern: str) -> str:
    """Return in words what a name should be when it does not match a pattern, or nothing."""
    return "" if re.fullmatch(pattern, name) else wording.expected({"type": "string", "pattern": pattern}, {})
