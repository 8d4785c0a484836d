"""Finds a class by its import path and reads its constructor from source text, without importing anything."""

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import NoReturn

MAX_HOPS = 20  # re-exports followed; a package that goes in circles ends here


class UnclearSourceError(Exception):
    """The source text does not tell; only an import does."""


class AbsentError(Exception):
    """There is no such module or name; `options` are the names there are at that place."""

    def __init__(self, what: str, name: str, options: Iterable[str]) -> None:
        self.what, self.name, self.options = what, name, sorted(set(options))
        super().__init__(f"there is no {what} {name}")


@dataclass(frozen=True, kw_only=True)
class ClassSource:
    """What a class statement says.

    Attributes:
        module: Module it stands in.
        name: Its name.
        bases: Dotted names of its bases as written; None for one that is no name.
        parameters: Constructor's parameters that can be passed by name; None without an own `__init__`.
        required: Those of them without a default.
        is_open: Whether the constructor takes **kwargs, or a decorator may have replaced it.
        members: Names of its methods and class attributes.
        estimator_type: Value of the class attribute `_estimator_type`, or None.
    """

    module: str
    name: str
    bases: tuple[str | None, ...]
    parameters: tuple[str, ...] | None
    required: tuple[str, ...]
    is_open: bool
    members: frozenset[str]
    estimator_type: str | None


@dataclass(kw_only=True)
class _ModuleSource:
    """Names that a module's top level binds."""

    name: str
    package: str
    classes: dict[str, ClassSource] = field(default_factory=dict)
    imports: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict)  # name → (module, name in it)
    aliases: dict[str, str] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    stars: list[str] = field(default_factory=list)

    def names(self) -> set[str]:
        return {*self.classes, *self.imports, *self.aliases, *self.others}


def find_class(module: str, name: str) -> ClassSource:
    """Return what the source says of a class, following re-exports to where it is defined.

    Raises:
        AbsentError: If the module, or the name in it, does not exist.
        UnclearSourceError: If the source does not tell: compiled, made at run time, or no class.
    """
    return _find(module, name, MAX_HOPS)


def ancestors(cls: ClassSource) -> Iterator[ClassSource | None]:
    """Yield a class's bases in Python's order, nearest first; None for one that the source does not tell."""
    order: dict[tuple[str, str] | int, ClassSource | None] = {}
    for ancestor in _walk(cls, MAX_HOPS):
        key = len(order) if ancestor is None else (ancestor.module, ancestor.name)
        order.pop(key, None)  # a base that several classes share comes after the last of them
        order[key] = ancestor
    yield from order.values()


def _walk(cls: ClassSource, hops: int) -> Iterator[ClassSource | None]:
    for written in cls.bases:
        if written == "object":
            continue
        try:
            base = _find_base(cls.module, written, hops)
        except (AbsentError, UnclearSourceError):
            yield None
            continue
        yield base
        yield from _walk(base, hops - 1)


def _find_base(module: str, written: str | None, hops: int) -> ClassSource:
    if written is None or hops <= 0:
        raise UnclearSourceError
    prefix, _, name = written.rpartition(".")
    if not prefix:
        return _find(module, name, hops)
    head, _, rest = prefix.partition(".")
    for source, imported in _read(module).imports.get(head, []):
        target = source if imported is None else f"{source}.{imported}"
        return _find(f"{target}.{rest}" if rest else target, name, hops)
    raise UnclearSourceError


def _find(module: str, name: str, hops: int) -> ClassSource:
    if hops <= 0:
        raise UnclearSourceError
    source = _read(module)
    if name in source.classes:
        return source.classes[name]
    if name in source.aliases:
        return _find(module, source.aliases[name], hops - 1)
    if name in source.imports:
        return _follow(source.imports[name], hops)
    if name in source.others or _spec(f"{module}.{name}") is not None:
        raise UnclearSourceError  # a function, a value or a module: the import tells which
    for star in source.stars:
        try:
            return _find(star, name, hops - 1)
        except AbsentError:
            continue
    if "__getattr__" in source.others:
        raise UnclearSourceError
    raise AbsentError("class", f"{module}.{name}", source.names())


def _follow(candidates: list[tuple[str, str | None]], hops: int) -> ClassSource:
    """Return the class behind an import; of one in `try` and another in `except`, the first that exists."""
    for module, name in candidates:
        if name is None:
            raise UnclearSourceError
        try:
            return _find(module, name, hops - 1)
        except AbsentError:
            continue
    raise UnclearSourceError


def _read(module: str) -> _ModuleSource:
    spec = _spec(module)
    if spec is None:
        _refuse_module(module)
    if not spec.has_location or spec.origin is None or not spec.origin.endswith(".py"):
        raise UnclearSourceError
    file = Path(spec.origin)
    package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
    try:
        return _parse(module, package, file, file.stat().st_mtime_ns)
    except OSError as error:
        raise UnclearSourceError from error


def _refuse_module(module: str) -> NoReturn:
    parent, _, _ = module.rpartition(".")
    if not parent:
        raise AbsentError("module", module, ())
    if _spec(parent) is None:
        _refuse_module(parent)
    raise AbsentError("module", module, _submodules(parent))


def _submodules(package: str) -> list[str]:
    """Return the names of a package's modules, without importing it."""
    import pkgutil

    spec = _spec(package)
    places = (spec.submodule_search_locations if spec else None) or []
    return [module.name for module in pkgutil.iter_modules(list(places))]


@lru_cache(maxsize=1024)
def _spec(module: str) -> ModuleSpec | None:
    """Return where a module lies, or None when there is none."""
    parent, _, _ = module.rpartition(".")
    if not parent:
        try:
            return importlib.util.find_spec(module)
        except (ImportError, ValueError) as error:
            raise UnclearSourceError from error
    package = _spec(parent)
    if package is None or package.submodule_search_locations is None:
        return None
    return spec_below(module, package.submodule_search_locations)


def spec_below(module: str, places: Iterable[str]) -> ModuleSpec | None:
    """Return where a module lies in its package's folders, though the package is not imported, or None.

    A pipeline's folder has no `__init__.py`. Python's own finder would look such a package's parent up among the
    imported modules, so it is asked for the last part of the name alone.
    """
    spec = PathFinder.find_spec(module.rpartition(".")[2], list(places))
    if spec is not None and spec.submodule_search_locations is not None:
        spec.submodule_search_locations = list(spec.submodule_search_locations)  # else looked up anew, by that name
    return spec


@lru_cache(maxsize=256)
def _parse(module: str, package: str, file: Path, _modified_ns: int) -> _ModuleSource:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UnclearSourceError from error
    source = _ModuleSource(name=module, package=package)
    for node in _top_level(tree.body):
        _record(node, source)
    return source


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is imported, those in `if` and `try` too."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _top_level([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from _top_level([*node.body, *handlers, *node.orelse, *node.finalbody])
        else:
            yield node


def _record(node: ast.stmt, source: _ModuleSource) -> None:
    if isinstance(node, ast.ClassDef):
        source.classes.setdefault(node.name, _describe(node, source.name))
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        source.others.add(node.name)
    elif isinstance(node, ast.ImportFrom):
        target = _absolute(node, source.package)
        for alias in node.names:
            if alias.name == "*":
                source.stars.append(target)
            else:
                source.imports.setdefault(alias.asname or alias.name, []).append((target, alias.name))
    elif isinstance(node, ast.Import):
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            module = alias.name if alias.asname else name
            source.imports.setdefault(name, []).append((module, None))
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        _record_assignment(node, source)


def _record_assignment(node: ast.Assign | ast.AnnAssign, source: _ModuleSource) -> None:
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        if not isinstance(target, ast.Name):
            continue
        if isinstance(node.value, ast.Name) and node.value.id != target.id:
            source.aliases.setdefault(target.id, node.value.id)
        else:
            source.others.add(target.id)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    above = parts[: len(parts) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def _describe(node: ast.ClassDef, module: str) -> ClassSource:
    inits = [s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"]
    init = inits[-1] if inits else None  # the ones before it are overloads
    members = frozenset(_members(node.body))
    parameters, required = (None, ()) if init is None else _parameters(init.args)
    return ClassSource(
        module=module,
        name=node.name,
        bases=tuple(_dotted(base) for base in node.bases),
        parameters=parameters,
        required=required,
        is_open=bool(node.decorator_list)
        or (init is not None and init.args.kwarg is not None)
        or (init is None and "__init__" in members),
        members=members,
        estimator_type=_estimator_type(node.body),
    )


def _members(body: Iterable[ast.stmt]) -> Iterator[str]:
    for node in _top_level(body):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _parameters(args: ast.arguments) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the parameters that can be passed by name, and those of them without a default."""
    positional = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    without = positional[: len(positional) - len(args.defaults)]
    named = [arg.arg for arg in args.args] if args.posonlyargs else positional[1:]
    keyword = [arg.arg for arg in args.kwonlyargs]
    required = {*without, *(n for n, d in zip(keyword, args.kw_defaults, strict=True) if d is None)}
    parameters = (*named, *keyword)
    return parameters, tuple(name for name in parameters if name in required)


def _estimator_type(body: Iterable[ast.stmt]) -> str | None:
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if "_estimator_type" in names:
                return str(node.value.value)
    return None


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = _dotted(node.value)
        return None if head is None else f"{head}.{node.attr}"
    return _dotted(node.value) if isinstance(node, ast.Subscript) else None
