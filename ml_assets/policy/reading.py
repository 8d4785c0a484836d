"""Reads one policy file into its entries, and tells everything that is wrong in it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ml_assets.errors import Problem
from ml_assets.interfaces import Level, Setting
from ml_assets.policy.catalogue import CATALOGUE, Definition, as_value
from ml_assets.policy.schema import (
    INSTANT_WORDS,
    EntryModel,
    PolicyModel,
    TeamPolicyModel,
    shown_instant,
    validated,
)
from ml_assets.policy.tree import Entry, PolicyFile
from ml_assets.reading import wording
from ml_assets.reading.findings import Document, Findings
from ml_assets.yaml_positions import PositionedYaml, YamlPath

_GATE_FIELDS = ("severity", "unwaivable")
_NO_MAPPING = f"a mapping with the fields {', '.join(EntryModel.model_fields)}, or a list of them"


def read_policy_file(
    document: PositionedYaml, level: Level, scope: tuple[str, ...], problems: list[Problem]
) -> PolicyFile:
    """Return what a file sets, as far as it is right; what is wrong goes to the problems."""
    findings = Findings(document=Document(file=document.file, line=document.line), problems=problems)
    model = TeamPolicyModel if level == "team" else PolicyModel
    head = _Head.of(validated(model, document.data, (), findings), document.data)
    settings = document.data.get("settings") if isinstance(document.data, dict) else None
    reader = _Entries(document, level, head, findings)
    entries = [
        entry for name, body in (settings if isinstance(settings, dict) else {}).items() for entry in reader(name, body)
    ]
    return PolicyFile(
        level=level,
        scope=scope,
        file=document.file,
        domain=head.domain,
        domain_line=document.line(("domain",)) if head.domain else 0,
        entries=tuple(entries),
    )


@dataclass(frozen=True, kw_only=True)
class _Head:
    """What a file says for all its entries."""

    owner: str = ""
    domain: str | None = None
    effective_from: datetime | None = None
    dated: bool = False
    """Whether the file says anything of a date, right or wrong: if not, each entry must."""

    @classmethod
    def of(cls, model: PolicyModel | None, data: Any) -> "_Head":
        """Return the head of a right file, or stand-ins of a wrong one: its problems are told already."""
        if model is None:
            return cls(dated=not isinstance(data, dict) or wording.closest("effective_from", data) is not None)
        domain = model.domain if isinstance(model, TeamPolicyModel) else None
        dated = model.effective_from is not None
        return cls(owner=model.owner, domain=domain, effective_from=model.effective_from, dated=dated)


class _Entries:
    """Checks the settings of one file, each against the catalogue."""

    def __init__(self, document: PositionedYaml, level: Level, head: _Head, findings: Findings) -> None:
        self._document, self._head, self._findings = document, head, findings
        self._level: Level = level

    def __call__(self, name: str, body: Any) -> list[Entry]:
        """Return the versions of a setting that are right."""
        path: YamlPath = ("settings", name)
        definition = CATALOGUE.get(name)
        if definition is None:
            self._unknown(path, name)
            return []
        if not isinstance(body, dict | list) or not body:
            self._findings.add(path, wording.found(body), _NO_MAPPING)
            return []
        bodies = [(path, body)] if isinstance(body, dict) else [((*path, i), item) for i, item in enumerate(body)]
        entries = [entry for at, item in bodies if (entry := self._entry(at, item, definition)) is not None]
        return list(self._each_date_once(path, entries))

    def _unknown(self, path: YamlPath, name: str) -> None:
        hint = wording.did_you_mean(name, CATALOGUE) or "`ml-assets policy explain TEAM/PIPELINE` lists what there is"
        self._findings.add(path, "unknown setting", wording.one_of(CATALOGUE, hint), hint)

    def _entry(self, path: YamlPath, body: Any, definition: Definition) -> Entry | None:
        told = len(self._findings.problems)
        model = validated(EntryModel, body, path, self._findings, words={"value": definition.expected})
        if isinstance(body, dict):
            self._check_value(path, body, definition)
            self._check_gate_fields(path, body, definition)
            self._check_date(path, body)
        if model is None or len(self._findings.problems) > told:
            return None
        begins = model.effective_from or self._head.effective_from
        if begins is not None and model.expires is not None and model.expires <= begins:
            found = f"{shown_instant(model.expires)}, when the entry begins on {shown_instant(begins)}"
            self._findings.add((*path, "expires"), found, "an instant after effective_from")
            return None
        setting = Setting(
            name=definition.name,
            value=as_value(model.value),
            kind=definition.kind,
            severity=model.severity,
            reason=model.reason,
            owner=model.owner or self._head.owner,
            level=self._level,
            file=self._document.file,
            line=self._document.line(path),
            locked=model.locked,
            unwaivable=bool(model.unwaivable),
            effective_from=begins,
            expires=model.expires,
        )
        return Entry(setting=setting, waivable=model.unwaivable is False)

    def _check_value(self, path: YamlPath, body: Mapping[str, Any], definition: Definition) -> None:
        value = body.get("value")
        if "value" not in body or definition.accepts(value):
            return
        here: YamlPath = (*path, "value")
        if definition.is_set and isinstance(value, list):
            for i, found in definition.wrong_entries(value):
                self._findings.add((*here, i), found, definition.entry_words)
        else:
            hint = wording.advice(value, definition.schema, {})
            self._findings.add(here, wording.found(value), definition.expected, hint)

    def _check_gate_fields(self, path: YamlPath, body: Mapping[str, Any], definition: Definition) -> None:
        for name in _GATE_FIELDS if not definition.gate else ():
            if name in body:
                expected = f"no {name}, since {definition.name} is not a gate"
                self._findings.add((*path, name), wording.found(body[name]), expected, "remove it")

    def _check_date(self, path: YamlPath, body: Mapping[str, Any]) -> None:
        if not self._head.dated and "effective_from" not in body:
            hint = "write it at the top of the file for all entries"
            self._findings.add((*path, "effective_from"), "missing", INSTANT_WORDS, hint)

    def _each_date_once(self, path: YamlPath, entries: list[Entry]) -> Iterator[Entry]:
        """Yield entries that begin at different instants; others would leave open which one counts."""
        first: dict[datetime | None, Setting] = {}
        for entry in entries:
            begins = entry.setting.effective_from
            known = first.setdefault(begins, entry.setting)
            if known is entry.setting:
                yield entry
            elif begins is not None:
                found = f"a second version from {shown_instant(begins)} on"
                place = f"{entry.setting.file}:{known.line}"
                self._findings.add_at(
                    entry.setting.file,
                    entry.setting.line,
                    ".".join(map(str, path)),
                    found,
                    "versions that begin at different instants",
                    f"the first is {place}",
                )
