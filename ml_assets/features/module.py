"""Loads a module of feature functions and says what each function reads, without running any."""

import hashlib
import importlib
import importlib.abc
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType

from ml_assets.features.marks import READS_PAST
from ml_assets.features.outline import FeatureFunction, read_functions


@dataclass(frozen=True, kw_only=True)
class FeatureModule:
    """A loaded feature module.

    Attributes:
        file: Its file.
        functions: Its public functions by name, in file order.
        digest: SHA-256 of the Python files in its folder, as 64 hexadecimal digits.
        run: Returns the Python module; runs it when its source told enough so far.
    """

    file: Path
    functions: Mapping[str, FeatureFunction]
    digest: str
    run: Callable[[], ModuleType] = field(repr=False, compare=False)

    @cached_property
    def module(self) -> ModuleType:
        """Return the Python module as it was when it was loaded, whatever its file has become since."""
        return self.run()


def load_feature_module(folder: Path, name: str) -> FeatureModule:
    """Load `name`, a file ending in .py below `folder` or an importable module.

    Raises:
        Exception: Whatever importing the module raises; the caller knows which line of YAML named it.
    """
    if not name.endswith(".py"):
        return _of_module(importlib.import_module(name))
    path = (folder / name).resolve()
    source = path.read_bytes()
    functions = read_functions(source)
    if functions is None:
        return _of_module(_import_file(path))
    return _loaded(path, functions, partial(_import_file, path, source))


def _of_module(module: ModuleType) -> FeatureModule:
    functions = [_describe(f) for f in _public_functions(module)]
    return _loaded(Path(module.__file__ or ""), functions, lambda: module)


def _loaded(file: Path, functions: Sequence[FeatureFunction], run: Callable[[], ModuleType]) -> FeatureModule:
    by_name = {f.name: f for f in sorted(functions, key=lambda f: f.line)}
    return FeatureModule(file=file, functions=by_name, digest=code_digest(file), run=run)


def code_digest(file: Path) -> str:
    """Return the SHA-256 of a module and of the Python files beside it, which it may import."""
    digest = hashlib.sha256()
    for path in sorted({file, *file.parent.glob("*.py")}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class _KeptSource(importlib.abc.SourceLoader):
    """Runs a module from source that was read before."""

    def __init__(self, path: Path, source: bytes) -> None:
        self._path = path
        self._source = source

    def get_filename(self, fullname: str) -> str:
        """Return the file that the source was read from."""
        del fullname
        return str(self._path)

    def get_data(self, path: str) -> bytes:
        """Return the source."""
        del path
        return self._source


def _import_file(path: Path, source: bytes | None = None) -> ModuleType:
    """Run a file as a module of its own: its present content, or the given source."""
    # A name made from the path keeps two pipelines' features.py apart; an entry in sys.modules lets
    # inspect find the source and lets a second load in the same process give the same module.
    name = f"ml_assets_features_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    stamp = _stamp(path) if source is None else hashlib.sha256(source).hexdigest()
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__ml_assets_stamp__", None) == stamp:
        return known
    loader = None if source is None else _KeptSource(path, source)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
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


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


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
