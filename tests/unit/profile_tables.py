"""Tables with days for tests of profiles, and the slow and obvious way to count them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml_assets.profiles.numeric import NumericProfile
from ml_assets.profiles.profile import Profile
from ml_assets.profiles.table import profile_table

FIRST = np.datetime64("2024-01-01")

numbers = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 1.0, float("nan"), float("inf"), float("-inf"), 5e-324, 1.7e308, -1.7e308]),
    st.integers(-3, 3).map(float),
    st.floats(-1e6, 1e6),
)
texts = st.one_of(st.none(), st.sampled_from(["", "a", "b", "é", "a" * 101, "a" * 102]), st.text(max_size=3))


def rows(values: st.SearchStrategy[Any], *, max_size: int = 60) -> st.SearchStrategy[list[tuple[int, Any]]]:
    """Return lists of (day number, value)."""
    return st.lists(st.tuples(st.integers(0, 4), values), max_size=max_size)


def days_of(numbers: Sequence[int] | NDArray[np.integer]) -> NDArray[np.datetime64]:
    """Return days counted from the first of January 2024."""
    return FIRST + np.asarray(numbers, dtype=np.int64).astype("timedelta64[D]")


def profile_of(rows: Sequence[tuple[int, Any]], kind: pa.DataType) -> Profile:
    """Return the profile of one column `x`."""
    table = pa.table({"x": pa.array([value for _, value in rows], kind)})
    return profile_table(table, ["x"], days_of([day for day, _ in rows]))


def numeric_of(values: Any, days: Any = None) -> NumericProfile:
    """Return the profile of numbers, of one day when none are given."""
    values = np.asarray(values, dtype=np.float64)
    days = days_of(np.zeros(len(values), dtype=int) if days is None else days)
    column = profile_table(pa.table({"x": values}), ["x"], days).columns["x"]
    assert isinstance(column, NumericProfile)
    return column


def histogram(values: NDArray[np.float64], days: NDArray[np.integer], edges: NDArray[np.float64]) -> NDArray[Any]:
    """Return each day's rows in right-closed bins and, last, its NaN, by comparing every row with every edge."""
    found = []
    for day in np.unique(days):
        x = values[days == day]
        at_most = [int((x <= edge).sum()) for edge in edges]
        missing = int(np.isnan(x).sum())
        found.append([*np.diff([0, *at_most, len(x) - missing]), missing])
    return np.array(found, dtype=np.float64).reshape(-1, len(edges) + 2)
