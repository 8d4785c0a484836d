"""Profiles as documents: they come back as they were, and what is damaged or hostile is refused with its place."""

import base64
import copy
import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.digest import canonical_json
from ml_assets.errors import StoreError
from ml_assets.profiles.document import MAX_BYTES, from_document, to_document
from ml_assets.profiles.profile import Profile, merge
from ml_assets.profiles.table import profile_table
from tests.unit.profile_tables import days_of, numbers, profile_of, rows, texts

Document = dict[str, Any]


def sample() -> Profile:
    rng = np.random.default_rng(0)
    n = 3_000
    table = pa.table(
        {
            "number": pa.array(rng.normal(size=n), mask=rng.random(n) < 0.1),
            "whole": rng.integers(0, 10, n),
            "text": [f"v{i}" for i in rng.integers(0, 9, n)],
            "id": [f"id-{i // 2}" for i in range(n)],
        }
    )
    return profile_table(table, table.column_names, days_of(np.sort(rng.integers(0, 30, n))))


@given(rows(numbers), rows(texts), rows(numbers))
def test_a_document_comes_back(first: list[Any], second: list[Any], third: list[Any]) -> None:
    parts = [profile_of(first, pa.float64()), profile_of(third, pa.float64())]
    for profile in (merge(parts), profile_of(second, pa.string())):
        document = to_document(profile)
        read = from_document(json.loads(canonical_json(document)))
        assert to_document(read) == document
        assert vars(read)["n_rows"] == profile.n_rows
        ours, theirs = read.columns["x"], profile.columns["x"]
        for fact in ("kind", "n_rows", "n_nulls", "n_values", "n_distinct", "is_distinct_exact"):
            assert getattr(ours, fact) == getattr(theirs, fact)


def test_a_read_profile_adds_up_like_the_one_that_was_written() -> None:
    written = sample()
    read = from_document(json.loads(json.dumps(to_document(written))))
    assert to_document(merge([read, written])) == to_document(merge([written, written]))


def test_a_months_document_is_small() -> None:
    rng = np.random.default_rng(0)
    table = pa.table({f"x{i}": rng.normal(size=9_000) for i in range(20)})
    profile = profile_table(table, table.column_names, days_of(np.sort(rng.integers(0, 30, 9_000))))
    assert len(canonical_json(to_document(profile))) < 300_000


def at(*path: Any) -> Callable[[Document], tuple[Any, Any]]:
    """Return what finds the container and key of a place in a document."""

    def find(document: Document) -> tuple[Any, Any]:
        place: Any = document
        for key in path[:-1]:
            place = place[key]
        return place, path[-1]

    return find


def packed(values: Any, dtype: str) -> Document:
    array = np.asarray(values, dtype=dtype)
    data = array.view(np.uint8).reshape(-1, array.itemsize).T.tobytes()
    return {"dtype": dtype, "shape": list(array.shape), "zlib": base64.b64encode(zlib.compress(data)).decode()}


def block(column: str, *path: Any) -> Callable[[Document], tuple[Any, Any]]:
    return at("columns", column, "blocks", 0, *path)


BOMB = {"dtype": "<f8", "shape": [8], "zlib": base64.b64encode(zlib.compress(bytes(50_000_000))).decode()}

DAMAGE: dict[str, tuple[Callable[[Document], tuple[Any, Any]], Any, str]] = {
    "format": (at("format"), 2, "format is 2, and this release reads 1"),
    "no rows": (at("n_rows"), -1, "-1 is not a whole number"),
    "truth for a number": (at("n_rows"), True, "True is not a whole number"),
    "fewer rows": (at("n_rows"), 2_999, "column 'number': ValueError: it has 3000 rows, and the profile has 2999"),
    "other days": (at("days"), packed([1, 2], "<i4"), "a day that the profile does not have"),
    "days twice": (at("days"), packed([1, 1], "<i4"), "not sorted and distinct"),
    "kind": (at("columns", "text", "kind"), "picture", "column 'text': ValueError: its kind is 'picture'"),
    "blocks": (at("columns", "text", "blocks"), 7, "TypeError"),
    "columns": (at("columns"), [], "AttributeError"),
    "bomb": (block("number", "mean"), BOMB, r"shape \[8\]; expected \[30\]"),
    "bomb of any size": (block("number", "hi"), BOMB, "does not have the 64 bytes of its shape"),
    "shape": (block("number", "hi", "shape"), [10**12], "bytes together"),
    "dimensions": (block("number", "hi", "shape"), [10**6, 10**6], "ValueError"),
    "negative shape": (block("number", "hi", "shape"), [-1], "-1 is not a whole number"),
    "dtype": (block("number", "counts", "dtype"), "<f8", "dtype '<f8'; expected 'u'"),
    "objects": (block("number", "counts", "dtype"), "|O", "dtype '|O'"),
    "base64": (block("number", "hi", "zlib"), "é", "ValueError"),
    "zlib": (block("number", "hi", "zlib"), "AAAA", "column 'number': error"),
    "cut off": (block("whole", "hi", "zlib"), packed(range(10), "<f8")["zlib"][:-12], "does not have the 80 bytes"),
    "not ascending": (block("whole", "hi"), packed([0, 1, 2, 3, 4, 5, 6, 7, 9, 8], "<f8"), "not finite and ascending"),
    "not finite": (block("whole", "hi"), packed([*range(9), np.inf], "<f8"), "not finite and ascending"),
    "no mean": (block("whole", "mean"), packed([np.nan] * 30, "<f8"), "moments are not numbers"),
    "less than no spread": (block("whole", "m2"), packed([-1] * 30, "<f8"), "moments are not numbers"),
    "empty cells": (block("whole", "counts"), packed([[0] * 10] * 30, "|u1"), "fewer rows than values"),
    "lost registers": (block("number", "registers"), None, "nothing to tell how many there are"),
    "lost registers of texts": (block("id", "registers"), None, "nothing to tell how many there are"),
    "registers": (block("id", "registers"), packed([99] * 2_048, "|u1"), "greater than 54"),
    "values": (block("text", "values"), "v0v1v2v3v4", "not a list of texts"),
    "order of values": (block("text", "values", 0), "z", "not sorted and distinct"),
    "a value too many": (block("text", "values"), ["a"] + [f"v{i}" for i in range(9)], "has shape"),
    "bound": (block("text", "bound"), 1.5, "1.5 is not a whole number"),
    "missing": (block("text"), {}, "KeyError: 'days'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_document_is_refused_with_its_place(damage: str) -> None:
    find, value, message = DAMAGE[damage]
    document = copy.deepcopy(to_document(sample()))
    place, key = find(document)
    place[key] = value
    with pytest.raises(StoreError, match=message) as caught:
        from_document(document)
    assert "materialize the partition again" in str(caught.value)


@given(st.data())
def test_any_part_may_be_anything_and_is_refused_or_read(data: st.DataObject) -> None:
    document = SMALL if data.draw(st.booleans()) else TWO_KINDS
    document = copy.deepcopy(document)
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.integers(0, 4)) == 0:
            break
        place = place[key]
    place[key] = data.draw(ANYTHING)
    try:
        profile = from_document(document)
    except StoreError:
        return
    again = from_document(to_document(profile))
    assert again.n_rows == profile.n_rows


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=9),
    st.lists(st.integers(-1, 4), max_size=4),
    st.sampled_from(["<f8", "|u1", packed([1, 2], "|u1"), packed([1.0, 2.0], "<f8")]),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
SMALL = to_document(profile_of([(0, 1.0), (1, 2.0), (1, None)], pa.float64()))
TWO_KINDS = to_document(profile_of([(0, "a"), (1, "b"), (1, None)], pa.string()))


@pytest.mark.parametrize("document", [None, [], "profile", 7, {}])
def test_what_is_no_document_is_refused(document: Any) -> None:
    with pytest.raises(StoreError, match="format is None, and this release reads 1"):
        from_document(document)


def test_many_small_arrays_together_are_limited_too() -> None:
    n = MAX_BYTES // 8 // 100
    zeros = base64.b64encode(zlib.compress(bytes(n * 8))).decode()
    many = {"kind": "numeric", "blocks": [{"days": {"dtype": "<i4", "shape": [n * 2], "zlib": zeros}}]}
    document = {"format": 1, "n_rows": 0, "days": packed([], "<i4"), "columns": {"x": many}}
    with pytest.raises(StoreError, match="not sorted and distinct"):
        from_document(document)
    many["blocks"][0]["days"]["shape"] = [n * 202]
    with pytest.raises(StoreError, match="more than 536,870,912 bytes together"):
        from_document(document)
