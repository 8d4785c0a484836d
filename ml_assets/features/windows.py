"""Group aggregates, lags, rolling windows and last known values for feature functions; the last three never look ahead.

Every function returns a Series with the index of its first argument: same rows, same order.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Aggregation = Literal["mean", "median", "sum", "min", "max", "std", "count", "nunique"]


def group_aggregate(values: "pd.Series", *, by: "pd.Series | Sequence[pd.Series]", how: str = "mean") -> "pd.Series":
    """Return for each row an aggregate over all rows of its group, in the partition and its history.

    Later rows of the partition count too: use it for what is known of all of them at once, such as a timetable.

    Args:
        values: Column to aggregate, shape (n_rows,).
        by: Column or columns whose values form the groups; missing values are a group of their own.
        how: Aggregation of the group's values; missing ones are left out.
    """
    return values.groupby(_keys(by), dropna=False).transform(how)  # pyright: ignore - pandas-stubs split the names into many overloads


def lag(values: "pd.Series", *, time: "pd.Series", offset: str, by: "pd.Series | Sequence[pd.Series]") -> "pd.Series":
    """Return for each row the value of the same entity exactly `offset` earlier; missing when there is none.

    Args:
        values: Column to look up, shape (n_rows,).
        time: Time of each row.
        offset: Positive pandas time span, such as "7D" or "364D".
        by: Column or columns that identify the entity; (entity, time) must be unique.

    Raises:
        ValueError: If `offset` is not positive, or an entity has two rows at one time.
    """
    import pandas as pd

    span = _positive(offset, "offset")
    keys = _frame(by)
    names = list(keys.columns)
    past = keys.assign(time=time + span, value=values)
    if past.duplicated([*names, "time"]).any():
        raise ValueError(f"lag needs one row for each entity and time; {names} and time repeat")
    found = keys.assign(time=time).merge(past, on=[*names, "time"], how="left")
    return pd.Series(found["value"].to_numpy(), index=values.index, name=values.name)


def rolling(
    values: "pd.Series",
    *,
    time: "pd.Series",
    window: str,
    by: "pd.Series | Sequence[pd.Series]",
    how: Literal["mean", "sum", "count"] = "mean",
    gap: str = "0D",
    min_count: int = 1,
) -> "pd.Series":
    """Return for each row an aggregate over its entity's rows with time in [t − gap − window, t − gap).

    The row itself and rows of the same instant are never in its window. Missing values are left out.

    Args:
        values: Numbers, shape (n_rows,).
        time: Time of each row.
        window: Length of the window, a positive pandas time span such as "28D".
        by: Column or columns that identify the entity.
        how: mean, sum or count of the values in the window.
        gap: Time between the window's end and the row, for values that become known late.
        min_count: Values below which the result is missing.

    Returns:
        float64, shape (n_rows,).
    """
    import pandas as pd

    width = _positive(window, "window").to_timedelta64()
    delay = pd.Timedelta(gap).to_timedelta64()
    when = time.to_numpy(dtype="datetime64[us]")
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    out = np.full(len(values), np.nan)
    for rows in _frame(by).groupby(list(_frame(by).columns), dropna=False, sort=False).indices.values():
        order = rows[np.argsort(when[rows], kind="stable")]
        t, v = when[order], numbers[order]
        seen = np.concatenate([[0], np.cumsum(~np.isnan(v))])
        total = np.concatenate([[0.0], np.cumsum(np.nan_to_num(v))])
        start = np.searchsorted(t, t - delay - width, side="left")
        end = np.searchsorted(t, t - delay, side="left")
        count = seen[end] - seen[start]
        summed = total[end] - total[start]
        with np.errstate(invalid="ignore", divide="ignore"):
            result = {"mean": summed / count, "sum": summed, "count": count.astype(np.float64)}[how]
        out[order] = np.where(count >= min_count, result, np.nan)
    return pd.Series(out, index=values.index, name=values.name)


def last_known(
    values: "pd.Series",
    *,
    known_at: "pd.Series",
    time: "pd.Series",
    by: "pd.Series | Sequence[pd.Series]",
) -> "pd.Series":
    """Return for each row its entity's latest value that was known at or before the row's time.

    Args:
        values: Column to look up, shape (n_rows,); missing values are never "known".
        known_at: When each value became known; missing means never.
        time: Time of each row.
        by: Column or columns that identify the entity; rows without one get a missing value.
    """
    import pandas as pd

    keys = _frame(by)
    names = list(keys.columns)
    known = keys.assign(time=known_at, value=values).dropna().sort_values("time", kind="stable")
    rows = keys.assign(time=time, position=np.arange(len(keys))).dropna()
    rows = rows.sort_values("time", kind="stable")
    found = pd.merge_asof(rows, known, on="time", by=names, allow_exact_matches=True)
    out = found.set_index("position")["value"].reindex(range(len(keys)))
    return pd.Series(out.to_numpy(), index=values.index, name=values.name)


def _keys(by: "pd.Series | Sequence[pd.Series]") -> "list[pd.Series]":
    import pandas as pd

    return [by] if isinstance(by, pd.Series) else list(by)


def _frame(by: "pd.Series | Sequence[pd.Series]") -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame({f"by_{i}": key.to_numpy() for i, key in enumerate(_keys(by))}, index=_keys(by)[0].index)


def _positive(span: str, name: str) -> "pd.Timedelta":
    import pandas as pd

    value = pd.Timedelta(span)
    if value <= pd.Timedelta(0):
        raise ValueError(f"{name} must be a positive time span such as '7D', not {span!r}: a feature never looks ahead")
    return value
