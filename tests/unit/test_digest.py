"""The content digests, and the folder names of partitions: their laws and their refusals."""

import itertools
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.digest import canonical_json, canonical_table, document_digest, table_digest
from ml_assets.errors import StoreError
from ml_assets.store_paths import asset_path, check_data_version, partition_key, partition_path
from ml_assets.testing.data_store_suite import every_type, small_table

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_VALUES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    (pa.float64(), st.floats()),
    (pa.bool_(), st.booleans()),
    (pa.string(), _TEXTS),
    (pa.large_binary(), st.binary(max_size=5)),
    (pa.timestamp("us", "UTC"), st.integers(-(2**55), 2**55)),
    (pa.list_(pa.int32()), st.lists(st.none() | st.integers(0, 3), max_size=3)),
    (
        pa.struct({"a": pa.string(), "b": pa.bool_()}),
        st.fixed_dictionaries({"a": st.none() | st.text("xy"), "b": st.none() | st.booleans()}),
    ),
]


@st.composite
def tables(draw: st.DrawFn, min_rows: int = 0) -> pa.Table:
    """Return a table of one to four columns of any types, with nulls."""
    n_rows = draw(st.integers(min_rows, 12))
    kinds = draw(st.lists(st.sampled_from(_VALUES), min_size=1, max_size=4))
    columns = [
        pa.array(draw(st.lists(st.none() | values, min_size=n_rows, max_size=n_rows)), kind) for kind, values in kinds
    ]
    return pa.table(columns, names=[f"c{index}" for index in range(len(columns))])


@given(tables(), st.lists(st.integers(0, 12), max_size=4))
def test_chunks_do_not_count(table: pa.Table, cuts: list[int]) -> None:
    ends = sorted({min(cut, table.num_rows) for cut in cuts} | {0, table.num_rows})
    pieces = [table.slice(start, end - start) for start, end in itertools.pairwise(ends)]
    pieces.insert(len(pieces) // 2, table.slice(0, 0))
    assert table_digest(pa.concat_tables(pieces)) == table_digest(table)


@given(tables(), st.integers(0, 12), st.integers(0, 12))
def test_what_lies_around_a_slice_does_not_count(table: pa.Table, start: int, length: int) -> None:
    part = table.slice(start, length)
    rebuilt = pa.table([pa.array(column.to_pylist(), column.type) for column in part.columns], part.column_names)
    assert table_digest(part) == table_digest(rebuilt)


@given(tables())
def test_metadata_and_nullability_do_not_count(table: pa.Table) -> None:
    fields = [field.with_metadata({"unit": "minutes"}) for field in table.schema]
    dressed = pa.Table.from_arrays(table.columns, schema=pa.schema(fields, {"pandas": "{}"}))
    assert table_digest(dressed) == table_digest(table)
    filled = pa.table({"x": pa.array([1, 2])})
    required = filled.cast(pa.schema([pa.field("x", pa.int64(), nullable=False)]))
    assert table_digest(required) == table_digest(filled)


@given(st.lists(st.none() | st.sampled_from(["UA", "", "é"]), max_size=9))
def test_categories_do_not_count(values: list[str | None]) -> None:
    plain = pa.array(values, pa.string())
    indices = pa.array([None if value is None else ["é", "", "unused", "UA"].index(value) for value in values])
    categories = pa.DictionaryArray.from_arrays(indices.cast(pa.int8()), ["é", "", "unused", "UA"], ordered=True)
    expected = table_digest(pa.table({"carrier": plain}))
    assert table_digest(pa.table({"carrier": categories})) == expected
    assert table_digest(pa.table({"carrier": plain.dictionary_encode()})) == expected


@given(st.lists(st.tuples(st.booleans(), st.integers(-9, 9), st.integers(-9, 9)), max_size=9))
def test_values_under_nulls_do_not_count(rows: list[tuple[bool, int, int]]) -> None:
    mask = np.array([is_null for is_null, _, _ in rows], dtype=bool)
    same = [shown for _, shown, _ in rows]
    other = [hidden if is_null else shown for is_null, shown, hidden in rows]
    for kind in (np.int64, np.float32):
        first, second = (pa.table({"x": pa.array(np.array(x, kind), mask=mask)}) for x in (same, other))
        assert table_digest(first) == table_digest(second)


def test_texts_under_nulls_and_an_idle_validity_bitmap_do_not_count() -> None:
    offsets, data = pa.py_buffer(np.array([0, 1, 5, 6], np.int32)), pa.py_buffer(b"aHIDEb")
    hidden = pa.Array.from_buffers(pa.string(), 3, [pa.py_buffer(b"\x05"), offsets, data])
    assert table_digest(pa.table({"x": hidden})) == table_digest(pa.table({"x": ["a", None, "b"]}))
    values = pa.py_buffer(np.array([1, 2, 3], np.int64))
    idle = pa.Array.from_buffers(pa.int64(), 3, [pa.py_buffer(b"\xff"), values])
    assert table_digest(pa.table({"x": idle})) == table_digest(pa.table({"x": [1, 2, 3]}))


def test_the_bits_of_a_nan_do_not_count_and_a_null_is_none() -> None:
    bits = np.array([0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000000000001], np.uint64).view(np.float64)
    first, second, third = (table_digest(pa.table({"x": pa.array([nan])})) for nan in bits)
    assert first == second == third
    assert first != table_digest(pa.table({"x": pa.array([None], pa.float64())}))
    assert table_digest(pa.table({"x": [0.0]})) != table_digest(pa.table({"x": [-0.0]}))


@given(tables(min_rows=1), st.data())
def test_each_value_counts(table: pa.Table, data: st.DataObject) -> None:
    column = data.draw(st.integers(0, table.num_columns - 1))
    row = data.draw(st.integers(0, table.num_rows - 1))
    kind = table.column(column).type
    values = table.column(column).to_pylist()
    new = data.draw(st.none() | next(strategy for known, strategy in _VALUES if known == kind))
    changed = pa.array([*values[:row], new, *values[row + 1 :]], kind)
    old_one, new_one = table.column(column)[row].as_py(), changed[row].as_py()
    both_nan = isinstance(old_one, float) and math.isnan(old_one) and isinstance(new_one, float)
    both_nan = both_nan and math.isnan(new_one)
    same = both_nan or (old_one == new_one and str(old_one) == str(new_one))
    altered = table.set_column(column, table.field(column).name, changed)
    assert (table_digest(altered) == table_digest(table)) is same


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"a": [1]}, {"b": [1]}),
        ({"a": [1], "b": [2]}, {"b": [2], "a": [1]}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": [1]}, {"a": pa.array([1], pa.int32())}),
        ({"a": ["x"]}, {"a": pa.array(["x"], pa.large_string())}),
        ({"a": ["x"]}, {"a": [b"x"]}),
        ({"a": ["ab", "c"]}, {"a": ["a", "bc"]}),
        ({"a": ["", None]}, {"a": [None, ""]}),
        ({"a": [[1], [2, 3]]}, {"a": [[1, 2], [3]]}),
        ({"a": [[None], []]}, {"a": [[], [None]]}),
        ({"a": pa.array([1], pa.timestamp("us"))}, {"a": pa.array([1], pa.timestamp("us", "UTC"))}),
        ({"a": pa.array([1], pa.timestamp("us"))}, {"a": pa.array([1], pa.timestamp("ns"))}),
        ({"a": pa.nulls(1)}, {"a": pa.nulls(2)}),
        ({"a": pa.nulls(1)}, {"a": pa.nulls(1, pa.int64())}),
        ({"a": pa.array([], pa.int64())}, {"a": pa.array([], pa.int32())}),
        ({"a": ["x"], "b": [""]}, {"a": [""], "b": ["x"]}),
    ],
)
def test_names_types_and_order_count(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert table_digest(pa.table(first)) != table_digest(pa.table(second))


def test_a_column_of_items_of_another_name_is_the_same() -> None:
    item = pa.field("element", pa.int64(), nullable=False)
    assert table_digest(pa.table({"x": pa.array([[1]], pa.list_(item))})) == table_digest(pa.table({"x": [[1]]}))


def test_digests_stay_what_they_are_over_releases() -> None:
    assert table_digest(small_table()) == "0013750658f4e0deda601abc60d8c55c5c454cb3341efa884134e335bf1b097f"
    assert table_digest(every_type()) == "27a61228faf91b6a23812ef081a542baff9aebb5a169941cc568fd0d890b2514"


def test_the_canonical_table_is_its_own_canonical_form() -> None:
    seconds = pa.array([1, None], pa.time32("s"))
    table = pa.table({"at": seconds, "code": pa.array(["a", None]).dictionary_encode()})
    canonical = canonical_table(table)
    assert canonical.schema.types == [pa.time32("ms"), pa.string()]
    assert canonical_table(canonical).equals(canonical)
    assert table_digest(canonical) == table_digest(table)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)), "column 'x' has type fixed_size_list.*to a list"),
        (pa.array(["a"], pa.string_view()), "column 'x' has type string_view.*cast it to string"),
        (pa.array([0], pa.date64()), "column 'x' has type date64.*cast it to date32"),
        (pa.array([b""], pa.binary(0)), r"column 'x' has type fixed_size_binary\[0\].*drop it"),
        (pa.array([[[(1, 2)]]], pa.list_(pa.map_(pa.int8(), pa.int8()))), "has type map<.*list of structs"),
        (pa.array([2**62], pa.timestamp("s")), r"cannot be stored as timestamp\[ms\].*cast it before"),
    ],
)
def test_a_type_that_is_not_kept_is_refused(column: pa.Array, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        table_digest(pa.table({"x": column}))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_TEXTS, _JSON, max_size=4))
def test_the_order_of_keys_does_not_count(document: dict[str, Any]) -> None:
    backwards = dict(reversed(list(document.items())))
    assert document_digest(backwards) == document_digest(document)


def test_a_document_s_digest_is_that_of_its_canonical_json() -> None:
    assert canonical_json({"b": (1, 2.5, None), "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'
    assert document_digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert len({document_digest(value) for value in (1, 1.0, "1", [1], None, True, {"1": 1})}) == 7


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"a": [0.0, float("inf")]}, r"a\[1\] is inf; expected a finite number"),
        ({"a": {"b": {2: 3}}}, "a.b has the key 2; expected a string"),
        ({"a": np.int64(1)}, "a is a int64; convert it to a plain Python value"),
        ({"a": "\ud800"}, "a holds a lone surrogate"),
        (float("nan"), "the document itself is nan"),
    ],
)
def test_what_is_no_json_is_refused_by_its_place(document: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        document_digest(document)


_KEYS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=20)


@given(_KEYS.filter(lambda key: key not in (".", "..")))
def test_a_folder_s_name_gives_the_key_back(key: str) -> None:
    name = partition_path(("flights",), key).removeprefix("flights/")
    assert partition_key(name) == key
    assert name.isascii()
    assert not name.startswith(".")
    assert not set(name) & set("/\\|:*?\"<> '&;$`")


def test_folders_are_readable() -> None:
    assert partition_path(("flights", "raw_data"), "EWR|2013-01") == "flights/raw_data/EWR~2013-01"
    assert asset_path(["a.b", "c-d"]) == "a.b/c-d"


def test_keys_and_versions_that_are_none_are_refused() -> None:
    with pytest.raises(StoreError, match=r"the partition key is '\.\.', which would leave the folder of its asset"):
        partition_path(("flights",), "..")
    with pytest.raises(StoreError, match=r"a segment of the asset's path .* is '', which is empty"):
        asset_path(("flights", ""))
    for path in ("flights", ()):
        with pytest.raises(StoreError, match="expected segments"):
            asset_path(path)
    with pytest.raises(StoreError, match=r"takes 300 bytes .* choose a shorter key"):
        partition_path(("flights",), "k" * 300)
    with pytest.raises(StoreError, match="64 hexadecimal digits in lower case"):
        check_data_version("0" * 63)
