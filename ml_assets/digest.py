"""Content digests: one SHA-256 for an Arrow table or a JSON document that depends on its content alone."""

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ml_assets.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

_HEADER = b"ml_assets.table.1"

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_TEXTS = ("string", "large_string", "binary", "large_binary")
_PLAIN_TYPES = frozenset({"null", "bool", "halffloat", "float", "double", "date32[day]", *_INTEGERS, *_TEXTS})

_INSTEAD = {
    "string_view": "string",
    "binary_view": "binary",
    "date64[ms]": "date32",
    "fixed_size_list": "a list",
    "list_view": "a list",
    "large_list_view": "a list",
    "map": "a list of structs",
}


def table_digest(table: "pa.Table") -> str:
    """Return the digest of a table's column names, types and values, in their order.

    Nothing else counts: not how the columns are chunked or sliced, whether a validity bitmap is present,
    what lies under a null, schema or field metadata, nullability flags, the bits of a NaN, nor the version
    of Arrow. A null is not a NaN, and 0.0 is not -0.0. The table is brought to `canonical_table`'s form
    first, so that a dictionary column counts as its decoded values: the categories and their order do not.

    Args:
        table: Any number of rows; at least one column.

    Returns:
        64 hexadecimal digits: SHA-256 over the digest of each column.

    Raises:
        StoreError: If a column name is repeated, or a type is not supported.
    """
    canonical = canonical_table(table)
    total = hashlib.sha256(_HEADER + struct.pack("<qq", canonical.num_columns, canonical.num_rows))
    for name, column in zip(canonical.column_names, canonical.columns, strict=True):
        hasher = hashlib.sha256()
        _feed(hasher, column)
        for part in (name.encode(), _type_name(column.type).encode(), hasher.digest()):
            total.update(struct.pack("<q", len(part)))
            total.update(part)
    return total.hexdigest()


def canonical_table(table: "pa.Table") -> "pa.Table":
    """Return the same content in the form that is digested and stored; what need not change is shared.

    Dictionaries are decoded, timestamps and times in seconds become milliseconds (Parquet has no seconds),
    and metadata and nullability flags are dropped.

    Raises:
        StoreError: If there is no column, a name is repeated, or a type is not supported.
    """
    import pyarrow as pa

    names = table.column_names
    if not names:
        raise StoreError(
            "the table has no columns; expected at least one, since a Parquet file without columns does not "
            "keep the number of rows: add the row id column"
        )
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise StoreError(f"the table has columns of the same name: {repeated[:10]}; rename them to be unique")
    columns = [_canonical_column(name, table.column(name)) for name in names]
    return pa.Table.from_arrays(columns, names=names)


def column_types(schema: "pa.Schema") -> tuple[tuple[str, str], ...]:
    """Return name and type of each column, such as ("delays", "list<double>").

    The name of a list's items is left out: it is `item` in Arrow and `element` in Parquet.
    """
    return tuple((column.name, re.sub(r"list<[^:<>]+: ", "list<", str(column.type))) for column in schema)


def document_digest(document: Any) -> str:
    """Return the SHA-256 of a document's canonical JSON, as 64 hexadecimal digits.

    >>> document_digest({"b": [1.5, None], "a": "é"}) == document_digest({"a": "é", "b": (1.5, None)})
    True

    Raises:
        StoreError: If a value is not JSON, is NaN or infinite, or a key is not a string.
    """
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def canonical_json(document: Any) -> str:
    """Return a document as JSON with sorted keys and no white space.

    Args:
        document: Mappings with string keys, lists, tuples, strings, finite numbers, booleans and None.

    Raises:
        StoreError: As `document_digest`; the message names the value's place, such as `columns[2].mean`.
    """
    for problem in _json_problems(document, ""):
        raise StoreError(f"the document is not JSON: {problem}")
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _json_problems(value: Any, place: str) -> Iterator[str]:
    """Yield what keeps a value from being written as JSON and read back as the same."""
    here = place.removeprefix(".") or "the document itself"
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{here} has the key {key!r}; expected a string, since JSON would change it to one"
            yield from _json_problems(item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _json_problems(item, f"{place}[{index}]")
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            yield f"{here} holds a lone surrogate, which UTF-8 cannot write; remove it"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{here} is {value}; expected a finite number, so write None where there is no value"
    elif not (value is None or isinstance(value, int)):
        hint = "dict(…)" if isinstance(value, Mapping) else "a plain Python value, such as .item() or .isoformat()"
        yield f"{here} is a {type(value).__name__}; convert it to {hint}"


def _canonical_column(name: str, column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Return a column decoded and widened to a type that Parquet keeps."""
    import pyarrow as pa

    kind = _canonical_type(column.type, name)
    try:
        return column if column.type == kind else column.cast(kind)
    except pa.ArrowException as error:
        raise StoreError(
            f"column {name!r} of type {column.type} cannot be stored as {kind}: {error}; cast it before"
        ) from error


def _canonical_type(kind: "pa.DataType", column: str) -> "pa.DataType":
    """Return the type that values of a type are stored as; all items and fields may be null."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _canonical_type(kind.value_type, column)
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if kind == pa.time32("s"):
        return pa.time32("ms")
    if pa.types.is_list(kind):
        return pa.list_(pa.field("element", _canonical_type(kind.value_type, column)))
    if pa.types.is_large_list(kind):
        return pa.large_list(pa.field("element", _canonical_type(kind.value_type, column)))
    if pa.types.is_struct(kind) and kind.num_fields:
        return pa.struct([(field.name, _canonical_type(field.type, column)) for field in kind])
    if _is_kept_as_it_is(kind):
        return kind
    instead = next((advice for family, advice in _INSTEAD.items() if str(kind).startswith(family)), "")
    hint = f"cast it to {instead}" if instead else "cast it or drop it"
    raise StoreError(f"column {column!r} has type {kind}, which the data store does not keep; {hint}")


def _is_kept_as_it_is(kind: "pa.DataType") -> bool:
    """Return whether Parquet gives values of a type, that has no inner types, back as they were."""
    import pyarrow as pa

    if pa.types.is_decimal(kind):
        return kind.scale >= 0
    if pa.types.is_fixed_size_binary(kind):
        return kind.byte_width > 0
    with_unit = (pa.types.is_timestamp, pa.types.is_time, pa.types.is_duration)
    return str(kind) in _PLAIN_TYPES or any(is_a(kind) for is_a in with_unit)


def _type_name(kind: "pa.DataType") -> str:
    """Return an unambiguous name of a canonical type that does not change with Arrow's version."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return f"timestamp[{kind.unit},{kind.tz or ''}]"
    if pa.types.is_decimal(kind):
        return f"decimal{kind.bit_width}({kind.precision},{kind.scale})"
    if pa.types.is_fixed_size_binary(kind):
        return f"binary[{kind.byte_width}]"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        prefix = "large_list" if pa.types.is_large_list(kind) else "list"
        return f"{prefix}<{_type_name(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{','.join(f'{json.dumps(field.name)}:{_type_name(field.type)}' for field in kind)}>"
    return str(kind)


def _feed(hasher: Any, column: "pa.ChunkedArray") -> None:
    """Feed where the nulls are, then the other values; each part's size follows from what went before."""
    import pyarrow as pa

    kind = column.type
    hasher.update(struct.pack("<qq", len(column), column.null_count))
    if column.null_count:
        for chunk in column.chunks:
            _feed_fixed(hasher, chunk.is_valid().cast(pa.uint8()))
        if pa.types.is_null(kind):
            return
        column = column.drop_null()
    if pa.types.is_struct(kind):
        for child in column.flatten():
            _feed(hasher, child)
        return
    for chunk in column.chunks:
        _feed_fixed(hasher, _fixed_part(chunk))
    if _is_binary(kind):
        for chunk in column.chunks:
            _feed_bytes(hasher, chunk)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _feed(hasher, pa.chunked_array([chunk.flatten() for chunk in column.chunks], type=kind.value_type))


def _fixed_part(chunk: "pa.Array") -> "pa.Array":
    """Return what a chunk without nulls holds at a fixed width: its values, or the lengths of its items."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = chunk.type
    if pa.types.is_boolean(kind):
        return chunk.cast(pa.uint8())
    if pa.types.is_floating(kind):
        # 0/0 gives a NaN of another sign on x86 than on ARM; as values they are the same.
        is_nan = chunk.is_nan()
        nan = pa.scalar(math.nan, kind)
        return pc.call_function("if_else", [is_nan, nan, chunk]) if is_nan.true_count else chunk
    if _is_binary(kind):
        return pc.call_function("binary_length", [chunk]).cast(pa.int32())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return chunk.value_lengths().cast(pa.int32())
    return chunk


def _is_binary(kind: "pa.DataType") -> bool:
    """Return whether values of the type are bytes or text of any length."""
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_string(kind) or _is_large_binary(kind)


def _is_large_binary(kind: "pa.DataType") -> bool:
    """Return whether the type is one of `_is_binary` with offsets of 64 bits."""
    import pyarrow as pa

    return pa.types.is_large_binary(kind) or pa.types.is_large_string(kind)


def _feed_fixed(hasher: Any, values: "pa.Array") -> None:
    """Feed the value buffer of an array without nulls, without a copy."""
    if len(values):
        width = values.type.bit_width // 8
        data = memoryview(values.buffers()[1])
        hasher.update(data[values.offset * width : (values.offset + len(values)) * width])


def _feed_bytes(hasher: Any, values: "pa.Array") -> None:
    """Feed the bytes of all items of an array without nulls, one after the other."""
    _, offset_buffer, data = values.buffers()
    if len(values) and data is not None:
        offsets = memoryview(offset_buffer).cast("B").cast("q" if _is_large_binary(values.type) else "i")
        hasher.update(memoryview(data)[offsets[values.offset] : offsets[values.offset + len(values)]])
