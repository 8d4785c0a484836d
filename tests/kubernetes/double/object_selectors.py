"""Label and field selectors of list and watch requests, as predicates over objects."""

import re
from collections.abc import Callable

from tests.kubernetes.double.objects import ApiError, Obj

Predicate = Callable[[Obj], bool]

_ANY_KIND = {"metadata.name", "metadata.namespace"}
_FIELDS = {
    "pods": {
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    },
    "jobs": {"status.successful"},
    "namespaces": {"status.phase"},
    "nodes": {"spec.unschedulable"},
    "secrets": {"type"},
    "events": {
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    },
}
_SET_TERM = re.compile(r"^(\S+)\s+(in|notin)\s+\(([^)]*)\)$")
_LABEL_KEY = re.compile(r"^([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")


def by_labels(selector: str) -> Predicate:
    """Return the predicate of a label selector: `a=b`, `a!=b`, `a in (b,c)`, `a notin (b)`, `a`, `!a`, with commas."""
    tests = [_label_term(term.strip()) for term in re.split(r",(?![^(]*\))", selector) if term.strip()]
    return lambda obj: all(test(obj["metadata"].get("labels") or {}) for test in tests)


def by_fields(selector: str, plural: str) -> Predicate:
    """Return the predicate of a field selector; only the fields that a server indexes for this kind are allowed."""
    allowed = _ANY_KIND | _FIELDS.get(plural, set())
    terms = []
    for term in (part.strip() for part in selector.split(",") if part.strip()):
        match = re.match(r"^([^=!]+)(==|!=|=)(.*)$", term)
        if not match:
            raise ApiError(400, f'invalid selector: "{term}"; can\'t understand "{term}"')
        path, operator, wanted = match.groups()
        if path not in allowed:
            raise ApiError(
                400, f'Unable to find "{plural}" that match field selector: field label not supported: {path}'
            )
        terms.append((path.split("."), operator != "!=", wanted))
    return lambda obj: all((_value(obj, path) == wanted) == equal for path, equal, wanted in terms)


def _label_term(term: str) -> Callable[[dict[str, str]], bool]:
    if match := _SET_TERM.match(term):
        name, inside, values = match[1], match[2] == "in", {value.strip() for value in match[3].split(",")}
        return lambda labels: (labels.get(name) in values) == inside
    if "!=" in term:
        name, value = (part.strip() for part in term.split("!=", 1))
        return lambda labels: labels.get(name) != value
    if "=" in term:
        name, value = (part.strip() for part in re.split("==?", term, maxsplit=1))
        return lambda labels: labels.get(name) == value
    absent, name = term.startswith("!"), term.removeprefix("!")
    if not _LABEL_KEY.match(name):
        raise ApiError(400, f'unable to parse requirement: found "{term}", expected a label key')
    return lambda labels: (name in labels) != absent


def _value(obj: Obj, path: list[str]) -> str:
    value: object = obj
    if path == ["status", "successful"]:
        value = (obj.get("status") or {}).get("succeeded", 0)
    elif path == ["source"]:
        value = (obj.get("source") or {}).get("component")
    else:
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value)
