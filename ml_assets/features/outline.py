"""Feature functions as their source shows them, without running it: a code location need not import pandas to load."""

import ast
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ml_assets.features.marks import reads_past

_LATER = {"pandas": "pd", "numpy": "np"}
"""Libraries that are known to be there, and take long to import, with the names that everybody gives them."""

_LIBRARY = object()
"""What the name of such a library stands for."""

_ANNOTATIONS = frozenset({"pd.Series", "pd.DataFrame", "np.ndarray", "bool", "float", "int", "object", "str"})
_READY = frozenset({*sys.stdlib_module_names, "ml_assets"}) - {"__future__"}


@dataclass(frozen=True, kw_only=True)
class FeatureFunction:
    """One public function of a feature module.

    Attributes:
        name: Column it makes.
        parameters: Columns it reads, in order.
        line: 1-based line of its `def`, or of its first decorator.
        reads_past: Whether it declares to use after-event columns of earlier rows alone.
        description: First line of its docstring, or empty.
        plain: Whether every parameter can be passed by name (no *args, **kwargs or positional-only ones).
    """

    name: str
    parameters: tuple[str, ...]
    line: int
    reads_past: bool
    description: str
    plain: bool


class _RunItError(Exception):
    """Only running the module tells which functions it has, or that it cannot be run."""


def read_functions(source: bytes) -> list[FeatureFunction] | None:
    """Return a module's public functions in file order, or None where only running it tells.

    It need not be run when it consists of nothing but a docstring, `import pandas as pd`, `import numpy as np`, imports
    from the standard library and ml_assets, names for literals, and functions that have no decorator but
    `@reads_past`, literal defaults, and annotations such as `pd.Series`: running those cannot fail, and makes
    no other functions. The imports of what is imported anyway are carried out here.
    """
    try:
        return _Outline(ast.parse(source)).functions()
    except (_RunItError, SyntaxError, ValueError, RecursionError):
        return None


class _Outline:
    """Walks through a module's statements and keeps what each name stands for."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._names: dict[str, Any] = {}

    def functions(self) -> list[FeatureFunction]:
        """Return the public functions.

        Raises:
            _RunItError: If there is a statement of another kind.
        """
        found = [function for statement in self._tree.body for function in self._statement(statement)]
        return [function for function in found if not function.name.startswith("_")]

    def _statement(self, statement: ast.stmt) -> Iterator[FeatureFunction]:
        match statement:
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.Import(names=names):
                for name in names:
                    self._import(name)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for name in names:
                    self._bind(name.asname or name.name, _member(module, name.name))
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._bind(name, _literal(value))
            case ast.FunctionDef():
                yield self._function(statement)
            case _:
                raise _RunItError

    def _import(self, name: ast.alias) -> None:
        if name.asname is not None and _LATER.get(name.name) == name.asname:
            self._bind(name.asname, _LIBRARY)
        else:
            module = _imported(name.name)
            self._bind(name.asname or name.name.partition(".")[0], module)

    def _function(self, node: ast.FunctionDef) -> FeatureFunction:
        arguments = node.args
        by_name = [*arguments.args, *arguments.kwonlyargs]
        others = [a for a in (*arguments.posonlyargs, arguments.vararg, arguments.kwarg) if a is not None]
        for annotation in (node.returns, *(a.annotation for a in (*by_name, *others))):
            self._annotation(annotation)
        for default in (*arguments.defaults, *(d for d in arguments.kw_defaults if d is not None)):
            _literal(default)
        marks = [self._names.get(d.id) if isinstance(d, ast.Name) else None for d in node.decorator_list]
        if getattr(node, "type_params", None) or any(mark is not reads_past for mark in marks):
            raise _RunItError
        self._bind(node.name, node)
        return FeatureFunction(
            name=node.name,
            parameters=tuple(a.arg for a in _in_order(arguments)),
            line=min([node.lineno, *(d.lineno for d in node.decorator_list)]),
            reads_past=bool(marks),
            description=(ast.get_docstring(node) or "").partition("\n")[0],
            plain=not others,
        )

    def _annotation(self, annotation: ast.expr | None) -> None:
        match annotation:
            case None | ast.Constant():
                return
            case ast.Name(id=name) if name in _ANNOTATIONS and name not in self._names:
                return
            case ast.Attribute(value=ast.Name(id=library), attr=attribute):
                if self._names.get(library) is _LIBRARY and f"{library}.{attribute}" in _ANNOTATIONS:
                    return
        raise _RunItError

    def _bind(self, name: str, value: Any) -> None:
        """Note what a name stands for; one that is bound twice is left to Python."""
        if name in self._names:
            raise _RunItError
        self._names[name] = value


def _in_order(arguments: ast.arguments) -> Iterator[ast.arg]:
    """Yield all parameters as `inspect.signature` orders them."""
    yield from (*arguments.posonlyargs, *arguments.args)
    if arguments.vararg is not None:
        yield arguments.vararg
    yield from arguments.kwonlyargs
    if arguments.kwarg is not None:
        yield arguments.kwarg


def _imported(module: str) -> Any:
    if module.partition(".")[0] not in _READY:
        raise _RunItError
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever it is, running the module raises it where it belongs
        raise _RunItError from error


def _member(module: str, name: str) -> Any:
    found = getattr(_imported(module), name, None)
    if found is None:
        raise _RunItError
    return found


def _literal(value: ast.expr) -> ast.expr:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise _RunItError from error
    return value
