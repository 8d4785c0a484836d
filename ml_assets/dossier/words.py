"""Numbers, instants and documents in words, the same everywhere on the page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ml_assets.bootstrap import Interval

NOTHING = "—"
MAX_ENTRIES = 60

Measured = Interval | Mapping[str, Any] | None
"""An interval, or its fields in a document; None where nothing was measured."""


def ends_of(measured: Measured) -> tuple[float, float, float] | None:
    """Return (estimate, lower, upper), or None unless all three are finite numbers.

    >>> ends_of({"estimate": 0.5, "lower": 0.4, "upper": 0.6})
    (0.5, 0.4, 0.6)
    """
    if isinstance(measured, Interval):
        found = (measured.estimate, measured.lower, measured.upper)
    else:
        found = tuple((measured or {}).get(name) for name in ("estimate", "lower", "upper"))
    numbers = [float(v) for v in found if isinstance(v, int | float) and math.isfinite(v)]
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def _digits(*values: float) -> int:
    largest = max((abs(value) for value in values), default=0.0)
    return 4 if largest < 0.1 else 3 if largest < 10 else 1


def signed(value: float, digits: int, *, sign: str = "") -> str:
    """Return a number with a true minus sign.

    >>> signed(-1234.5, 1)
    '−1,234.5'
    """
    return f"{value:{sign},.{digits}f}".replace("-", "−")


def estimate_and_ends(measured: Measured, *, sign: str = "") -> tuple[str, str]:
    """Return ("0.649", "[0.620, 0.683]") with as many digits as the size asks for; dashes when not measured."""
    ends = ends_of(measured)
    if ends is None:
        return NOTHING, ""
    digits = _digits(*ends)
    estimate, lower, upper = (signed(value, digits, sign=sign) for value in ends)
    return estimate, f"[{lower}, {upper}]"


def interval_words(measured: Measured, *, sign: str = "") -> str:
    """Return "0.649 [0.620, 0.683]"."""
    return " ".join(part for part in estimate_and_ends(measured, sign=sign) if part)


def percent(fraction: Any) -> str:
    """Return "95 %"."""
    return f"{100 * fraction:.4g} %" if isinstance(fraction, int | float) else NOTHING


def count(number: Any, thing: str = "") -> str:
    """Return "1 row" or "27,004 rows"; a dash when it is unknown."""
    if not isinstance(number, int | float):
        return NOTHING
    words = f"{number:,.0f}"
    return words if not thing else f"{words} {thing}{'' if number == 1 else 's'}"


def instant(value: datetime | str | None) -> str:
    """Return "2026-11-25 14:05:09 UTC"; text that is no instant as it is, and "not recorded" for nothing."""
    if not value:
        return "not recorded"
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return str(value)
    if value.tzinfo is None:
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def plain(value: Any) -> str:
    """Return any value of a JSON document in words.

    >>> plain([True, None, 0.5, "a"])
    'yes, —, 0.5, a'
    """
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}".replace("-", "−") if math.isfinite(value) else NOTHING
    if isinstance(value, int):
        return f"{value}".replace("-", "−")
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {plain(item)}" for name, item in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return ", ".join(plain(item) for item in value) or "none"
    return str(value)


def _flat(document: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", plain(value)


def flattened(document: Mapping[str, Any]) -> dict[str, str]:
    """Return dotted names and words of a nested document, in its order.

    >>> flattened({"a": {"b": 1}, "c": []})
    {'a.b': '1', 'c': 'none'}
    """
    return dict(_flat(document, ""))


def entries(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return `flattened` as pairs, at most 60 of them; a last one says how many more there are."""
    found = list(flattened(document).items())
    more = len(found) - MAX_ENTRIES
    return [*found[:MAX_ENTRIES], ("…", f"and {more:,} more")] if more > 0 else found
