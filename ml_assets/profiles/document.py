"""Profiles as JSON-ready documents, and the strict reading of them: what is read is consistent, or refused."""

import base64
import binascii
import zlib
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.errors import StoreError
from ml_assets.profiles.category import CategoryBlock, CategoryProfile
from ml_assets.profiles.distinct import N_REGISTERS
from ml_assets.profiles.numeric import NumericBlock, NumericProfile
from ml_assets.profiles.profile import Block, ColumnProfile, Profile

FORMAT = 1

MAX_BYTES = 512 * 2**20
"""Bytes that the arrays of one document may have together when unpacked."""

_DTYPES = ("<i4", "<f8", "|u1", "<u2", "<u4", "<u8")


def to_document(profile: Profile) -> dict[str, Any]:
    """Return a profile as mappings, lists, texts and numbers; arrays are compressed (zlib) in base64."""
    return {
        "format": FORMAT,
        "n_rows": profile.n_rows,
        "days": _pack(_day_numbers(profile.days)),
        "columns": {
            name: {"kind": column.kind, "blocks": [_block_document(block) for block in column.blocks]}
            for name, column in profile.columns.items()
        },
    }


def from_document(document: Mapping[str, Any]) -> Profile:
    """Return the profile that a document describes.

    Raises:
        StoreError: If the format is another, or anything in it is missing, too large or contradicts the rest.
    """
    found = document.get("format") if isinstance(document, Mapping) else None
    if found != FORMAT:
        raise StoreError(
            f"the profile's format is {found!r}, and this release reads {FORMAT}; materialize the partition again "
            "with this release, or read it with the release that wrote it"
        )
    reader = _Reader(MAX_BYTES)
    try:
        return reader.profile(document)
    except (AttributeError, KeyError, TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise StoreError(
            f"the profile is damaged at {reader.place}: {type(error).__name__}: {error}; materialize the partition "
            "again, which makes a new one"
        ) from error


def _block_document(block: Block) -> dict[str, Any]:
    registers = None if block.registers is None else _pack(block.registers)
    if isinstance(block, NumericBlock):
        several = block.lo < block.hi
        return {
            "days": _pack(_day_numbers(block.days)),
            "hi": _pack(block.hi),
            "several": _pack(several.astype(np.uint8)),
            "lo": _pack(block.lo[several]),
            "counts": _pack(block.counts),
            "special": _pack(block.special),
            "mean": _pack(block.mean),
            "m2": _pack(block.m2),
            "registers": registers,
        }
    return {
        "days": _pack(_day_numbers(block.days)),
        "values": list(block.values),
        "counts": _pack(block.counts),
        "other": _pack(block.other),
        "nulls": _pack(block.nulls),
        "bound": block.bound,
        "registers": registers,
    }


def _day_numbers(days: NDArray[np.datetime64]) -> NDArray[np.int32]:
    return days.astype("datetime64[D]").astype(np.int64).astype(np.int32)


def _pack(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array as a document; bytes of equal rank lie together, since those of sorted numbers are alike."""
    array = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    data = array.view(np.uint8).reshape(-1, array.dtype.itemsize).T.tobytes() if array.size else b""
    return {
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "zlib": base64.b64encode(zlib.compress(data, 6)).decode("ascii"),
    }


class _Reader:
    """Reads one document, knows where it is, and counts the bytes it has unpacked."""

    def __init__(self, max_bytes: int) -> None:
        self.bytes_left = max_bytes
        self.place = "the document itself"

    def profile(self, document: Mapping[str, Any]) -> Profile:
        n_rows, days = _whole(document["n_rows"]), self._days(document["days"])
        columns = {}
        for name, column in document["columns"].items():
            self.place = f"column {name!r}"
            columns[str(name)] = self._column(column)
            if columns[name].n_rows > n_rows:
                raise ValueError(f"it has {columns[name].n_rows} rows, and the profile has {n_rows}")
            if any(not np.isin(block.days, days).all() for block in columns[name].blocks):
                raise ValueError("it has a day that the profile does not have")
        return Profile(n_rows=n_rows, days=days, columns=columns)

    def _column(self, document: Mapping[str, Any]) -> ColumnProfile:
        if document["kind"] == "numeric":
            return NumericProfile(blocks=tuple(self._numeric(block) for block in document["blocks"]))
        if document["kind"] == "category":
            return CategoryProfile(blocks=tuple(self._category(block) for block in document["blocks"]))
        raise ValueError(f"its kind is {document['kind']!r}; expected 'numeric' or 'category'")

    def _numeric(self, document: Mapping[str, Any]) -> NumericBlock:
        days = self._days(document["days"])
        hi = self._array(document["hi"], "<f8", (None,))
        several = self._array(document["several"], "|u1", hi.shape) == 1
        lo = hi.copy()
        lo[several] = self._array(document["lo"], "<f8", (int(several.sum()),))
        counts = self._array(document["counts"], "u", (len(days), len(hi)))
        block = NumericBlock(
            days=days,
            lo=lo,
            hi=hi,
            counts=counts,
            special=self._array(document["special"], "u", (len(days), 4)),
            mean=self._array(document["mean"], "<f8", days.shape),
            m2=self._array(document["m2"], "<f8", days.shape),
            registers=self._registers(document["registers"]),
        )
        finite = np.isfinite(lo).all() and np.isfinite(hi).all()
        if not finite or (lo[several] >= hi[several]).any() or (lo[1:] <= hi[:-1]).any():
            raise ValueError("its cells are not finite and ascending")
        if (block.totals < np.where(several, 2, 1)).any():
            raise ValueError("a cell has fewer rows than values")
        if not np.isfinite(block.mean).all() or not (block.m2 >= 0).all():
            raise ValueError("its moments are not numbers")
        if block.registers is None and several.any():
            raise ValueError("it has cells of several values and nothing to tell how many there are")
        return block

    def _category(self, document: Mapping[str, Any]) -> CategoryBlock:
        days, values = self._days(document["days"]), document["values"]
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise TypeError("its values are not a list of texts")
        if any(a >= b for a, b in pairwise(values)):
            raise ValueError("its values are not sorted and distinct")
        block = CategoryBlock(
            days=days,
            values=tuple(values),
            counts=self._array(document["counts"], "u", (len(days), len(values))),
            other=self._array(document["other"], "u", days.shape),
            nulls=self._array(document["nulls"], "u", days.shape),
            bound=_whole(document["bound"]),
            registers=self._registers(document["registers"]),
        )
        if block.registers is None and (block.bound or block.other.any()):
            raise ValueError("it has values that are not kept and nothing to tell how many there are")
        return block

    def _registers(self, document: Mapping[str, Any] | None) -> NDArray[np.uint8] | None:
        if document is None:
            return None
        registers = self._array(document, "|u1", (N_REGISTERS,))
        if registers.max() > 54:
            raise ValueError("a register is greater than 54")
        return registers

    def _days(self, document: Mapping[str, Any]) -> NDArray[np.datetime64]:
        numbers = self._array(document, "<i4", (None,))
        if (np.diff(numbers.astype(np.int64)) <= 0).any():
            raise ValueError("its days are not sorted and distinct")
        return numbers.astype("datetime64[D]")

    def _array(self, document: Mapping[str, Any], dtype: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
        """Return an array of the dtype ("u" for any unsigned) and shape that are expected; None stands for any."""
        kind, found = document["dtype"], [_whole(n) for n in document["shape"]]
        if kind not in _DTYPES or (np.dtype(kind).kind != "u" if dtype == "u" else kind != dtype):
            raise ValueError(f"an array has dtype {kind!r}; expected {dtype!r}")
        expected = [n if want is None else want for n, want in zip(found, shape, strict=True)]
        if found != expected:
            raise ValueError(f"an array has shape {found}; expected {expected}")
        n_bytes = int(np.prod(found, dtype=object)) * np.dtype(kind).itemsize
        self.bytes_left -= n_bytes
        if self.bytes_left < 0:
            raise ValueError(f"the arrays have more than {MAX_BYTES:,} bytes together")
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(document["zlib"], validate=True), n_bytes + 1)
        if len(data) != n_bytes or not unpacker.eof:
            raise ValueError(f"an array does not have the {n_bytes:,} bytes of its shape")
        flat = np.frombuffer(data, dtype=np.uint8).reshape(np.dtype(kind).itemsize, -1)
        return np.ascontiguousarray(flat.T).view(kind).astype(np.dtype(kind).newbyteorder("=")).reshape(found)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise ValueError(f"{value!r} is not a whole number from 0 up")
    return value
