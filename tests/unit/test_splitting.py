"""Splits by time: no row before its label is known, disjoint, complete."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.errors import SplitError
from ml_assets.spec import TrainingSpec
from ml_assets.splitting import EXCLUDED, REFIT_ONLY, TRAINING, VALIDATION, WindowRows, split_rows

START = np.datetime64("2013-01-01", "us")
DAYS_A_PERIOD = 30


def window(event_days: list[float], delays: list[float | None], n_periods: int) -> tuple[WindowRows, datetime]:
    event = START + (np.array(event_days) * 86_400_000_000).astype("timedelta64[us]")
    late = np.array([0.0 if d is None else d for d in delays])
    label = event + (late * 86_400_000_000).astype("timedelta64[us]")
    label[[d is None for d in delays]] = np.datetime64("NaT")
    cutoff = START + np.timedelta64(n_periods * DAYS_A_PERIOD, "D")
    rows = WindowRows(
        period=(np.array(event_days) // DAYS_A_PERIOD).astype(int),
        day=event.astype("datetime64[D]"),
        event_time=event,
        label_time=label,
        labelled=np.array([d is not None for d in delays]),
    )
    return rows, cutoff.astype(datetime).replace(tzinfo=UTC)


@given(
    n_periods=st.integers(1, 4),
    rows=st.lists(st.tuples(st.floats(0, 0.999), st.one_of(st.none(), st.floats(0, 50))), min_size=3, max_size=120),
    validation=st.integers(1, 3),
)
def test_no_row_is_used_before_its_label_is_known(
    n_periods: int, rows: list[tuple[float, float | None]], validation: int
) -> None:
    days = [share * n_periods * DAYS_A_PERIOD for share, _ in rows]
    found, cutoff = window(days, [delay for _, delay in rows], n_periods)
    limit = np.datetime64(cutoff.replace(tzinfo=None), "us")
    training = TrainingSpec(min_rows=1, validation_periods=validation)

    try:
        split = split_rows(found, n_periods=n_periods, cutoff=cutoff, training=training)
    except SplitError:
        return

    used = split != EXCLUDED
    usable = found.labelled & (found.label_time < limit)
    assert (used == usable).all(), "complete: every row whose label was known by then, and no other"
    begins = found.event_time[split == VALIDATION].min()
    assert (found.label_time[split == TRAINING] <= begins).all(), "training knows nothing of validation's time"
    assert (found.event_time[split == TRAINING] < begins).all()
    assert (found.event_time[split == REFIT_ONLY] < begins).all() or n_periods <= validation


def test_last_period_validates_and_rows_known_too_late_only_refit() -> None:
    rows, cutoff = window([1, 29.5, 31, 40, 59.9], [1, 3, 1, 1, 3], 2)

    split = split_rows(rows, n_periods=2, cutoff=cutoff, training=TrainingSpec(min_rows=1))

    assert split.tolist() == [TRAINING, REFIT_ONLY, VALIDATION, VALIDATION, EXCLUDED]


def test_a_single_period_validates_on_its_last_days() -> None:
    days = [float(d) for d in range(20)]
    rows, cutoff = window(days, [0.5] * 20, 1)

    split = split_rows(rows, n_periods=1, cutoff=cutoff, training=TrainingSpec(min_rows=1))

    assert np.flatnonzero(split == VALIDATION).tolist() == [15, 16, 17, 18, 19]
    assert np.flatnonzero(split == TRAINING).tolist() == list(range(15))


def test_too_few_rows_are_refused_with_the_numbers() -> None:
    rows, cutoff = window([1, 2, 31, 32], [1, 1, 1, 1], 2)

    with pytest.raises(SplitError, match=r"training split has 2 labelled rows; training\.min_rows asks for 3"):
        split_rows(rows, n_periods=2, cutoff=cutoff, training=TrainingSpec(min_rows=3))
