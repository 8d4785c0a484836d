"""Has Dagster parse the YAML of components with libyaml, and leave to us what only we read."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import yaml
from dagster_shared import yaml_utils

from ml_assets.reading.schema import COMPONENT


@contextmanager
def parsed_by_libyaml() -> Iterator[None]:
    """Give Dagster's parser of component files PyYAML's C parser while the context lasts.

    Dagster reads each defs.yaml for values and positions with PyYAML's parser in Python: a pipeline's takes 10 ms,
    four times as long as all our own checks of it. Values and positions are the same with the C parser, but for the
    attributes of a pipeline, which are empty: `TrainingPipeline` reads them from the file itself. An error in the
    YAML is not the same, since Dagster cannot write the file's name into its marks. Read such a file again, outside.
    """
    if not yaml.__with_libyaml__:
        yield
        return
    quick = ModuleType(yaml.__name__)
    vars(quick).update(vars(yaml), SafeLoader=_loader())
    parser: Any = yaml_utils
    parser.yaml = quick  # where the parser takes its base class from, each time it parses
    try:
        yield
    finally:
        parser.yaml = yaml


def _loader() -> type[yaml.CSafeLoader]:
    """Return the C parser's loader; a PyYAML without libyaml has none to make a class of."""

    class Loader(yaml.CSafeLoader):
        def get_node(self) -> yaml.Node | None:
            node = super().get_node()
            return _without_attributes(node) if isinstance(node, yaml.MappingNode) else node

    return Loader


def _without_attributes(document: yaml.MappingNode) -> yaml.MappingNode:
    """Empty the attributes of a pipeline; those of any other component, a subclass too, are Dagster's to read."""
    values = {key.value: value for key, value in document.value if isinstance(key, yaml.ScalarNode)}
    attributes = values.get("attributes")
    if getattr(values.get("type"), "value", None) == COMPONENT and isinstance(attributes, yaml.MappingNode):
        attributes.value = []
    return document
