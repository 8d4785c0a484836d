"""Loads a pipeline's feature module and checks its functions: names, parameters and cycles."""

import importlib.util
import traceback
from pathlib import Path

from ml_assets.features.module import FeatureFunction, FeatureModule, load_feature_module
from ml_assets.reading import wording
from ml_assets.reading.columns import Columns
from ml_assets.reading.draft import Draft
from ml_assets.reading.files import is_file, similar_file
from ml_assets.reading.findings import Findings

_PATH = ("features", "module")
_EXPECTED_FILE = "a Python file beside this one, or an importable module"


def load_features(draft: Draft, folder: Path, findings: Findings) -> FeatureModule | None:
    """Return the loaded feature module, or None after recording why there is none."""
    name = draft.at(*_PATH)
    if name is None:
        return None
    found, hint = _why_absent(folder, name)
    if found:
        findings.add(_PATH, found, _EXPECTED_FILE, hint)
        return None
    try:
        return load_feature_module(folder, name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a team's code may raise anything; all of it is told
        _record_import_error(error, folder, name, findings)
        return None


def _why_absent(folder: Path, name: str) -> tuple[str, str]:
    """Return what is found instead of the module, and a hint; both empty when it is there."""
    if name.endswith(".py"):
        file = folder / name
        return ("", "") if is_file(file) else (f"there is no file {wording.quoted(name)}", similar_file(file))
    if not all(part.isidentifier() for part in name.split(".")):
        return f"{wording.quoted(name)} is neither a .py file nor a module's name", similar_file(folder / name)
    try:
        present = importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        present = False
    except (Exception, SystemExit):  # noqa: BLE001 - a package on the way raised; the import tells where
        present = True
    hint = f"did you mean '{name}.py'?" if is_file(folder / f"{name}.py") else ""
    return ("", "") if present else (f"there is no module {wording.quoted(name)}", hint)


def _record_import_error(error: BaseException, folder: Path, name: str, findings: Findings) -> None:
    file = folder / name if name.endswith(".py") else _module_file(name)
    line = _line_in(error, file)
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    found = f"does not import: {type(error).__name__}: {' '.join(str(message).split())}".rstrip(": ")
    expected = "a module that imports without an error"
    if line:
        findings.add_at(str(file), line, ".".join(_PATH), found, expected, _import_hint(error))
    else:
        findings.add(_PATH, f"{wording.quoted(name)} {found}", expected, _import_hint(error))


def _module_file(name: str) -> Path:
    try:
        spec = importlib.util.find_spec(name)
    except (Exception, SystemExit):  # noqa: BLE001 - a package on the way raised: the file cannot be told
        spec = None
    return Path(spec.origin) if spec is not None and spec.origin else Path(name)


def _line_in(error: BaseException, file: Path) -> int:
    """Return the last line of the module's own file that the error came from, 0 when none."""
    own = file.resolve()
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).resolve() == own:
        return error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.lineno and Path(frame.filename).resolve() == own]
    return lines[-1] if lines else 0


def _import_hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install {error.name.partition('.')[0]}, or correct the import"
    return ""


def check_functions(module: FeatureModule, shown: str, columns: Columns, findings: Findings) -> None:
    """Record what is wrong with feature functions, at their lines.

    Args:
        module: The loaded module.
        shown: Its file as a reader would open it.
        columns: Columns there are.
        findings: Takes the problems.
    """
    for function in module.functions.values():
        _check_name(function, shown, columns, findings)
        _check_parameters(function, shown, columns, findings)
    for cycle in columns.cycles():
        line = module.functions[cycle[0]].line
        found = f"functions that need each other: {' → '.join(cycle)}"
        findings.add_at(shown, line, cycle[0], found, "functions that end at source or side-table columns")


def _check_name(function: FeatureFunction, shown: str, columns: Columns, findings: Findings) -> None:
    if not function.name.isidentifier():
        expected = "`def` with the column's name"
        findings.add_at(shown, function.line, "", "a lambda as a feature function", expected)
    kind = "source" if function.name in columns.source else "side-table" if function.name in columns.side else ""
    if kind:
        found = f"a feature function with the name of a {kind} column"
        findings.add_at(shown, function.line, function.name, found, "a name of its own", "rename the function")


def _check_parameters(function: FeatureFunction, shown: str, columns: Columns, findings: Findings) -> None:
    hint = "begin the name of a helper function with an underscore"
    if not function.plain or not function.parameters:
        found = "a feature function " + ("with *args, **kwargs or /" if function.parameters else "without parameters")
        expected = "the columns it reads as named parameters"
        findings.add_at(shown, function.line, function.name, found, expected, hint)
        return
    if not columns.known:
        return
    options = [name for name in columns.names() if name != function.name]
    for parameter in function.parameters:
        if parameter not in columns:
            found = f"there is no column {wording.quoted(parameter)} for the parameter of that name"
            expected = "a source column, a side-table column (table_column) or a feature function"
            near = wording.did_you_mean(parameter, options)
            findings.add_at(shown, function.line, function.name, found, expected, near or hint)
