"""Features of a flight, all known before it leaves; the parameters of a function are the columns it reads."""

import pandas as pd

LATE_MINUTES = 15


def late(arr_delay: pd.Series) -> pd.Series:
    """1 when the flight arrived more than 15 minutes late, 0 when not, missing when it was cancelled or diverted."""
    return (arr_delay > LATE_MINUTES).astype("float64").where(arr_delay.notna())


def departure_minute(sched_dep_time: pd.Series) -> pd.Series:
    """Scheduled departure in minutes after local midnight; the source writes 13:45 as 1345."""
    return (sched_dep_time // 100 * 60 + sched_dep_time % 100).astype("float64")


def arrival_minute(sched_arr_time: pd.Series) -> pd.Series:
    """Scheduled arrival in minutes after local midnight at the destination."""
    return (sched_arr_time // 100 * 60 + sched_arr_time % 100).astype("float64")


def weekday(time_hour: pd.Series) -> pd.Series:
    """Day of the week in New York, 0 is Monday."""
    return time_hour.dt.tz_convert("America/New_York").dt.day_of_week.astype("float64")


def hour_departures(time_hour: pd.Series) -> pd.Series:
    """How many departures the airport has scheduled in the same hour."""
    return time_hour.groupby(time_hour).transform("size").astype("float64")


def wind_speed(weather_wind_speed: pd.Series) -> pd.Series:
    """Wind in mph; a reading above 100 mph is an instrument's error (the data hold one of 1,048)."""
    return weather_wind_speed.where(weather_wind_speed < 100).astype("float64")


def seats(planes_seats: pd.Series) -> pd.Series:
    """Seats of the plane."""
    return planes_seats.astype("float64")


def plane_age(planes_year: pd.Series, year: pd.Series) -> pd.Series:
    """Years since the plane was built."""
    return (year - planes_year).astype("float64")


def precipitation(weather_precip: pd.Series) -> pd.Series:
    """Rain or snow in inches in the hour of departure."""
    return weather_precip.astype("float64")


def visibility(weather_visib: pd.Series) -> pd.Series:
    """Visibility in miles."""
    return weather_visib.astype("float64")


def temperature(weather_temp: pd.Series) -> pd.Series:
    """Temperature in degrees Fahrenheit."""
    return weather_temp.astype("float64")


def dew_point(weather_dewp: pd.Series) -> pd.Series:
    """Dew point in degrees Fahrenheit."""
    return weather_dewp.astype("float64")


def humidity(weather_humid: pd.Series) -> pd.Series:
    """Relative humidity in percent."""
    return weather_humid.astype("float64")


def pressure(weather_pressure: pd.Series) -> pd.Series:
    """Sea-level pressure in millibars."""
    return weather_pressure.astype("float64")


def wind_direction(weather_wind_dir: pd.Series) -> pd.Series:
    """Direction the wind comes from, in degrees."""
    return weather_wind_dir.astype("float64")
