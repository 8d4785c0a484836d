"""Reads a pipeline's expectations, in place or from a file beside it, and checks the columns they name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ml_assets.errors import SpecError
from ml_assets.interfaces import Expectation
from ml_assets.reading import wording
from ml_assets.reading.columns import Columns
from ml_assets.reading.draft import Draft
from ml_assets.reading.files import UnreadableError, read_text
from ml_assets.reading.findings import Document, Findings
from ml_assets.reading.schema import attributes_schema
from ml_assets.reading.structure import flaws_of
from ml_assets.spec.data import ExpectationSpec
from ml_assets.yaml_positions import YamlPath, load_yaml

Stage = Literal["raw_data", "features"]
RESERVED = ("row_id", "event_time", "label_time")
"""Columns that the feature table has beside the ones a pipeline names."""

_ONE_COLUMN = ("column", "column_A", "column_B")
_MANY_COLUMNS = ("column_list", "column_set")


@dataclass(frozen=True, kw_only=True)
class _Written:
    """One expectation, and where it stands."""

    spec: ExpectationSpec
    path: YamlPath
    document: Document


@dataclass(frozen=True, kw_only=True)
class _Table:
    """What expectations look at: a table in words, its columns (None when unknown), and columns elsewhere."""

    words: str
    names: list[str] | None
    others: Sequence[str] = ()


def read_expectations(
    draft: Draft, folder: Path, columns: Columns, findings: Findings
) -> tuple[tuple[Expectation, ...], tuple[Expectation, ...]]:
    """Return the expectations on raw data and on features, and record what is wrong with them.

    Args:
        draft: The description.
        folder: Where the pipeline's file lies; files of expectations are named relative to it.
        columns: Columns there are.
        findings: Takes the problems.
    """
    raw_data = list(_written(draft, "raw_data", folder, findings))
    features = list(_written(draft, "features", folder, findings))
    rows = list(columns.source) if draft.present("source", "columns") else None
    for written in raw_data:
        _check(written, _Table(words="the source", names=rows), findings)
    table = _Table(words="the feature table", names=_feature_table(draft, columns), others=columns.names())
    for written in features:
        _check(written, table, findings)
    return _values(raw_data), _values(features)


def _values(written: list[_Written]) -> tuple[Expectation, ...]:
    return tuple(Expectation(type=w.spec.type, kwargs=dict(w.spec.kwargs), severity=w.spec.severity) for w in written)


def _written(draft: Draft, stage: Stage, folder: Path, findings: Findings) -> Iterator[_Written]:
    path = ("expectations", stage)
    value = draft.at(*path)
    if isinstance(value, str):
        yield from _from_file(value, path, folder, findings)
        return
    for index, spec in draft.entries(*path):
        yield _Written(spec=spec, path=(*path, index), document=findings.document)


def _from_file(name: str, path: YamlPath, folder: Path, findings: Findings) -> Iterator[_Written]:
    file = folder / name
    try:
        text = read_text(file)
    except UnreadableError as error:
        findings.add(path, f"the file {wording.quoted(name)} {error}", "a YAML file with a list", error.hint)
        return
    try:
        document = load_yaml(text, file=str(file))
    except SpecError as error:
        findings.problems.extend(error.problems)
        return
    there = Document(file=str(file), line=document.line)
    try:
        specs = _list_of_specs().validate_python(document.data)
    except ValidationError as error:
        for flaw in flaws_of(error, document.data, _list_schema()):
            if flaw.told:
                findings.add(flaw.path, flaw.found, flaw.expected, flaw.hint, document=there)
        return
    for index, spec in enumerate(specs):
        yield _Written(spec=spec, path=(index,), document=there)


@cache
def _list_of_specs() -> TypeAdapter[list[ExpectationSpec]]:
    return TypeAdapter(list[ExpectationSpec])


@cache
def _list_schema() -> Mapping[str, Any]:
    definitions = attributes_schema()["$defs"]
    return {"type": "array", "items": definitions["ExpectationSpec"], "$defs": definitions}


def _check(written: _Written, table: _Table, findings: Findings) -> None:
    """Record a type that is no expectation's and columns that do not exist."""
    spec, document = written.spec, written.document
    if not spec.type.startswith("expect_"):
        found, expected = wording.found(spec.type), "a name that begins with expect_"
        hint = f"did you mean {'expect_' + spec.type!r}?" if spec.type.startswith("column") else ""
        findings.add((*written.path, "type"), found, expected, hint, document=document)
    for path, name in _columns(spec.kwargs):
        here = (*written.path, "kwargs", *path)
        if not isinstance(name, str):
            findings.add(here, wording.found(name), "the name of a column", document=document)
        elif table.names is not None and name not in table.names:
            hint = wording.did_you_mean(name, table.names)
            if name in table.others:
                hint = "name the column in features.columns, evaluation.slices or scoring.columns too"
            found = f"there is no column {wording.quoted(name)} in {table.words}"
            findings.add(here, found, wording.one_of(table.names, hint), hint, document=document)


def _columns(kwargs: Mapping[str, Any]) -> Iterator[tuple[YamlPath, Any]]:
    for key in _ONE_COLUMN:
        if key in kwargs:
            yield (key,), kwargs[key]
    for key in _MANY_COLUMNS:
        value = kwargs.get(key)
        if isinstance(value, list):
            yield from (((key, index), name) for index, name in enumerate(value))
        elif key in kwargs:
            yield (key,), value


def _feature_table(draft: Draft, columns: Columns) -> list[str] | None:
    """Return the columns of the feature table, or None when some are unknown or wrong themselves."""
    lists = (("features", "columns"), ("evaluation", "slices"), ("scoring", "columns"))
    single = (("label", "column"), ("evaluation", "baseline"))
    if not all(draft.sound(*path) for path in (*lists, *single)):
        return None
    names = [draft.at(*path) for path in single] + [name for path in lists for _, name in draft.entries(*path)]
    table = [name for name in dict.fromkeys(names) if name != "prior"]
    return [*RESERVED, *table] if columns.known and all(name in columns for name in table) else None
