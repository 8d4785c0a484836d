"""What is known of a table's columns without its rows, and how that adds up over partitions."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from ml_assets.profiles.category import CategoryBlock, CategoryProfile
from ml_assets.profiles.numeric import NumericBlock, NumericProfile

ColumnProfile = NumericProfile | CategoryProfile
Block = NumericBlock | CategoryBlock


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """Facts of a table, or of many that were added up.

    Attributes:
        n_rows: Rows of all of them.
        days: Sorted distinct local days, datetime64[D], shape (n_days,).
        columns: Name to facts. A column that only some tables have counts their rows alone: see its `n_rows`.
    """

    n_rows: int = 0
    days: NDArray[np.datetime64] = field(default_factory=lambda: np.empty(0, dtype="datetime64[D]"))
    columns: Mapping[str, ColumnProfile] = field(default_factory=dict)


def merge(profiles: Iterable[Profile]) -> Profile:
    """Return the profile of all rows together; neither order nor grouping matters.

    The same partition given twice counts twice.

    Raises:
        ValueError: If a column is numeric in one and a category in another.
    """
    profiles = list(profiles)
    names = sorted({name for profile in profiles for name in profile.columns})
    days = [profile.days for profile in profiles]
    return Profile(
        n_rows=sum(profile.n_rows for profile in profiles),
        days=np.unique(np.concatenate([np.empty(0, dtype="datetime64[D]"), *days])),
        columns={
            name: _merge_columns(name, [p.columns[name] for p in profiles if name in p.columns]) for name in names
        },
    )


def _merge_columns(name: str, columns: list[ColumnProfile]) -> ColumnProfile:
    numeric = [block for c in columns if isinstance(c, NumericProfile) for block in c.blocks]
    category = [block for c in columns if isinstance(c, CategoryProfile) for block in c.blocks]
    if len({c.kind for c in columns}) > 1:
        raise ValueError(
            f"Column {name!r} is numeric in some profiles and a category in others; expected one kind. Leave out the "
            "partitions that were made by other code, or materialize them again."
        )
    if columns[0].kind == "numeric":
        return NumericProfile(blocks=tuple(sorted(numeric, key=_content)))
    return CategoryProfile(blocks=tuple(sorted(category, key=_content)))


def _content(block: Block) -> tuple[int, bytes]:
    """Return what orders blocks: the first day, then a digest of all they hold."""
    digest = hashlib.sha256()
    for name in (f.name for f in fields(block)):
        value = getattr(block, name)
        digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    first = int(block.days[0].astype(np.int64)) if len(block.days) else 0
    return first, digest.digest()
