"""Checks of a pipeline's source: its columns, keys, times, file names and side tables, against each other."""

import re
import zoneinfo
from collections.abc import Iterable, Iterator
from typing import Any

from ml_assets.reading import wording
from ml_assets.reading.columns import Columns
from ml_assets.reading.draft import Draft
from ml_assets.reading.findings import Findings
from ml_assets.spec.data import AsOfSpec, SideTableSpec
from ml_assets.yaml_positions import YamlPath

TIME_TYPES = ("timestamp", "date")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_GROUP_HINT = "name the groups in partitions.group, or remove the placeholder"
_GROUP_VALUE = re.compile(r"\w([\w .-]*[\w.-])?")


def check_source(draft: Draft, columns: Columns, findings: Findings) -> None:
    """Record what is wrong in `source` and `partitions.group`."""
    _check_url(draft, findings)
    _check_event_time(draft, columns, findings)
    _check_row_id(draft, findings)
    _check_combine(draft, findings)
    _check_group(draft, findings)
    for name, table in draft.entries("source", "side_tables"):
        _check_side_table(draft, name, table, findings)
    _check_side_names(draft, columns, findings)


def check_source_column(draft: Draft, path: YamlPath, name: str, findings: Findings) -> bool:
    """Return whether a source column exists, and record the problem when it does not."""
    if not draft.present("source", "columns"):
        return False
    names = draft.spec.source.columns
    return _check_name(path, name, names, f"no source column {wording.quoted(name)}", findings)


def _check_name(path: YamlPath, name: str, names: Iterable[str], absent: str, findings: Findings) -> bool:
    known = list(names)
    if name in known:
        return True
    hint = wording.did_you_mean(name, known)
    findings.add(path, f"there is {absent}", wording.one_of(known, hint), hint)
    return False


def repeated(entries: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Yield the (index, value) whose value stood earlier in the list already."""
    seen: set[Any] = set()
    for index, value in entries:
        if value in seen:
            yield index, value
        seen.add(value)


def check_distinct(draft: Draft, path: YamlPath, findings: Findings) -> None:
    """Record each value of a list that stands there twice."""
    for index, value in repeated(draft.entries(*path)):
        findings.add((*path, index), f"{wording.quoted(value)} a second time", "each value once")


def _check_url(draft: Draft, findings: Findings) -> None:
    path = ("source", "url")
    url = draft.at(*path)
    if url is None or not draft.sound("partitions", "group"):
        return
    needed = ["{time}"] if draft.spec.partitions.group is None else ["{time}", "{group}"]
    names = list(dict.fromkeys(_PLACEHOLDER.findall(url)))
    if set(names) != set(needed):
        others = [name for name in names if name not in needed]
        near = [hint for name in others if (hint := wording.did_you_mean(name, set(needed) - set(names)))]
        hint = _GROUP_HINT if "{group}" in others else " ".join(near)
        expected = f"{' and '.join(needed)}, and no other placeholder"
        findings.add(path, f"{wording.quoted(url)} has {' and '.join(names) or 'no placeholder'}", expected, hint)
    _check_braces(path, url, findings)


def _check_braces(path: YamlPath, url: str, findings: Findings) -> None:
    rest = _PLACEHOLDER.sub("", url)
    if "{" in rest or "}" in rest:
        findings.add(path, f"{wording.quoted(url)} has a brace without its pair", "braces in pairs")


def _check_event_time(draft: Draft, columns: Columns, findings: Findings) -> None:
    path = ("source", "event_time", "column")
    column = draft.at(*path)
    if column is not None and check_source_column(draft, path, column, findings):
        check_type(draft, path, column, TIME_TYPES, findings)
        if column in columns.after_event:
            found = f"{wording.quoted(column)} is declared `known: after_event`"
            findings.add(path, found, "a time that is known when the row happens")
    for field in ("timezone", "stored_in"):
        _check_timezone(("source", "event_time", field), draft.at("source", "event_time", field), findings)


def check_type(draft: Draft, path: YamlPath, column: str, types: tuple[str, ...], findings: Findings) -> None:
    """Record that a source column has none of the types that its use asks for."""
    kind = draft.at("source", "columns", column, "type")
    if kind is not None and kind not in types:
        findings.add(path, f"{wording.quoted(column)} is a {kind} column", f"a column of type {wording.either(types)}")


def _check_timezone(path: YamlPath, name: str | None, findings: Findings) -> None:
    if name is None:
        return
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        found = f"there is no time zone {wording.quoted(name)}"
        hint = wording.did_you_mean(name, zoneinfo.available_timezones())
        findings.add(path, found, "an IANA name such as Europe/Berlin or UTC", hint)


def _check_row_id(draft: Draft, findings: Findings) -> None:
    path = ("source", "row_id")
    for index, name in draft.entries(*path):
        check_source_column(draft, (*path, index), name, findings)
    check_distinct(draft, path, findings)


def _check_combine(draft: Draft, findings: Findings) -> None:
    row_id = {name for _, name in draft.entries("source", "row_id")}
    for name, _ in draft.entries("source", "combine"):
        path = ("source", "combine", name)
        if check_source_column(draft, path, name, findings) and name in row_id:
            found = f"{wording.quoted(name)} is part of source.row_id"
            findings.add(path, found, "a column that differs between rows with the same row id")


def _check_group(draft: Draft, findings: Findings) -> None:
    path = ("partitions", "group")
    if draft.present(*path) and draft.spec.partitions.group is None:
        return
    if (column := draft.at(*path, "column")) is not None:
        check_source_column(draft, (*path, "column"), column, findings)
    check_distinct(draft, (*path, "values"), findings)
    for index, value in draft.entries(*path, "values"):
        if not _GROUP_VALUE.fullmatch(value) or "..." in value:
            expected = "letters, digits, spaces, dots, hyphens and underscores, since it names files and partitions"
            findings.add((*path, "values", index), f"the group {wording.quoted(value)}", expected)


def _check_side_table(draft: Draft, name: str, table: SideTableSpec, findings: Findings) -> None:
    path = ("source", "side_tables", name)
    if placeholders := _PLACEHOLDER.findall(table.url):
        found = f"the placeholder {wording.quoted(placeholders[0])}"
        findings.add((*path, "url"), found, "one file for all partitions, without placeholders")
    for key, target in table.on.items():
        check_source_column(draft, (*path, "on", key), key, findings)
        _check_side_name((*path, "on", key), target, name, table, findings)
    if table.as_of is not None:
        _check_as_of(draft, (*path, "as_of"), name, table, table.as_of, findings)


def _check_side_name(path: YamlPath, column: str, name: str, table: SideTableSpec, findings: Findings) -> bool:
    absent = f"no column {wording.quoted(column)} in the side table {name}"
    return _check_name(path, column, table.columns, absent, findings)


def _check_as_of(
    draft: Draft, path: YamlPath, name: str, table: SideTableSpec, as_of: AsOfSpec, findings: Findings
) -> None:
    here = (*path, "time")
    if _check_side_name(here, as_of.time, name, table, findings):
        kind = table.columns[as_of.time].type
        if kind != "timestamp":
            findings.add(here, f"{wording.quoted(as_of.time)} is a {kind} column", "a timestamp column")
    if as_of.row_time is not None:
        here = (*path, "row_time")
        if check_source_column(draft, here, as_of.row_time, findings):
            check_type(draft, here, as_of.row_time, ("timestamp",), findings)


def _check_side_names(draft: Draft, columns: Columns, findings: Findings) -> None:
    made: dict[str, str] = {}
    for table, spec in draft.entries("source", "side_tables"):
        for column in spec.columns:
            name = f"{table}_{column}"
            path = ("source", "side_tables", table, "columns", column)
            other = "a source column" if name in columns.source else made.get(name)
            if other is not None:
                found = f"it is offered as {wording.quoted(name)}, which is also {other}"
                findings.add(path, found, "one column of that name", "rename the table or the column")
            made.setdefault(name, f"column {column} of side table {table}")
