"""Plain words for what stands in a YAML file and for what was expected there."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

SHOWN_CHARACTERS = 60
SHOWN_NAMES = 20
SHOWN_BESIDE_HINT = 5

_PATTERNS = {
    r"^[a-z][a-z0-9_]{0,62}$": "a name of lower-case letters, digits and underscores that starts with "
    "a letter (at most 63 characters)",
    r"^(team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$": "team:name or an e-mail address",
    r"^\d{4}(-\d{2}(-\d{2})?)?$": "a year, month or day written 2013, 2013-01 or 2013-01-01",
    r"^[A-Za-z0-9_]+(/[A-Za-z0-9_]+)+$": "an asset's key with slashes, such as weather/forecast/predictions",
    r"^[a-z][a-z0-9-]{0,62}$": "a name of lower-case letters, digits and hyphens that starts with a letter "
    "(at most 63 characters)",
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$": "a name such as nvidia-t4",
    r"^[A-Z]{3}$": "a currency's ISO 4217 code such as EUR",
    r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$": "the name of a Kubernetes priority class",
    r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$": "a Kubernetes label's value",
    r"^([a-z0-9][a-z0-9.-]{0,251}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$": "a Kubernetes label's name, "
    "such as pool",
    r"^(estimator|preprocessing)\.[A-Za-z_][A-Za-z0-9_]*$": "estimator.<parameter> or preprocessing.<field>, "
    "such as estimator.max_depth",
    r"^(\d{1,6})(min|h|d|w)$": "a whole number and a unit (min, h, d or w), such as 12h",
}
_WORDS_FOR_TRUE, _WORDS_FOR_FALSE = frozenset({"yes", "y", "on"}), frozenset({"no", "n", "off"})


def found(value: Any) -> str:
    """Return a value, shortened, and its type in YAML's words.

    >>> found("thre"), found(3), found([])
    ("'thre' (text)", '3 (whole number)', 'an empty list')
    """
    if value is None:
        return "nothing (the value is empty)"
    if isinstance(value, bool):
        return f"{str(value).lower()} (true/false)"
    if isinstance(value, int | float):
        return f"{_shortened(str(value))} ({'whole number' if isinstance(value, int) else 'number'})"
    if isinstance(value, str):
        return f"{quoted(value)} (text)"
    if isinstance(value, Mapping):
        names = f" with the fields {listed(value)}" if value else ""
        return f"a mapping{names}" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return f"a list of {count(len(value), 'item')}" if value else "an empty list"
    return f"{_shortened(repr(value))} ({type(value).__name__})"


def quoted(text: str) -> str:
    """Return text in quotes, shortened, with line breaks and control characters made visible."""
    return repr(_shortened(text))


def visible(text: str) -> str:
    """Return text with line breaks and control characters as escapes, so that a message stays on its line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def listed(names: Iterable[object], *, most: int = SHOWN_NAMES) -> str:
    """Return names separated by commas, in their order, the rest counted.

    >>> listed(["a", "b", "c"], most=2)
    'a, b, … (1 more)'
    """
    words = [visible(_shortened(str(name))) for name in names]
    rest = [f"… ({len(words) - most} more)"] if len(words) > most else []
    return ", ".join(words[:most] + rest)


def either(words: Sequence[str]) -> str:
    """Return words as a choice.

    >>> either(["bool", "int8", "int16"])
    'bool, int8 or int16'
    """
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count(1, "item"), count(2, "item")
    ('1 item', '2 items')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def span(time: timedelta) -> str:
    """Return a time span of whole minutes as the YAML writes it, in the largest unit that divides it.

    >>> span(timedelta(hours=2)), span(timedelta(minutes=90))
    ('2h', '90min')
    """
    for unit, length in (("d", timedelta(days=1)), ("h", timedelta(hours=1))):
        if time % length == timedelta():
            return f"{time // length}{unit}"
    return f"{time / timedelta(minutes=1):g}min"


def closest(word: str, options: Iterable[str]) -> str | None:
    """Return the option that was probably meant, or None; case does not matter."""
    by_lower = {option.lower(): option for option in options}
    near = difflib.get_close_matches(word.lower()[:100], by_lower, n=1)
    return by_lower[near[0]] if near else None


def one_of(names: Iterable[object], hint: str = "") -> str:
    """Return "one of a, b, c"; only a few names when a hint tells the one that was probably meant."""
    return f"one of {listed(names, most=SHOWN_BESIDE_HINT if hint else SHOWN_NAMES)}"


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return "did you mean 'x'?" when one of the options is close, or nothing."""
    option = closest(word, options)
    return f"did you mean {option!r}?" if option is not None else ""


def expected(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return what a node of a JSON schema asks for, in words.

    Args:
        node: Schema of one field.
        definitions: The schema's `$defs`.
    """
    node = resolved(node, definitions)
    if "anyOf" in node:
        options = [option for option in node["anyOf"] if option.get("type") != "null"]
        return ", or ".join(expected(option, definitions) for option in options)
    if "enum" in node:
        return f"one of {listed(node['enum'])}"
    if "const" in node:
        return f"the word {node['const']}"
    kind = node.get("type")
    if kind == "string":
        return _PATTERNS.get(node["pattern"], f"text like {node['pattern']}") if "pattern" in node else "text"
    if kind in {"integer", "number"}:
        return _number(node)
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        return _list(node, definitions)
    if kind == "object":
        return _mapping(node)
    return "another value"


def resolved(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema node, or the definition that it refers to."""
    return definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def advice(value: Any, node: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return how to write what was probably meant, or nothing."""
    node = resolved(node, definitions)
    options = [resolved(option, definitions) for option in node.get("anyOf", [node])]
    kinds = {option.get("type") for option in options}
    words = [str(w) for option in options for w in (*option.get("enum", ()), *_constants(option))]
    if isinstance(value, str) and (near := did_you_mean(value, words) or _advice_on_text(value, kinds)):
        return near
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and not words and kinds <= {"string", "null"}:
        pattern = next(option.get("pattern", "") for option in options if option.get("type") == "string")
        return f"put it in quotes to make it text: '{value}'" if re.search(pattern, str(value)) else ""
    return node.get("description", "") if len(kinds - {"null"}) > 1 else ""


def _constants(node: Mapping[str, Any]) -> tuple[Any, ...]:
    return (node["const"],) if "const" in node else ()


def _advice_on_text(text: str, kinds: set[str | None]) -> str:
    if kinds == {"boolean"}:
        word = text.lower()
        return "write true" if word in _WORDS_FOR_TRUE else "write false" if word in _WORDS_FOR_FALSE else ""
    if kinds & {"integer", "number"} and text.strip().replace(".", "", 1).isdecimal():
        return "remove the quotes to make it a number"
    if "array" in kinds and "string" not in kinds and text:
        return f"write it as a list: [{visible(_shortened(text))}]"
    return ""


def _number(node: Mapping[str, Any]) -> str:
    noun = "a whole number" if node["type"] == "integer" else "a number"
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{noun} from {low:,} to {high:,}"
    parts = [
        f"of at least {low:,}" if low is not None else "",
        f"above {_figure(above)}" if above is not None else "",
        f"of at most {high:,}" if high is not None else "",
        f"below {_figure(below)}" if below is not None else "",
    ]
    return " ".join([noun, " and ".join(part for part in parts if part)]).strip()


def _figure(number: float) -> str:
    return f"{int(number):,}" if number == int(number) else f"{number:g}"


def _list(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    item = resolved(node.get("items", {}), definitions)
    what = {"string": "texts", "object": "mappings"}.get(str(item.get("type")), "values")
    return f"a list of {what}" + (" with at least one item" if node.get("minItems") else "")


def _mapping(node: Mapping[str, Any]) -> str:
    if fields := node.get("properties"):
        return f"a mapping with the fields {listed(fields)}"
    return "a mapping" + (" with at least one entry" if node.get("minProperties") else "")


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def first_sentence(text: str) -> str:
    """Return the first sentence of a description, on one line.

    >>> first_sentence("Length of a  partition. Or so.")
    'Length of a partition.'
    """
    line = " ".join(text.split())
    return line.partition(". ")[0].rstrip(".") + "." if line else ""
