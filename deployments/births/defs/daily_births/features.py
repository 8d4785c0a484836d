"""Features of a state's births on a day; what happened is read a week back at the nearest."""

import pandas as pd

from ml_assets.features import lag, reads_past, rolling


def weekday(date: pd.Series) -> pd.Series:
    """Day of the week, 0 is Monday."""
    return date.dt.day_of_week.astype("float64")


def day_of_year(date: pd.Series) -> pd.Series:
    """Day of the year, from 1."""
    return date.dt.day_of_year.astype("float64")


@reads_past
def births_7_days_ago(births: pd.Series, date: pd.Series, state: pd.Series) -> pd.Series:
    """Births in the state a week earlier."""
    return lag(births, time=date, offset="7D", by=state).astype("float64")


@reads_past
def births_mean_28_days(births: pd.Series, date: pd.Series, state: pd.Series) -> pd.Series:
    """Mean births in the state over 28 days that ended a week earlier."""
    return rolling(births, time=date, window="28D", gap="6D", by=state, min_count=14)


@reads_past
def births_364_days_ago(births: pd.Series, date: pd.Series, state: pd.Series) -> pd.Series:
    """Births in the state 52 weeks earlier, on the same day of the week: the naive forecast."""
    return lag(births, time=date, offset="364D", by=state).astype("float64")
