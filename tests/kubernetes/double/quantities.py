"""Resource quantities of Kubernetes ("250m", "2Gi") as exact numbers, and what a pod asks for in all."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

Amounts = dict[str, Fraction]

_SUFFIXES = {
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
}


def parse(value: Any) -> Fraction:
    """Return a quantity as an exact number: cores, bytes or pieces. Raises ValueError for what is none."""
    text = str(value).strip()
    for suffix, factor in _SUFFIXES.items():
        if text.endswith(suffix):
            return Fraction(text[: -len(suffix)]) * factor
    return Fraction(text)  # also 1e3


def parse_all(amounts: Mapping[str, Any] | None) -> Amounts:
    return {name: parse(value) for name, value in (amounts or {}).items()}


def show(value: Fraction) -> str:
    """Return the amount as a server prints it: whole, or in thousandths."""
    if value.denominator == 1:
        return str(value.numerator)
    milli = value * 1000
    return f"{milli.numerator // milli.denominator}m"


def total(parts: Iterable[Mapping[str, Fraction]]) -> Amounts:
    result: Amounts = {}
    for part in parts:
        for name, value in part.items():
            result[name] = result.get(name, Fraction(0)) + value
    return result


def container_requests(container: Mapping[str, Any]) -> Amounts:
    """Return what a container asks for; a limit without a request is a request."""
    resources = container.get("resources") or {}
    return {**parse_all(resources.get("limits")), **parse_all(resources.get("requests"))}


def pod_requests(spec: Mapping[str, Any]) -> Amounts:
    """Return what a pod asks for: the sum of its containers, or its largest init container where that is more."""
    result = total(container_requests(container) for container in spec.get("containers") or [])
    for container in spec.get("initContainers") or []:
        for name, value in container_requests(container).items():
            result[name] = max(result.get(name, Fraction(0)), value)
    return result


def pod_limits(spec: Mapping[str, Any]) -> Amounts:
    return total(parse_all((c.get("resources") or {}).get("limits")) for c in spec.get("containers") or [])
