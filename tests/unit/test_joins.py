"""Side tables: joined by key, or as of a time and never from the future, whatever the order of rows."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.errors import SourceError
from ml_assets.features.joins import join_side_table
from ml_assets.spec import AsOfSpec, ColumnSpec, SideTableSpec

NUMBER, TEXT, TIME = ColumnSpec(type="float64"), ColumnSpec(type="string"), ColumnSpec(type="timestamp")


def as_of(tolerance: timedelta | None = None) -> SideTableSpec:
    return SideTableSpec(
        url="w.csv",
        columns={"place": TEXT, "at": TIME, "temp": NUMBER},
        on={"origin": "place"},
        as_of=AsOfSpec(time="at", tolerance=tolerance),
    )


def times(hours: list[int]) -> pd.Series:
    return pd.Series(pd.Timestamp("2013-01-01", tz="UTC") + pd.to_timedelta(hours, unit="h"))


def join(rows: pd.DataFrame, side: pd.DataFrame, spec: SideTableSpec) -> pd.DataFrame:
    return join_side_table(rows, side, name="w", spec=spec, event_time="when", wanted={"w_temp"})


@given(
    rows=st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["E", "J"])), min_size=1, max_size=30),
    side=st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["E", "J"])), min_size=1, max_size=30, unique=True),
    tolerance=st.one_of(st.none(), st.integers(1, 10)),
)
def test_as_of_takes_the_latest_known_value_and_never_a_later_one(
    rows: list, side: list, tolerance: int | None
) -> None:
    left = pd.DataFrame({"when": times([h for h, _ in rows]), "origin": [p for _, p in rows]})
    right = pd.DataFrame(
        {
            "at": times([h for h, _ in side]),
            "place": [p for _, p in side],
            "temp": np.arange(len(side), dtype=float),
        }
    )
    limit = None if tolerance is None else timedelta(hours=tolerance)

    found = join(left, right, as_of(limit))

    assert found.index.equals(left.index)
    for (hour, place), value in zip(rows, found["w_temp"], strict=True):
        known = [(h, i) for i, (h, p) in enumerate(side) if p == place and h <= hour]
        known = [(h, i) for h, i in known if tolerance is None or hour - h <= tolerance]
        if known:
            assert value == max(known)[1]
        else:
            assert np.isnan(value)


def test_rows_without_a_key_or_time_stay_and_get_nothing() -> None:
    rows = pd.DataFrame({"when": times([1, 2]), "origin": [None, "E"]}).set_axis([5, 3])
    side = pd.DataFrame({"at": times([0]), "place": ["E"], "temp": [7.0]})

    found = join(rows, side, as_of())

    assert found.index.tolist() == [5, 3]
    np.testing.assert_array_equal(found["w_temp"], [np.nan, 7.0])


def test_key_join_keeps_order_and_refuses_a_repeated_key() -> None:
    spec = SideTableSpec(url="p.csv", columns={"tail": TEXT, "seats": NUMBER}, on={"tailnum": "tail"})
    rows = pd.DataFrame({"tailnum": ["N2", "N1", None, "N9"]})
    side = pd.DataFrame({"tail": ["N1", "N2", None], "seats": [10.0, 20.0, 99.0]})

    found = join_side_table(rows, side, name="planes", spec=spec, event_time="when", wanted={"planes_seats"})

    np.testing.assert_array_equal(found["planes_seats"], [20.0, 10.0, np.nan, np.nan])
    with pytest.raises(SourceError, match="1 repeated keys"):
        join_side_table(
            rows,
            pd.concat([side, side.head(1)]),
            name="planes",
            spec=spec,
            event_time="when",
            wanted={"planes_seats"},
        )
