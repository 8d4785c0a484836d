"""Docstrings below the fields of a class, read from its source when somebody asks for them."""

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache


def field_docs(cls: type) -> dict[str, str]:
    """Return field → the docstring below it, of a class and its bases; the nearest counts.

    pydantic's `use_attribute_docstrings` reads the same, but for each class when it is made: that is a tenth of a
    second in each process that imports the models, nearly all of which never show a description.

    Args:
        cls: A class at the top level of a module that has a source file; any other has no docstrings here.
    """
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        # Python's and other libraries' bases have none for us, and are not worth reading.
        if base.__module__.partition(".")[0] not in _FOREIGN:
            docs |= _module_docs(base.__module__).get(base.__qualname__, {})
    return docs


_FOREIGN = frozenset({"builtins", "abc", "typing", "pydantic", "dagster", "dagster_shared"})


@cache
def _module_docs(module: str) -> Mapping[str, Mapping[str, str]]:
    """Return class → field → docstring of a module's classes."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError, KeyError, SyntaxError):  # made at run time, or installed without its source
        return {}
    return {node.name: dict(_docs(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docs(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, following in zip(node.body, node.body[1:], strict=False):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = following.value.value
            if isinstance(text, str):
                yield statement.target.id, inspect.cleandoc(text)
