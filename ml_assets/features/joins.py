"""Joins side tables to rows, by key or as of a time; the rows, their order and their number never change."""

from typing import TYPE_CHECKING

import numpy as np

from ml_assets.errors import SourceError
from ml_assets.spec import SideTableSpec

if TYPE_CHECKING:
    import pandas as pd


def join_side_table(
    rows: "pd.DataFrame",
    side: "pd.DataFrame",
    *,
    name: str,
    spec: SideTableSpec,
    event_time: str,
    wanted: set[str],
) -> "pd.DataFrame":
    """Return the side table's wanted columns for each row, named `<table>_<column>`.

    Args:
        rows: Frame with the key columns and the time to look from, shape (n_rows, …).
        side: The side table.
        name: Its name in the pipeline's description.
        spec: How to join it.
        event_time: Column of `rows` to look from when the description names none.
        wanted: Prefixed names to return.

    Returns:
        Frame with the index of `rows`; missing where nothing matches. With `as_of` each value comes from the
        latest row of the side table whose time is at or before the row's, and within the tolerance.

    Raises:
        SourceError: If the key of a plain join is not unique in the side table.
    """
    columns = [c for c in spec.columns if f"{name}_{c}" in wanted]
    found = (
        _by_key(rows, side, name, spec, columns)
        if spec.as_of is None
        else _as_of(rows, side, spec, spec.as_of.row_time or event_time, columns)
    )
    found.index = rows.index
    return found.rename(columns=lambda column: f"{name}_{column}")


def _by_key(
    rows: "pd.DataFrame", side: "pd.DataFrame", name: str, spec: SideTableSpec, columns: list[str]
) -> "pd.DataFrame":
    left, right = list(spec.on), list(spec.on.values())
    known = side.dropna(subset=right)
    repeated = known.duplicated(right)
    if repeated.any():
        example = known.loc[repeated, right].iloc[0].to_dict()
        raise SourceError(
            f"Side table {name!r} has {int(repeated.sum())} repeated keys {right}, such as {example}; a join by key "
            f"needs one row for each. Remove the repeats, or join as of a time (source.side_tables.{name}.as_of)."
        )
    keys = rows[left].set_axis(range(len(left)), axis=1)
    lookup = known[right].set_axis(range(len(right)), axis=1).assign(**{f"v_{c}": known[c] for c in columns})
    merged = keys.merge(lookup, on=list(range(len(left))), how="left", validate="m:1")
    return merged[[f"v_{c}" for c in columns]].set_axis(columns, axis=1)


def _as_of(
    rows: "pd.DataFrame", side: "pd.DataFrame", spec: SideTableSpec, row_time: str, columns: list[str]
) -> "pd.DataFrame":
    import pandas as pd

    assert spec.as_of is not None  # noqa: S101 - the caller branched on it
    keys = [f"key_{i}" for i in range(len(spec.on))]
    left = rows[list(spec.on)].set_axis(keys, axis=1)
    left = left.assign(time=rows[row_time], position=np.arange(len(rows))).dropna(subset=[*keys, "time"])
    right = side[list(spec.on.values())].set_axis(keys, axis=1).assign(time=side[spec.as_of.time])
    right = right.assign(**{f"v_{c}": side[c] for c in columns}).dropna(subset=[*keys, "time"])
    found = pd.merge_asof(
        left.sort_values("time", kind="stable"),
        right.sort_values("time", kind="stable"),
        on="time",
        by=keys,
        tolerance=None if spec.as_of.tolerance is None else pd.Timedelta(spec.as_of.tolerance),
        allow_exact_matches=True,
    )
    found = found.set_index("position")[[f"v_{c}" for c in columns]].set_axis(columns, axis=1)
    return found.reindex(range(len(rows)))
