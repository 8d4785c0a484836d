"""Loads a module of feature functions and says what each function reads, without running any."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ml_assets.features.marks import READS_PAST


@dataclass(frozen=True, kw_only=True)
class FeatureFunction:
    """One public function of a feature module.

    Attributes:
        name: Column it makes.
        parameters: Columns it reads, in order.
        line: 1-based line of its `def`.
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


@dataclass(frozen=True, kw_only=True)
class FeatureModule:
    """A loaded feature module.

    Attributes:
        module: The Python module.
        file: Its file.
        functions: Its public functions by name, in file order.
        digest: SHA-256 of the Python files in its folder, as 64 hexadecimal digits.
    """

    module: ModuleType
    file: Path
    functions: Mapping[str, FeatureFunction]
    digest: str


def load_feature_module(folder: Path, name: str) -> FeatureModule:
    """Load `name`, a file ending in .py below `folder` or an importable module.

    Raises:
        Exception: Whatever importing the module raises; the caller knows which line of YAML named it.
    """
    module = _import_file((folder / name).resolve()) if name.endswith(".py") else importlib.import_module(name)
    file = Path(module.__file__ or "")
    functions = [_describe(f) for f in _public_functions(module)]
    return FeatureModule(
        module=module,
        file=file,
        functions={f.name: f for f in sorted(functions, key=lambda f: f.line)},
        digest=code_digest(file),
    )


def code_digest(file: Path) -> str:
    """Return the SHA-256 of a module and of the Python files beside it, which it may import."""
    digest = hashlib.sha256()
    for path in sorted({file, *file.parent.glob("*.py")}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _import_file(path: Path) -> ModuleType:
    # A name made from the path keeps two pipelines' features.py apart; an entry in sys.modules lets
    # inspect find the source and lets a second load in the same process give the same module.
    name = f"ml_assets_features_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    stamp = (path.stat().st_mtime_ns, path.stat().st_size)
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__ml_assets_stamp__", None) == stamp:
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    module.__dict__["__ml_assets_stamp__"] = stamp
    return module


def _public_functions(module: ModuleType) -> list:
    return [
        f
        for name, f in vars(module).items()
        if inspect.isfunction(f) and not name.startswith("_") and f.__module__ == module.__name__
    ]


def _describe(function) -> FeatureFunction:
    parameters = inspect.signature(function).parameters
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return FeatureFunction(
        name=function.__name__,
        parameters=tuple(parameters),
        line=function.__code__.co_firstlineno,
        reads_past=bool(getattr(function, READS_PAST, False)),
        description=(inspect.getdoc(function) or "").partition("\n")[0],
        plain=all(p.kind in by_name for p in parameters.values()),
    )
