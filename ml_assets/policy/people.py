"""Reads the file of the people who may decide, and refuses two people who cannot be told apart."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ml_assets.errors import Problem
from ml_assets.interfaces import Person, PublicKey
from ml_assets.policy.schema import KeyModel, PeopleModel, PersonModel, name_problem, shown_instant, validated
from ml_assets.reading import wording
from ml_assets.reading.findings import Document, Findings
from ml_assets.yaml_positions import PositionedYaml

NAME_PATTERN = r"^[a-z][a-z0-9._-]{0,62}$"
_NAME_WORDS = "a name of lower-case letters, digits, '.', '_' and '-' that starts with a letter (at most 63 characters)"


def read_people(document: PositionedYaml, problems: list[Problem], *, trial: bool = False) -> list[Person]:
    """Return the people of one file, as far as they are right; what is wrong goes to the problems.

    Args:
        document: The file.
        problems: Takes what is wrong.
        trial: Whether their keys were made on this machine to try things out.
    """
    findings = Findings(document=Document(file=document.file, line=document.line), problems=problems)
    validated(PeopleModel, document.data, (), findings)
    people = document.data.get("people") if isinstance(document.data, dict) else None
    found = []
    for name, body in (people if isinstance(people, dict) else {}).items():
        if name_problem(name, NAME_PATTERN):
            findings.add(("people", name), f"the name {wording.quoted(name)}", _NAME_WORDS)
        model = validated(PersonModel, body, ("people", name), findings)
        if model is not None:
            line = document.line(("people", name))
            found.append(_person(name, model, document, findings, trial=trial, line=line))
    return found


def _person(
    name: str, model: PersonModel, document: PositionedYaml, findings: Findings, *, trial: bool, line: int
) -> Person:
    for i, key in enumerate(model.keys):
        if key.expires is not None and key.expires <= key.effective_from:
            found = f"{shown_instant(key.expires)}, when the key begins on {shown_instant(key.effective_from)}"
            findings.add(("people", name, "keys", i, "expires"), found, "an instant after effective_from")
    return Person(
        name=name,
        logins=model.logins,
        roles=tuple(sorted(set(model.roles))),
        teams=tuple(sorted(set(model.teams))),
        keys=tuple(_key(key) for key in model.keys),
        file=document.file,
        line=line,
        trial=trial,
    )


def _key(model: KeyModel) -> PublicKey:
    return PublicKey(value=model.ed25519.lower(), effective_from=model.effective_from, expires=model.expires)


@dataclass(frozen=True)
class _Claims:
    """Who has which name, login and key so far."""

    holders: dict[tuple[str, str], Person] = field(default_factory=dict)

    def conflict(self, person: Person, kind: str, value: str) -> Person | None:
        """Return who has it already, or None after giving it to the person."""
        holder = self.holders.setdefault((kind, value), person)
        return None if holder is person else holder


def told_apart(people: Iterable[Person], problems: list[Problem]) -> dict[str, Person]:
    """Return people by name; a name, login or key of two people is a problem, since a deed must have one doer."""
    claims, found = _Claims(), {}
    for person in people:
        for kind, value in _identities(person):
            holder = claims.conflict(person, "key" if kind == "key" else "identity", value)
            if holder is not None and not (kind == "login" and value == person.name):
                problems.append(_shared(person, holder, kind, value))
        found.setdefault(person.name, person)
    return found


def _identities(person: Person) -> Iterator[tuple[str, str]]:
    yield "name", person.name
    yield from (("login", login) for login in person.logins)
    yield from (("key", key.value) for key in person.keys)


def _shared(person: Person, holder: Person, kind: str, value: str) -> Problem:
    place = f"{holder.file}:{holder.line}"
    words = {"name": "the name", "login": "the login", "key": "the key"}
    shown = f"{value[:8]}…" if kind == "key" else wording.quoted(value)
    return Problem(
        file=person.file,
        line=person.line,
        field=f"people.{person.name}",
        found=f"{words[kind]} {shown}, which {holder.name} ({place}) has too",
        expected="names, logins and keys that belong to one person",
        hint="remove one of the two",
    )
