"""A description of which some parts may be broken, so that the sound parts can still be checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from pydantic import TypeAdapter

from ml_assets.spec.model import SpecModel
from ml_assets.spec.pipeline import PipelineSpec
from ml_assets.yaml_positions import YamlPath


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A pipeline's description, possibly with broken parts.

    Attributes:
        spec: The description. What is broken is absent from it and must not be read; the methods see to that.
        broken: Paths of the fields that are missing or have a wrong form.
    """

    spec: PipelineSpec
    broken: frozenset[YamlPath] = frozenset()

    def sound(self, *path: str | int) -> bool:
        """Return whether a field may be read with all that is in it."""
        return self.present(*path) and not any(b[: len(path)] == path for b in self.broken)

    def present(self, *path: str | int) -> bool:
        """Return whether a field may be read, though something inside it may be broken."""
        return not any(path[: len(b)] == b for b in self.broken)

    def at(self, *path: str | int) -> Any:
        """Return the value of a field; None when it, or something inside it, is broken."""
        return self._read(path) if self.sound(*path) else None

    def entries(self, *path: str | int) -> Iterator[tuple[Any, Any]]:
        """Yield (index or name, value) of the sound entries of a list or mapping, if any."""
        value = (self._read(path) if self.present(*path) else None) or ()
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            if self.sound(*path, key):
                yield key, entry

    def _read(self, path: YamlPath) -> Any:
        value: Any = self.spec
        for part in path:
            value = getattr(value, str(part)) if isinstance(value, SpecModel) else value[part]
            if value is None:
                return None
        return value


def salvage(data: dict[str, Any], broken: frozenset[YamlPath]) -> Draft:
    """Return what can be read of a description that is not valid as a whole.

    Args:
        data: The mapping as YAML gave it.
        broken: Paths of missing fields and of fields with a wrong form.
    """
    return Draft(spec=_model(PipelineSpec, data, (), broken), broken=broken)


def _model(model: Any, data: dict[str, Any], path: YamlPath, broken: frozenset[YamlPath]) -> Any:
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        here = (*path, name)
        if here in broken:
            continue
        if name in data:
            kind = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            values[name] = _value(kind, data[name], here, broken)
        else:
            values[name] = field.get_default(call_default_factory=True)
    # What the file does not say is a default, of which a profile takes the place.
    return model.model_construct(_fields_set={name for name in values if name in data}, **values)


def _value(kind: Any, data: Any, path: YamlPath, broken: frozenset[YamlPath]) -> Any:
    """Return a field's value; a broken entry becomes an empty model or None, so that names and order stay."""
    plain = _plain(kind, data)
    if _is_model(plain) and isinstance(data, dict):
        return _model(plain, data, path, broken)
    origin, arguments = get_origin(plain), get_args(plain)
    if origin is dict and isinstance(data, dict):
        return {key: _entry(arguments[1], value, (*path, key), broken) for key, value in data.items()}
    if origin is tuple and isinstance(data, list):
        return tuple(_entry(arguments[0], value, (*path, i), broken) for i, value in enumerate(data))
    return TypeAdapter(kind).validate_python(data)


def _entry(kind: Any, data: Any, path: YamlPath, broken: frozenset[YamlPath]) -> Any:
    if path not in broken:
        return _value(kind, data, path, broken)
    plain = _plain(kind, data)
    return plain.model_construct() if _is_model(plain) else None


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, SpecModel)


def _plain(kind: Any, data: Any) -> Any:
    """Return a type without its constraints, and of a union the option that a list or mapping belongs to."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0], data)
    options = [_plain(option, data) for option in get_args(kind) if option is not NoneType]
    if get_origin(kind) in {dict, tuple} or not options:
        return kind
    wanted = {list: tuple, dict: dict}.get(type(data))
    fitting = [o for o in options if get_origin(o) is wanted or (wanted is dict and _is_model(o))]
    return fitting[0] if wanted and fitting else kind
