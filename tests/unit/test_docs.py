"""The documentation in step with the code: links, commands, variables, fields, and the texts it quotes."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
import yaml

from ml_assets.cli.main import COMMANDS, cli
from ml_assets.errors import FeatureError
from ml_assets.features.graph import FeatureGraph
from ml_assets.features.module import load_feature_module
from ml_assets.reading.reference import UNITS, measured_paths, pipeline_reference
from ml_assets.reading.schema import pipeline_schema
from resources.profiles import Profile

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FLIGHTS = ROOT / "deployments" / "flights" / "defs" / "arrival_delay"
MADE_LATER = ("deployments/acme", "deployments/pipeline.schema.json", "deployments/TEAM")
"""Places that a reader makes; the documentation names them before they exist."""


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)


def section(text: str, heading: str) -> str:
    """Return what stands below a heading of the second level."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, f"no heading {heading!r}"
    return found[1]


def first_cells(table: str) -> dict[str, str]:
    """Return each row of the Markdown tables in a text by the code in its first cell."""
    rows = (line for line in table.splitlines() if line.startswith("| `"))
    return {row.split("`")[1]: row for row in rows}


def in_one_line(text: str) -> str:
    return " ".join(text.split())


# The reference of the YAML


def test_the_reference_is_the_schema(update_golden: bool) -> None:
    file = DOCS / "reference" / "pipeline-yaml.md"
    if update_golden:
        file.write_text(pipeline_reference(), encoding="utf-8")

    assert file.read_text(encoding="utf-8") == pipeline_reference(), "write it anew with --update-golden"


def test_the_reference_has_every_field() -> None:
    schema = pipeline_schema()
    definitions = schema["$defs"]
    fields = {name for node in (schema, *definitions.values()) for name in node.get("properties", {})}
    documented = {path.rpartition(".")[2] for path in first_cells(pipeline_reference())}

    assert fields <= documented


def test_every_number_and_time_span_has_a_unit() -> None:
    assert measured_paths(pipeline_schema()["$defs"]) == set(UNITS)


# Commands, targets, variables


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command and every command of a group, by what one types after `ml-assets`."""
    pending = [(name, cli.get_command(click.Context(cli), name)) for name in sorted(COMMANDS)]
    while pending:
        name, command = pending.pop(0)
        assert command is not None
        if isinstance(command, click.Group):
            pending = [(f"{name} {inner}", found) for inner, found in sorted(command.commands.items())] + pending
        else:
            yield name, command


EVERY_COMMAND = dict(commands())


def test_every_command_is_documented_and_no_other() -> None:
    headings = set(re.findall(r"^## (.+)$", page("reference/commands.md"), flags=re.MULTILINE))

    assert headings == {*EVERY_COMMAND, "make"}


@pytest.mark.parametrize("name", EVERY_COMMAND)
def test_every_option_is_documented_with_its_default(name: str) -> None:
    options = [p for p in EVERY_COMMAND[name].params if isinstance(p, click.Option)]
    rows = first_cells(section(page("reference/commands.md"), name))

    assert set(rows) == {option.opts[0] for option in options}
    for option in options:
        told = rows[option.opts[0]].split("|")[2]
        if option.required:
            assert told.strip() == "required", option.name
        for default in defaults(option):
            assert default in told, option.name


def defaults(option: click.Option) -> list[str]:
    """Return what an option has when it is left out; nothing for a flag that is off and for one without default."""
    default = option.to_info_dict()["default"]
    values = default if isinstance(default, list | tuple) else [default]
    return [str(value) for value in values if value not in {None, False} and "UNSET" not in str(value).upper()]


@pytest.mark.parametrize("name", EVERY_COMMAND)
def test_the_usage_line_of_each_command_is_right(name: str) -> None:
    command = EVERY_COMMAND[name]
    usage = " ".join(command.collect_usage_pieces(click.Context(command)))

    assert f"`ml-assets {name} {usage}`" in in_one_line(section(page("reference/commands.md"), name))


def typed(file: Path) -> Iterator[list[str]]:
    """Yield the words of every `ml-assets` command in a page's shell blocks."""
    text = file.read_text(encoding="utf-8")
    for block in blocks(text, "sh") + blocks(text, "shell"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["ml-assets"]:
                yield words[1:]


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_commands_in_examples_are_called_rightly(file: Path) -> None:
    for words in typed(file):
        context, rest = click.Context(cli, info_name="ml-assets"), words
        command: click.Command = cli
        while isinstance(command, click.Group):
            found = command.get_command(context, rest[0])
            assert found is not None, " ".join(words)
            command, rest = found, rest[1:]
        try:
            command.make_context(command.name, list(rest), resilient_parsing=False)
        except click.UsageError as error:
            raise AssertionError(f"ml-assets {' '.join(words)}: {error.message}") from error


def test_every_make_target_is_documented() -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    rows = first_cells(section(page("reference/commands.md"), "make"))

    assert set(rows) == {f"make {target}" for target in targets if target != "all"}


def test_every_variable_that_is_read_is_documented() -> None:
    tree = ast.parse((ROOT / "resources" / "profiles.py").read_text(encoding="utf-8"))
    read = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "read"
        if isinstance(node.args[0], ast.Constant)
    }
    assert read
    assert set(first_cells(section(page("reference/environment.md"), "What is read"))) == read


def test_every_variable_that_is_set_is_documented(tmp_path: Path) -> None:
    profile = Profile(
        project_root=ROOT,
        state=tmp_path,
        data_url="",
        landing_url="",
        policy_url="",
        trial_people=None,
        ledger_url="",
        mlflow_url="",
        mlflow_artifacts=None,
        dossier_url="",
        anchor_url=None,
        keys_folder=tmp_path,
        user="",
    )
    documented = first_cells(page("reference/environment.md"))

    assert set(profile.environment()) <= set(documented)


# Links and places


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", without_code(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def targets(file: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield (as written, path, anchor) of a page's links and pictures within the project."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(file.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if not re.match(r"https?://", target):
            yield target, (file.parent / path).resolve() if path else file, anchor


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    broken = [
        written
        for written, place, anchor in targets(file)
        if place.suffix != ".png"
        and (not place.exists() or (anchor and anchor not in anchors(place.read_text(encoding="utf-8"))))
    ]

    assert broken == []


def test_pictures_are_there() -> None:
    pictures = [place for file in PAGES for _, place, _ in targets(file) if place.suffix == ".png"]

    assert pictures
    assert [str(place.relative_to(ROOT)) for place in pictures if not place.exists()] == []


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_that_are_named_exist(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    folders = "ml_assets|resources|sensors|deployments|policies|tests|docs"
    named = re.findall(rf"`((?:{folders})/(?:[\w.-]+/)*(?:[\w-]+\.\w+)?)`", text)

    assert [name for name in named if not name.startswith(MADE_LATER) and not (ROOT / name).exists()] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    """A guide, concept or reference in one step; a decision through the page of its folder or another page."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [str(p.relative_to(ROOT)) for p in PAGES if p.parent.name != "decisions" and p.name != "README.md"]
    linked = {place for file in PAGES for _, place, _ in targets(file)}

    assert [name for name in pages if f"({name}" not in readme] == []
    assert [file.name for file in (DOCS / "decisions").glob("*.md") if file not in linked] == []


# What the README quotes


def omissions(part: Any, whole: Any, place: str = "") -> Iterator[tuple[str, int]]:
    """Yield where a shortened text leaves entries out, and how many; fail where the two differ."""
    if isinstance(whole, dict):
        assert isinstance(part, dict), place
        assert set(part) <= set(whole), f"{place}: {sorted(set(part) - set(whole))}"
        if len(whole) > len(part):
            yield place, len(whole) - len(part)
        for key, value in part.items():
            yield from omissions(value, whole[key], f"{place}.{key}")
    elif isinstance(whole, list) and len(part) < len(whole):
        kept = [entry for entry in whole if entry in part]
        assert kept == part, place
        yield place, len(whole) - len(part)
    else:
        assert part == whole, place


def test_the_readme_shows_the_flights_pipeline_and_says_what_it_leaves_out() -> None:
    block = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "yaml")[0]
    told = sorted(int(number) for number in re.findall(r"# (\d+) more$", block, flags=re.MULTILINE))

    left_out = dict(omissions(yaml.safe_load(block), yaml.safe_load((FLIGHTS / "defs.yaml").read_text())))

    assert sorted(left_out.values()) == told, left_out


@pytest.mark.parametrize(
    ("file", "function"), [(ROOT / "README.md", "departure_minute"), (DOCS / "guides" / "features.md", "late")]
)
def test_functions_are_quoted_as_they_are(file: Path, function: str) -> None:
    quoted = [b for b in blocks(file.read_text(encoding="utf-8"), "python") if f"def {function}(" in b]

    assert len(quoted) == 1
    assert quoted[0] in (FLIGHTS / "features.py").read_text(encoding="utf-8")


# Messages that the guides quote


BREAKS_THE_CONTRACT = """
import pandas as pd
from ml_assets.features import lag

def fewer_rows(amount: pd.Series) -> pd.Series:
    return amount[amount > 10]

def sorted_rows(amount: pd.Series) -> pd.Series:
    return amount.sort_values()

def array(amount: pd.Series) -> pd.Series:
    return amount.to_numpy()

def mixed(amount: pd.Series) -> pd.Series:
    return amount.astype(object)

def divide(amount: pd.Series) -> pd.Series:
    return amount / int("three")

def back(amount: pd.Series, day: pd.Series, shop: pd.Series) -> pd.Series:
    return lag(amount, time=day, offset="-1D", by=shop)

def twice(amount: pd.Series, day: pd.Series, shop: pd.Series) -> pd.Series:
    return lag(amount, time=day, offset="1D", by=shop)
"""


@pytest.mark.parametrize("function", re.findall(r"def (\w+)", BREAKS_THE_CONTRACT))
def test_messages_of_the_feature_contract_are_quoted_as_they_are(function: str, tmp_path: Path) -> None:
    (tmp_path / "features.py").write_text(BREAKS_THE_CONTRACT, encoding="utf-8")
    days = pd.to_datetime(["2024-01-01", "2024-01-01", "2024-01-02"])
    rows = pd.DataFrame({"amount": [30.0, 5.0, 20.0], "day": days, "shop": ["a", "a", "a"]})
    graph = FeatureGraph(module=load_feature_module(tmp_path, "features.py"))

    with pytest.raises(FeatureError) as error:
        graph.compute([function], rows)

    assert str(error.value) in in_one_line(page("guides/features.md"))


def test_messages_on_reading_are_those_of_the_golden_files() -> None:
    golden = in_one_line(" ".join(f.read_text() for f in (ROOT / "tests/golden/spec_errors").glob("*/expected.txt")))
    quoted = [b for b in blocks(page("guides/features.md"), "text") if "expected" in b]
    messages = [in_one_line(m) for b in quoted for m in re.split(r"^(?=features\.py:)", b, flags=re.MULTILINE) if m]

    assert len(messages) >= 5
    assert [message for message in messages if message not in golden] == []
