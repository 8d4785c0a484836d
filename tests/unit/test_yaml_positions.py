"""Strict YAML with line numbers: values by the core schema, every refusal with its line."""

import math
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.errors import Problem, SpecError
from ml_assets.yaml_positions import MAX_BYTES, MAX_DEPTH, dotted, load_yaml


def problems_of(text: str) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        load_yaml(text, file="p.yaml")
    return caught.value.problems


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.", 1.0),
        (".5", 0.5),
        ("5e-05", 5e-05),
        ("1e3", 1000.0),
        ("-.inf", -math.inf),
        ("+.Inf", math.inf),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("2013-01-01", "2013-01-01"),
        ("2013-01-01T00:00:00Z", "2013-01-01T00:00:00Z"),
        ("2013-01", "2013-01"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("''", ""),
        ("=", "="),
        ("<<", "<<"),
        ("1٣", "1٣"),
    ],
)
def test_scalar_by_the_core_schema(written: str, value: object) -> None:
    data = load_yaml(f"key: {written}\n", file="p.yaml").data

    assert data == {"key": value}
    assert type(data["key"]) is type(value)


def test_nan_is_a_float() -> None:
    assert math.isnan(load_yaml(".nan", file="p.yaml").data)


def test_keys_are_text() -> None:
    data = load_yaml("on: 1\n2013: 2\ntrue: 3\n2013-01-01: 4\n<<: {a: 5}\n", file="p.yaml").data

    assert data == {"on": 1, "2013": 2, "true": 3, "2013-01-01": 4, "<<": {"a": 5}}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_nothing_written_is_none(text: str) -> None:
    document = load_yaml(text, file="p.yaml")

    assert document.data is None
    assert document.line(("a",)) == 1


def test_lines_of_keys_and_items() -> None:
    text = (
        "# comment\nowner: team\nchecks:\n  - type: a\n    kwargs: {x: 1,\n      y: 2}\n"
        "  -\n    type: b\nlast: |\n  x\n"
    )
    document = load_yaml(text, file="p.yaml")

    assert document.line(("owner",)) == 2
    assert document.line(("checks",)) == 3
    assert document.line(("checks", 0)) == 4
    assert document.line(("checks", 0, "kwargs", "x")) == 5
    assert document.line(("checks", 0, "kwargs", "y")) == 6
    assert document.line(("checks", 1, "type")) == 8
    assert document.line(("last",)) == 9
    assert document.line() == 2


def test_line_of_what_is_missing_is_its_nearest_parent() -> None:
    document = load_yaml("a: 1\nb:\n  c:\n    d: 1\n", file="p.yaml")

    assert document.line(("b", "c", "x", 4, "y")) == 3
    assert document.line(("b", "x")) == 2
    assert document.line(("x",)) == 1


@pytest.mark.parametrize(
    ("text", "line", "field", "found"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a", "the key 'a' a second time"),
        ("n:\n  1: x\n  '1': y\n", 3, "n.1", "the key '1' a second time"),
        ("a: 1\nb: *x\n", 2, "b", "the alias *x"),
        ("a:\n  - &x 1\n", 2, "a[0]", "the anchor &x"),
        ("a: !!python/object:os.system x\n", 1, "a", "the tag !!python/object:os.system"),
        ("a: !env X\n", 1, "a", "the tag !env"),
        ("a: 1\n---\nb: 1\n", 2, "", "a second document"),
        ("n:\n  ? [1]\n  : 2\n", 2, "n", "a key that is a list, mapping or alias"),
        ("n:\n  '': 2\n", 2, "n", "an empty, tagged or anchored key"),
        ("a: 1\nb: '\x07'\n", 2, "", "the control character '\\x07'"),
        ("a: \ud800\n", 1, "", "the control character '\\ud800'"),
        (f"a: {'9' * 5000}\n", 1, "a", "a number of 5000 digits"),
    ],
)
def test_refusals_name_line_field_and_what_was_found(text: str, line: int, field: str, found: str) -> None:
    (problem,) = problems_of(text)

    assert (problem.file, problem.line, problem.field, problem.found) == ("p.yaml", line, field, found)


def test_all_problems_are_told_at_once_in_file_order() -> None:
    found = problems_of("a: &x 1\na: {b: 1}\na: {b: 1}\nc: *x\nd: !t 1\ne: [\n")

    assert [(p.line, p.field) for p in found[:5]] == [(1, "a"), (2, "a"), (3, "a"), (4, "c"), (5, "d")]
    assert found[5].expected == "valid YAML"
    assert found[1].hint == "it stands on line 1 already"


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("a:\n\tb: 1\n", 2, "indent with spaces"),
        ("a: 1\nb: c: d\n", 2, "quote a text that contains ': '"),
        ("a:\n  - b\n c: d\n", 3, "check indentation"),
        ("a: [1, 2\n", 1, "check indentation"),
        ("a: 1\nb: 'x\n", 2, "quotes"),
        ("a: 1\nb: @x\n", 2, "begins with @"),
    ],
)
def test_syntax_error_has_line_and_hint(text: str, line: int, hint: str) -> None:
    (problem,) = problems_of(text)

    assert problem.line == line
    assert problem.expected == "valid YAML"
    assert hint in problem.hint


def test_too_large() -> None:
    (problem,) = problems_of("#" + "x" * MAX_BYTES)

    assert str(problem) == "p.yaml: 1,000,001 bytes; expected at most 1,000,000 bytes"


def test_nesting_is_limited() -> None:
    assert load_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, file="p.yaml").data

    (problem,) = problems_of("a:\n  " + "[" * 200_000)
    assert problem.line == 2
    assert problem.found == "more than 50 levels below this"


def test_a_bomb_of_aliases_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30))]
    started = time.process_time()

    found = problems_of("\n".join(lines))

    assert time.process_time() - started < 2
    assert found[0].found == "the anchor &a0"


@pytest.mark.parametrize(
    ("path", "text"), [((), ""), (("a",), "a"), (("a", 0, "b"), "a[0].b"), ((0, "b", 1), "[0].b[1]")]
)
def test_dotted(path: tuple[str | int, ...], text: str) -> None:
    assert dotted(path) == text


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(blacklist_categories=["Cs", "Cc", "Cn", "Co"])),
)


class _QuotingDumper(yaml.SafeDumper):
    """Quotes every text, since YAML 1.1 writes some plain that YAML 1.2 reads as numbers, such as 0o17."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_QuotingDumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


@given(st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.from_regex(r"[a-z]+"), inner)))
def test_what_yaml_dumps_is_read_back_equal(data: object) -> None:
    text = yaml.dump(data, Dumper=_QuotingDumper, allow_unicode=True, width=1000)

    assert load_yaml(text, file="p.yaml").data == data


@given(st.text())
def test_any_text_is_read_or_explained(text: str) -> None:
    try:
        last_lines = [load_yaml(text, file="p.yaml").line()]
    except SpecError as error:
        last_lines = [problem.line for problem in error.problems]

    assert all(0 <= line <= len(text.splitlines()) + 1 for line in last_lines)
