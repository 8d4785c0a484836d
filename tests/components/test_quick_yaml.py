"""Component files parsed by libyaml: the same values and positions, but for what a pipeline reads itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg
import pytest
import yaml
from dagster_shared import yaml_utils
from dagster_shared.yaml_utils.source_position import SourcePosition, SourcePositionTree
from yaml.scanner import Scanner

import deployments.flights.defs
from ml_assets.assets.previews import quiet_previews
from ml_assets.assets.team_pipeline import PIPELINE
from ml_assets.components.quick_yaml import parsed_by_libyaml
from ml_assets.reading.schema import COMPONENT

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "deployments").glob("*/defs/*/defs.yaml"))
PECULIAR = """\
type: acme.Component
attributes:
  day: 2013-01-01
  on: yes
  "quoted": 'text'
  folded: >
    a
    b
  shared: &shared {a: 1, b: [x, {c: null}]}
  again: *shared
  merged:
    <<: *shared
    b: 2
requirements:
  env: [A]
---
type: acme.Other
"""


def positions(tree: SourcePositionTree, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], SourcePosition]]:
    yield path, tree.position
    for key, child in tree.children.items():
        yield from positions(child, (*path, key))


def parsed(text: str) -> list[tuple[Any, list[Any]]]:
    trees = yaml_utils.parse_yamls_with_source_position(text, "defs.yaml")
    return [(tree.value, list(positions(tree.source_position_tree))) for tree in trees]


def subclassed(file: Path) -> str:
    return file.read_text(encoding="utf-8").replace(COMPONENT, ".component.MyPipeline")


@pytest.mark.parametrize(
    "text", [*map(subclassed, FILES), PECULIAR], ids=[*(file.parent.name for file in FILES), "peculiar"]
)
def test_values_and_positions_are_those_of_dagsters_own_parser(text: str):
    with parsed_by_libyaml():
        quick = parsed(text)

    assert quick == parsed(text)
    assert len(quick[0][1]) > 10


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_attributes_of_a_pipeline_alone_are_left_out(file: Path):
    text = file.read_text(encoding="utf-8") + "\npost_processing: {assets: [{target: '*'}]}\n"
    (value, places), *others = parsed(text)
    assert len(value["attributes"]) > 10

    with parsed_by_libyaml():
        quick = parsed(text)

    kept = [(path, place) for path, place in places if path == ("attributes",) or "attributes" not in path]
    assert quick == [(value | {"attributes": {}}, kept), *others]


def test_a_location_loads_its_pipelines_whole():
    with parsed_by_libyaml():
        quick = specs_of_flights()

    assert len(quick) > 10
    assert quick == specs_of_flights()


def specs_of_flights() -> list[tuple[object, ...]]:
    with quiet_previews():
        tree = dg.ComponentTree.from_module(deployments.flights.defs, ROOT)
        assets = [asset for asset in tree.build_defs().assets or [] if isinstance(asset, dg.AssetsDefinition)]
    return [shown(spec) for asset in assets for spec in asset.specs]


def shown(spec: dg.AssetSpec) -> tuple[object, ...]:
    metadata = {name: value for name, value in spec.metadata.items() if name != PIPELINE}  # an object of its own
    return spec.key, spec.code_version, spec.tags, spec.description, [dep.asset_key for dep in spec.deps], metadata


def test_the_parser_in_python_is_at_work_outside_alone(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("scanned in Python")

    monkeypatch.setattr(Scanner, "check_token", refuse)
    with parsed_by_libyaml():
        assert parsed("a: 1")[0][0] == {"a": 1}
    with pytest.raises(AssertionError, match="scanned in Python"):
        parsed("a: 1")


def test_an_error_leaves_dagsters_parser_as_it_was():
    with pytest.raises(ZeroDivisionError), parsed_by_libyaml():
        raise ZeroDivisionError
    with pytest.raises(yaml.YAMLError, match=r"defs\.yaml"):
        parsed("a: [1,\n")
