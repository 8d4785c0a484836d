"""Strict YAML that remembers lines: plain values by the YAML 1.2 core schema, and where each of them stands.

Differences from `yaml.safe_load`, each for a file that people write and review: only `true` and `false`
are booleans (`on`, `yes`, `no` stay text); dates such as `2013-01-01` stay text; `010` is ten; keys are
always text (`2013:` is the key "2013"); duplicate keys, aliases, anchors, tags and second documents are
refused. All problems of a file are told at once.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.reader import Reader

from ml_assets.errors import Problem, SpecError

YamlPath = tuple[str | int, ...]
"""Keys and list indexes from the root, such as ("checks", 0, "severity")."""

MAX_BYTES = 1_000_000
MAX_DEPTH = 50

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII
)
_MAX_DIGITS = 400  # beyond the range of a float; Python itself refuses to convert more than 4,300
_HINTS = (
    ("cannot start any token", "indent with spaces, not tabs; quote a text that begins with @, ` or %"),
    ("mapping values are not allowed", "quote a text that contains ': ', and check the indentation"),
    ("expected", "check indentation, brackets and quotes on this line and the one above"),
)


@dataclass(frozen=True, kw_only=True)
class PositionedYaml:
    """A YAML document and the line of everything in it.

    Attributes:
        file: The file as the reader would open it.
        data: Plain Python: dict (text keys), list, str, int, float, bool or None.
        lines: 1-based line of each key and list item by its path; () is the document's first value.
    """

    file: str
    data: Any
    lines: Mapping[YamlPath, int] = field(repr=False)

    def line(self, path: YamlPath = ()) -> int:
        """Return the 1-based line of a key or item, or of its nearest parent that exists."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 1


def dotted(path: YamlPath) -> str:
    """Return a path in words.

    >>> dotted(("checks", 0, "severity"))
    'checks[0].severity'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def load_yaml(text: str, *, file: str) -> PositionedYaml:
    """Parse one YAML document.

    Args:
        text: The file's content; empty text gives `data` None.
        file: Path to name in problems.

    Raises:
        SpecError: If the text is no YAML, larger than 1 MB or nested deeper than 50, or holds duplicate keys,
            keys that are no scalar, aliases, anchors, tags or a second document.
    """
    _refuse_unreadable(text, file)
    document = _Document(text, file)
    data = document.read()
    if document.problems:
        raise SpecError(document.problems)
    return PositionedYaml(file=file, data=data, lines=document.lines)


def _refuse_unreadable(text: str, file: str) -> None:
    """Refuse what is not worth or not safe parsing."""
    # Checked first: a lone surrogate could not be encoded below, and the parser would not tell the line.
    if control := Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, control.start()) + 1
        found = f"the control character {control.group()!r}"
        raise SpecError([Problem(file=file, line=line, field="", found=found, expected="printable text in UTF-8")])
    if (size := len(text.encode())) > MAX_BYTES:
        found, expected = f"{size:,} bytes", f"at most {MAX_BYTES:,} bytes"
        raise SpecError([Problem(file=file, line=0, field="", found=found, expected=expected)])


class _Document:
    """Builds one document from parser events, not from nodes: there an alias is seen, not expanded."""

    def __init__(self, text: str, file: str) -> None:
        self.problems: list[Problem] = []
        self.lines: dict[YamlPath, int] = {}
        self._file = file
        self._n_lines = max(1, len(text.splitlines()))
        loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        self._events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=loader))

    def read(self) -> Any:
        """Return the document's value; what is wrong goes to `problems` and reads as None."""
        data = None
        try:
            for event in self._events:
                if isinstance(event, yaml.DocumentStartEvent):
                    if () in self.lines:
                        self._refuse(event, (), "a second document", "one document in a file")
                        break
                    data = self._value(next(self._events), ())
        except yaml.MarkedYAMLError as error:
            self.problems.append(self._syntax_problem(error))
        except _TooDeepError:
            pass  # already among the problems; nothing after it can be placed
        return data

    def _value(self, event: yaml.Event, path: YamlPath) -> Any:
        self.lines.setdefault(path, self._line(event))
        if len(path) > MAX_DEPTH:
            self._refuse(event, path[:3], f"more than {MAX_DEPTH} levels below this", "a flatter structure")
            raise _TooDeepError
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, path, f"the alias *{anchor}", "the value itself", "write it out here")
            return None
        if anchor:
            self._refuse(event, path, f"the anchor &{anchor}", "a value without an anchor")
        if tag := getattr(event, "tag", None):
            tag = tag.replace("tag:yaml.org,2002:", "!!")
            self._refuse(event, path, f"the tag {tag}", "a value without a tag", "quote a value to make it text")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._scalar(event, path) if isinstance(event, yaml.ScalarEvent) else None

    def _mapping(self, path: YamlPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, path)
            if key is None:
                self._skip(next(self._events))
                continue
            self.lines[*path, key] = self._line(event)
            result[key] = self._value(next(self._events), (*path, key))
        return result

    def _key(self, event: yaml.Event, path: YamlPath) -> str | None:
        """Return a usable key, or None when it was refused."""
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(event, path, "a key that is a list, mapping or alias", "a key that is text")
            self._skip(event)
            return None
        if not event.value or event.tag or event.anchor:
            self._refuse(event, path, "an empty, tagged or anchored key", "a key that is text")
            return None
        here = (*path, event.value)
        if here in self.lines:
            first = f"the key {event.value!r} a second time"
            self._refuse(event, here, first, "each key once", f"it stands on line {self.lines[here]} already")
            return None
        return event.value

    def _skip(self, event: yaml.Event) -> None:
        """Pass over one whole value."""
        level = 0
        while True:
            level += isinstance(event, yaml.CollectionStartEvent)
            level -= isinstance(event, yaml.CollectionEndEvent)
            if level == 0:
                return
            event = next(self._events)

    def _sequence(self, path: YamlPath) -> list[Any]:
        result: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            result.append(self._value(event, (*path, len(result))))
        return result

    def _scalar(self, event: yaml.ScalarEvent, path: YamlPath) -> str | int | float | bool | None:
        text = event.value
        if not event.implicit[0]:  # quoted or a block: text, whatever it looks like
            return text
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if not (_INTEGER.fullmatch(text) or _FLOAT.fullmatch(text)):
            return text
        if len(text) > _MAX_DIGITS:
            self._refuse(event, path, f"a number of {len(text)} digits", f"at most {_MAX_DIGITS}", "quote a text")
            return None
        if text.startswith(("0o", "0x")):
            return int(text, 0)
        if _INTEGER.fullmatch(text):
            return int(text)
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))

    def _line(self, event: yaml.Event) -> int:
        """Return an event's line, at most the last: a value that is not written may lie past the end."""
        mark = event.start_mark
        return min(mark.line + 1, self._n_lines) if mark else 1

    def _refuse(self, event: yaml.Event, path: YamlPath, found: str, expected: str, hint: str = "") -> None:
        line = self._line(event)
        self.problems.append(
            Problem(file=self._file, line=line, field=dotted(path), found=found, expected=expected, hint=hint)
        )

    def _syntax_problem(self, error: yaml.MarkedYAMLError) -> Problem:
        """Describe where the parser gave up; the mark may lie one line past the end."""
        mark = error.problem_mark or error.context_mark
        line = min(mark.line + 1, self._n_lines) if mark else 0
        words = " ".join(part for part in (error.context, error.problem) if part)
        hint = next((hint for words_in, hint in _HINTS if words_in in words), "")
        return Problem(file=self._file, line=line, field="", found=words, expected="valid YAML", hint=hint)


class _TooDeepError(Exception):
    """Ends the reading of a document that is nested too deep."""
