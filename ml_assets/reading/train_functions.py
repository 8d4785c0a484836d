"""Reads teams' own train functions from their source: where they stand, and whether they take what they are given."""

import ast
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ml_assets.features.module import code_digest
from ml_assets.reading import wording
from ml_assets.reading.class_source import spec_below
from ml_assets.reading.draft import Draft
from ml_assets.reading.findings import Findings
from ml_assets.trainers.functions import PARAMETERS, SIGNATURE, TrainFunction
from ml_assets.trainers.libraries import install_hint

DEFS = "defs"
"""Folder of a team's package that holds one folder a pipeline."""

_EXPECTED = "the dotted path of a function in the team's package, such as deployments.TEAM.defs.PIPELINE.training.fit"
_MARK = "gpu_required"


def read_train_functions(draft: Draft, folder: Path, findings: Findings) -> Mapping[str, TrainFunction]:
    """Return variant → its train function, of those that have one; records what is wrong with them.

    Nothing is imported: a module of train functions may need minutes or a GPU for that.

    Args:
        draft: The description.
        folder: The pipeline's folder.
        findings: Takes the problems.
    """
    found: dict[str, TrainFunction] = {}
    for name, _ in draft.entries("variants"):
        path = draft.at("variants", name, "train")
        if path is not None and (function := _read(name, path, folder, findings)) is not None:
            found[name] = function
            if function.gpu_required and draft.spec.variants[name].compute.cpu_fallback:
                said = f"{path} is marked {_MARK}, and the step may run without a GPU"
                findings.add(("variants", name, "compute"), said, "GPUs, and cpu_fallback: false")
    return found


def _read(variant: str, path: str, folder: Path, findings: Findings) -> TrainFunction | None:
    place = ("variants", variant, "train")
    module, _, name = path.rpartition(".")
    file = _module_file(module) if all(part.isidentifier() for part in path.split(".")) and module else None
    if file is None:
        missing = f"there is no module {wording.quoted(module)}" if module else f"{wording.quoted(path)} is no path"
        findings.add(place, missing, _EXPECTED)
        return None
    team = folder.resolve().parent.parent if folder.resolve().parent.name == DEFS else folder.resolve()
    if not file.resolve().is_relative_to(team):
        findings.add(place, f"{wording.quoted(module)} lies outside of the team's package", _EXPECTED)
        return None
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as error:
        said = f"does not parse: {error.msg}"
        findings.add_at(str(file), error.lineno or 0, "variants." + variant + ".train", said, "a Python module")
        return None
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    if name not in functions:
        hint = wording.did_you_mean(name, functions)
        findings.add(place, f"{file.name} defines no function {wording.quoted(name)}", _EXPECTED, hint)
        return None
    _check_signature(file, functions[name], findings)
    imported = _check_imports(file, tree, findings)
    marks = {ast.unparse(mark).rpartition(".")[2] for mark in functions[name].decorator_list}
    return TrainFunction(
        path=path,
        file=file,
        line=functions[name].lineno,
        digest=code_digest(file),
        gpu_required=_MARK in marks,
        imported=tuple(sorted(imported - sys.stdlib_module_names - {module.partition(".")[0]})),
    )


def _module_file(module: str) -> Path | None:
    """Return a module's source file, without importing anything on the way."""
    places: list[str] | None = None
    spec, name = None, ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        try:
            spec = importlib.util.find_spec(name) if places is None else spec_below(name, places)
        except (ImportError, ValueError):
            return None
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _check_signature(file: Path, function: ast.FunctionDef | ast.AsyncFunctionDef, findings: Findings) -> None:
    arguments = function.args
    positional = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    named = {*positional[2:], *(a.arg for a in arguments.kwonlyargs)}
    given = set(PARAMETERS)
    optional = {
        *positional[len(positional) - len(arguments.defaults) :],
        *(a.arg for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is not None),
    }
    problems = []
    if isinstance(function, ast.AsyncFunctionDef):
        problems.append("it is async")
    if len(positional) < 2 and arguments.vararg is None:
        problems.append("it does not take X and y")
    if arguments.kwarg is None and (missing := sorted(given - named)):
        problems.append(f"it lacks {', '.join(missing)}")
    if unknown := sorted(named - given - optional):
        problems.append(f"nothing gives it {', '.join(unknown)}")
    if problems:
        said = f"{'; '.join(problems)}"
        findings.add_at(str(file), function.lineno, function.name, said, SIGNATURE.replace("NAME", function.name))


def _check_imports(file: Path, tree: ast.Module, findings: Findings) -> set[str]:
    """Return the top modules that are imported in any case; records those that are not installed."""
    roots: set[str] = set()
    for module, line in _imports(tree.body):
        root = module.partition(".")[0]
        roots.add(root)
        if importlib.util.find_spec(root) is None:
            said = f"it imports {wording.quoted(module)}, which is not installed"
            findings.add_at(str(file), line, "", said, "modules that are installed", install_hint(root))
    return roots


def _imports(body: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    """Yield (module, line) of what is imported in any case: not in `try`, nor under a condition."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.With | ast.For):
            yield from _imports(node.body)
