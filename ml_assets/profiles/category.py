"""The profile of a column of texts or booleans: how many rows of each day have each value."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ml_assets.arrow import compute_functions
from ml_assets.profiles.distinct import Registers, estimate, hash_texts, registers_of
from ml_assets.profiles.numeric import smallest_unsigned

if TYPE_CHECKING:
    import pyarrow as pa

EXACT_VALUES = 1_000
"""A block with no more distinct values than these keeps the count of each."""

FREQUENT_VALUES = 256
"""A block with more keeps this many of the most frequent, none that occurs once; the rest is counted together."""

MAX_TEXT = 100
"""Characters of a value; a longer one is kept as its first 80 and a digest."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CategoryBlock:
    """One partition's part of a column of categories.

    Attributes:
        days: Sorted distinct local days, datetime64[D], shape (n_days,).
        values: Sorted values that are kept; see `label_of` for long ones.
        counts: Rows of each day with each value, unsigned, shape (n_days, n_values).
        other: Rows of each day with a value that is not kept, shape (n_days,).
        nulls: Rows of each day without a value, shape (n_days,).
        bound: Rows of the most frequent value that is not kept; 0 when all are.
        registers: For the number of distinct values; None when all are kept.
    """

    days: NDArray[np.datetime64]
    values: tuple[str, ...]
    counts: NDArray[np.unsignedinteger]
    other: NDArray[np.unsignedinteger]
    nulls: NDArray[np.unsignedinteger]
    bound: int
    registers: Registers | None

    @property
    def n_rows(self) -> int:
        """Return all rows, with and without a value."""
        return sum(int(part.sum(dtype=np.int64)) for part in (self.counts, self.other, self.nulls))

    @cached_property
    def position(self) -> dict[str, int]:
        """Return each kept value's column in `counts`."""
        return {value: i for i, value in enumerate(self.values)}


@dataclass(frozen=True, kw_only=True, eq=False)
class CategoryProfile:
    """A column of categories over any set of partitions.

    Attributes:
        blocks: One for each partition, in an order that depends on their content alone.
    """

    kind: ClassVar[Literal["category"]] = "category"
    blocks: tuple[CategoryBlock, ...] = ()

    @property
    def n_rows(self) -> int:
        """Return all rows, with and without a value."""
        return sum(block.n_rows for block in self.blocks)

    @property
    def n_nulls(self) -> int:
        """Return the rows without a value."""
        return sum(int(block.nulls.sum(dtype=np.int64)) for block in self.blocks)

    @property
    def n_values(self) -> int:
        """Return the rows with a value."""
        return self.n_rows - self.n_nulls

    @property
    def n_other(self) -> int:
        """Return the rows whose value some block does not keep."""
        return sum(int(block.other.sum(dtype=np.int64)) for block in self.blocks)

    @cached_property
    def value_counts(self) -> dict[str, int]:
        """Return the rows of each kept value, most frequent first, equal ones by value.

        A count is exact when `count_error` is 0, and otherwise too small by at most that.
        """
        total: dict[str, int] = {}
        for block in self.blocks:
            for value, n in zip(block.values, block.counts.sum(axis=0, dtype=np.int64).tolist(), strict=True):
                total[value] = total.get(value, 0) + n
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))

    @property
    def count_error(self) -> int:
        """Return by how many rows a value's count may at most be too small; 0 when every value is kept."""
        return sum(block.bound for block in self.blocks)

    @property
    def is_distinct_exact(self) -> bool:
        """Whether `n_distinct` is counted, not estimated."""
        return all(block.registers is None for block in self.blocks)

    @cached_property
    def n_distinct(self) -> int:
        """Return the number of distinct values; an estimate has a standard error of 2.3 %."""
        if self.is_distinct_exact:
            return len(self.value_counts)
        parts = [
            registers_of(hash_texts(np.array(b.values, dtype=object))) if b.registers is None else b.registers
            for b in self.blocks
        ]
        return round(estimate(np.maximum.reduce(parts)))


def label_of(value: str) -> str:
    """Return a value as profiles keep it: itself, or when it is longer than `MAX_TEXT`, its start and a digest."""
    if len(value) <= MAX_TEXT:
        return value
    return f"{value[:80]}…{blake2b(value.encode(), digest_size=8).hexdigest()}"


def category_block(column: "pa.Array", days: NDArray[np.datetime64], starts: NDArray[np.intp]) -> CategoryBlock:
    """Return the block of one column of strings whose rows are ordered by day.

    Args:
        column: Arrow strings, shape (n_rows,).
        days: Sorted distinct days.
        starts: First row of each day, each with at least one row.
    """
    encoded = column.dictionary_encode()
    labels = _labels(encoded.dictionary)
    null = encoded.indices.is_null().to_numpy(zero_copy_only=False)
    codes = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    day = np.repeat(np.arange(len(days)), np.diff(np.append(starts, len(codes))))
    totals = np.bincount(codes[~null], minlength=len(labels))
    kept = np.arange(len(labels)) if len(labels) <= EXACT_VALUES else _most_frequent(labels, totals)
    names = labels.take(kept).to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    n_kept = len(names)
    # Columns of the counts: the kept values in their order, then the rest, then nulls.
    target = np.full(len(labels) + 1, n_kept)
    target[kept[order]] = np.arange(n_kept)
    place = np.where(null, n_kept + 1, target[codes])
    counts = np.bincount(day * (n_kept + 2) + place, minlength=len(days) * (n_kept + 2)).reshape(len(days), n_kept + 2)
    complete = n_kept == len(labels)
    dropped = np.delete(totals, kept)
    return CategoryBlock(
        days=days,
        values=tuple(names[i] for i in order),
        counts=smallest_unsigned(counts[:, :n_kept]),
        other=smallest_unsigned(counts[:, n_kept]),
        nulls=smallest_unsigned(counts[:, n_kept + 1]),
        bound=int(dropped.max(initial=0)),
        registers=None if complete else registers_of(hash_texts(labels.to_numpy(zero_copy_only=False))),
    )


def _labels(values: "pa.Array") -> "pa.Array":
    """Return distinct values as they are kept."""
    import pyarrow as pa

    long = compute_functions().greater(compute_functions().utf8_length(values), MAX_TEXT)
    if not long.true_count:
        return values
    return pa.array([label_of(value) for value in values.to_pylist()], type=values.type)


def _most_frequent(labels: "pa.Array", totals: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the positions of the most frequent values; of equally frequent ones, the first by text."""
    import pyarrow as pa

    least = max(2, int(np.partition(totals, -FREQUENT_VALUES)[-FREQUENT_VALUES]))
    candidates = np.flatnonzero(totals >= least)
    table = pa.table({"n": totals[candidates], "label": labels.take(candidates)})
    order = table.sort_by([("n", "descending"), ("label", "ascending")])
    chosen: Sequence[str] = order["label"].slice(0, FREQUENT_VALUES).to_pylist()
    wanted = compute_functions().is_in(labels.take(candidates), value_set=pa.array(chosen, type=labels.type))
    return candidates[wanted.to_numpy(zero_copy_only=False)]
