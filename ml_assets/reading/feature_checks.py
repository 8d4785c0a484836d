"""Checks of the columns a model learns from: that they exist, and that none knows the future."""

from ml_assets.reading import wording
from ml_assets.reading.columns import Columns
from ml_assets.reading.draft import Draft
from ml_assets.reading.expectations import RESERVED
from ml_assets.reading.findings import Findings
from ml_assets.reading.source_checks import TIME_TYPES, check_distinct, check_type
from ml_assets.yaml_positions import YamlPath

_ANY_COLUMN = "a feature function, source column or side-table column"
_OWN_COLUMN = "a feature function or source column"
_NUMBERS = ("int8", "int16", "int32", "int64", "float32", "float64")
_LABEL_TYPES = {
    "binary": ("bool", *_NUMBERS),
    "multiclass": ("string", "bool", "int8", "int16", "int32", "int64"),
    "regression": _NUMBERS,
}
_PAST_HINT = "mark the function @reads_past if it takes values of earlier rows alone"


def check_features(draft: Draft, columns: Columns, shown: str, findings: Findings) -> None:
    """Record what is wrong with the columns that features, label, evaluation and scoring name.

    Args:
        draft: The description.
        columns: Columns there are.
        shown: The feature module's file as a reader would open it.
        findings: Takes the problems.
    """
    _check_label(draft, columns, findings)
    for path in (("features", "columns"), ("evaluation", "slices"), ("scoring", "columns")):
        check_distinct(draft, path, findings)
        for index, name in draft.entries(*path):
            _check_name((*path, index), name, columns, _ANY_COLUMN, findings)
    baseline = draft.at("evaluation", "baseline")
    if baseline not in {None, "prior"}:
        _check_name(("evaluation", "baseline"), baseline, columns, f"prior, {_ANY_COLUMN}", findings)
    for index, name in draft.entries("features", "columns"):
        path = ("features", "columns", index)
        _check_model_column(draft, path, name, columns, findings)
        _check_past(draft, path, name, columns, shown, findings)
    if baseline not in {None, "prior"}:
        _check_past(draft, ("evaluation", "baseline"), baseline, columns, shown, findings)


def _check_name(path: YamlPath, name: str, columns: Columns, expected: str, findings: Findings) -> None:
    _check_reserved(path, name, findings)
    if columns.known and name not in columns:
        found = f"there is no column {wording.quoted(name)}"
        options = [*columns.names(), *(["prior"] if path[-1] == "baseline" else [])]
        findings.add(path, found, expected, wording.did_you_mean(name, options))


def _check_reserved(path: YamlPath, name: str | None, findings: Findings) -> None:
    if name in RESERVED:
        expected = "another name, since every feature table has a column of that name"
        findings.add(path, f"the reserved name {wording.quoted(str(name))}", expected)


def _check_label(draft: Draft, columns: Columns, findings: Findings) -> None:
    for field in ("column", "known_at"):
        path = ("label", field)
        name = draft.at(*path)
        if name is None:
            continue
        own = [*columns.functions, *columns.source]
        if columns.known and name not in own:
            found = (
                f"there is no column {wording.quoted(name)}"
                if name not in columns
                else (f"{wording.quoted(name)} is a side-table column")
            )
            findings.add(path, found, _OWN_COLUMN, wording.did_you_mean(name, own))
    _check_reserved(("label", "column"), draft.at("label", "column"), findings)
    column, task = draft.at("label", "column"), draft.at("label", "task")
    if column in columns.source and column not in columns.functions and task is not None:
        check_type(draft, ("label", "column"), column, _LABEL_TYPES[task], findings)
    known_at = draft.at("label", "known_at")
    if known_at in columns.source and known_at not in columns.functions:
        check_type(draft, ("label", "known_at"), known_at, TIME_TYPES, findings)


def _check_model_column(draft: Draft, path: YamlPath, name: str, columns: Columns, findings: Findings) -> None:
    """Record a column that no model can be fitted on."""
    if name in columns.source:
        kind = draft.at("source", "columns", name, "type")
    else:
        kind = columns.side[name].spec.type if name in columns.side else None
    if kind in TIME_TYPES:
        found = f"{wording.quoted(name)} is a {kind} column"
        findings.add(path, found, "numbers, true/false or text", "make a number of it in a feature function")


def _check_past(draft: Draft, path: YamlPath, name: str, columns: Columns, shown: str, findings: Findings) -> None:
    """Record that a column is made of the label or of what is known only after the event."""
    label = draft.at("label", "column")
    trail = columns.path(name, lambda column: column == label)
    reason = "the label"
    if trail is None:
        trail = columns.path(name, lambda column: column in columns.after_event)
        reason = "which is known only after the event"
    if trail is None:
        return
    expected = "a column known when the row is scored"
    end = f"{wording.quoted(trail[-1])}, {reason}"
    if len(trail) == 1:
        findings.add(path, f"{wording.quoted(name)} is {reason.removeprefix('which is ')}", expected)
        return
    through = f" through {' → '.join(trail[1:-1])}" if len(trail) > 2 else ""
    found = f"reads {end},{through}".rstrip(",")
    if name in columns.functions and name not in columns.source:
        findings.add_at(shown, columns.functions[name].line, name, found, expected, _PAST_HINT)
    else:
        found = f"{wording.quoted(name)} is joined by {found.removeprefix('reads ')}"
        findings.add(path, found, expected)
