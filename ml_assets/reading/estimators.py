"""What an estimator class is and takes, read from its source; imported only when the source does not tell."""

import importlib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from ml_assets.reading import wording
from ml_assets.reading.class_source import (
    AbsentError,
    ClassSource,
    UnclearSourceError,
    ancestors,
    find_class,
)
from ml_assets.trainers.libraries import install_hint

Kind = Literal["classifier", "regressor", "neither", "unknown"]

_OTHER_MIXINS = frozenset({"ClusterMixin", "OutlierMixin", "TransformerMixin"})
_EXPECTED = "the import path of an estimator class, such as sklearn.linear_model.LogisticRegression"


class EstimatorNotFoundError(Exception):
    """A path leads to no class; `found`, `expected` and `hint` say it in words."""

    def __init__(self, found: str, expected: str = _EXPECTED, hint: str = "") -> None:
        self.found, self.expected, self.hint = found, expected, hint
        super().__init__(f"{found}; expected {expected}")


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """What is known of an estimator class.

    Attributes:
        name: Class name.
        params: Constructor's parameters; None when it takes any.
        required: Those without a default.
        kind: What it predicts: "neither" for no predictor, "unknown" when that cannot be told.
        has_probabilities: Whether it has `predict_proba`; None when that cannot be told.
        imported: Whether the class had to be imported to know.
    """

    name: str
    params: tuple[str, ...] | None
    required: tuple[str, ...]
    kind: Kind
    has_probabilities: bool | None
    imported: bool = False


@lru_cache(maxsize=256)
def find_estimator(path: str) -> Estimator:
    """Return what is known of the class under an import path.

    Raises:
        EstimatorNotFoundError: If there is no such class, or importing it fails.
    """
    module, _, name = path.rpartition(".")
    if not module or not all(part.isidentifier() for part in path.split(".")):
        raise EstimatorNotFoundError(f"{wording.quoted(path)} is no import path")
    try:
        return _from_source(find_class(module, name))
    except AbsentError as error:
        raise _absent(error, path) from error
    except UnclearSourceError:
        return _from_import(module, name)


def _absent(error: AbsentError, path: str) -> EstimatorNotFoundError:
    short = error.name.rpartition(".")[2]
    near = wording.closest(short, error.options)
    if near is None:
        hint = install_hint(error.name) if error.what == "module" else ""
        return EstimatorNotFoundError(f"there is no {error.what} {wording.quoted(error.name)}", hint=hint)
    meant = error.name.removesuffix(short) + near + path[len(error.name) :]
    return EstimatorNotFoundError(
        f"there is no {error.what} {wording.quoted(error.name)}", hint=f"did you mean {meant!r}?"
    )


def _from_source(cls: ClassSource) -> Estimator:
    lineage = _lineage(cls)
    told = [c for c in lineage if c is not None]
    complete = len(told) == len(lineage)
    maker = next((c for c in lineage if c is None or c.is_open or c.parameters is not None), cls)
    if maker is None or maker.is_open:
        raise UnclearSourceError
    names = {base.rpartition(".")[2] for c in told for base in c.bases if base} | {c.name for c in told}
    members = frozenset[str]().union(*(c.members for c in told))
    kind = _kind(names, members, next((c.estimator_type for c in told if c.estimator_type), None))
    if not complete and kind in {"neither", "unknown"}:
        raise UnclearSourceError
    has = "predict_proba" in members
    return Estimator(
        name=cls.name,
        params=maker.parameters or (),
        required=maker.required,
        kind=kind,
        has_probabilities=has if has or complete else None,
    )


def _lineage(cls: ClassSource) -> list[ClassSource | None]:
    """Return a class and its bases, or the class alone when it tells all, which saves reading files."""
    names = {base.rpartition(".")[2] for base in cls.bases if base}
    tells = cls.parameters is not None and (
        ("ClassifierMixin" in names and "predict_proba" in cls.members) or "RegressorMixin" in names
    )
    return [cls] if tells else [cls, *ancestors(cls)]


def _kind(class_names: Iterable[str], members: Iterable[str], estimator_type: str | None) -> Kind:
    names = set(class_names)
    if "ClassifierMixin" in names or estimator_type == "classifier":
        return "classifier"
    if "RegressorMixin" in names or estimator_type == "regressor":
        return "regressor"
    if names & _OTHER_MIXINS or "predict" not in members:
        return "neither"
    return "unknown"


def _from_import(module: str, name: str) -> Estimator:
    path = f"{module}.{name}"
    try:
        loaded = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise EstimatorNotFoundError(f"{wording.quoted(module)} does not import: {reason}") from error
    cls = getattr(loaded, name, None)
    if cls is None:
        hint = wording.did_you_mean(name, dir(loaded))
        raise EstimatorNotFoundError(f"there is no class {wording.quoted(path)}", hint=hint)
    if not inspect.isclass(cls):
        what = "module" if inspect.ismodule(cls) else "function" if callable(cls) else "value"
        raise EstimatorNotFoundError(f"{wording.quoted(path)} is a {what}")
    params, required = _signature(cls)
    kind = _kind((c.__name__ for c in cls.__mro__), dir(cls), getattr(cls, "_estimator_type", None))
    return Estimator(
        name=name,
        params=params,
        required=required,
        kind=kind,
        has_probabilities=any("predict_proba" in vars(c) for c in cls.__mro__),
        imported=True,
    )


def _signature(cls: Any) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Return a constructor's parameters, through **kwargs those of its bases, and the required ones."""
    params: dict[str, inspect.Parameter] = {}
    is_open = False
    for owner in cls.__mro__[:-1]:
        if "__init__" not in vars(owner):
            continue
        try:
            own = list(inspect.signature(owner.__init__).parameters.values())[1:]
        except (TypeError, ValueError):
            return None, ()
        for p in own:
            if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}:
                params.setdefault(p.name, p)
        is_open = any(p.kind is p.VAR_KEYWORD for p in own)
        if not is_open:
            break
    if is_open:
        return None, ()
    return tuple(params), tuple(name for name, p in params.items() if p.default is p.empty)
