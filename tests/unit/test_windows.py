"""Lags, windows and last known values: against slow, obvious references, and never ahead of time."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.features import group_aggregate, lag, last_known, rolling

rows_strategy = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from(["a", "b"]), st.one_of(st.none(), st.integers(-5, 5))),
    min_size=1,
    max_size=40,
)


def frame(rows: list[tuple[int, str, int | None]]) -> pd.DataFrame:
    start = pd.Timestamp("2013-01-01", tz="UTC")
    return pd.DataFrame(
        {
            "time": [start + pd.Timedelta(days=d) for d, _, _ in rows],
            "who": [w for _, w, _ in rows],
            "value": np.array([np.nan if v is None else v for _, _, v in rows]),
        },
        index=np.arange(len(rows)) * 3 + 7,  # an index that is not 0…n-1 must survive
    )


@given(rows_strategy, st.integers(0, 4), st.integers(1, 20))
def test_rolling_equals_the_obvious_loop(rows: list, gap: int, width: int) -> None:
    data = frame(rows)

    found = rolling(data["value"], time=data["time"], window=f"{width}D", by=data["who"], how="sum", gap=f"{gap}D")

    for index, row in data.iterrows():
        start, end = row["time"] - pd.Timedelta(days=gap + width), row["time"] - pd.Timedelta(days=gap)
        window = data[(data["who"] == row["who"]) & (data["time"] >= start) & (data["time"] < end)]["value"].dropna()
        expected = window.sum() if len(window) else np.nan
        np.testing.assert_allclose(found[index], expected)


@given(rows_strategy, st.integers(0, 5))
def test_last_known_is_the_latest_value_known_by_then_and_never_a_later_one(rows: list, delay: int) -> None:
    data = frame(rows)
    known_at = data["time"] + pd.Timedelta(days=delay)

    found = last_known(data["value"], known_at=known_at, time=data["time"], by=data["who"])

    for index, row in data.iterrows():
        known = data[(data["who"] == row["who"]) & (known_at <= row["time"]) & data["value"].notna()]
        if known.empty:
            assert np.isnan(found[index])
        else:
            latest = known[known["time"] == known["time"].max()]["value"]
            assert found[index] in set(latest)


@given(rows_strategy)
def test_a_later_row_changes_nothing_before_it(rows: list) -> None:
    data = frame(rows)
    cut = data["time"].median()
    changed = data.assign(value=data["value"].where(data["time"] <= cut, 999.0))
    before = data["time"] <= cut

    def windows(d: pd.DataFrame) -> list[pd.Series]:
        return [
            rolling(d["value"], time=d["time"], window="9D", by=d["who"]),
            last_known(d["value"], known_at=d["time"], time=d["time"], by=d["who"]),
        ]

    for original, other in zip(windows(data), windows(changed), strict=True):
        pd.testing.assert_series_equal(original[before], other[before])


def test_lag_is_exact_and_missing_without_a_row() -> None:
    data = frame([(0, "a", 1), (7, "a", 2), (8, "a", 3), (7, "b", 4)])

    found = lag(data["value"], time=data["time"], offset="7D", by=data["who"])

    np.testing.assert_array_equal(found, [np.nan, 1.0, np.nan, np.nan])
    assert found.index.equals(data.index)


def test_lag_refuses_to_look_ahead_and_to_choose() -> None:
    data = frame([(0, "a", 1), (0, "a", 2)])

    with pytest.raises(ValueError, match="a feature never looks ahead"):
        lag(data["value"], time=data["time"], offset="-7D", by=data["who"])
    with pytest.raises(ValueError, match="one row for each entity and time"):
        lag(data["value"], time=data["time"], offset="7D", by=data["who"])


def test_group_aggregate_keeps_rows_and_groups_missing_values() -> None:
    data = frame([(0, "a", 1), (1, "a", 3), (2, "b", 5)])
    by = data["who"].where(data["who"] != "b")

    assert group_aggregate(data["value"], by=by, how="mean").tolist() == [2.0, 2.0, 5.0]
