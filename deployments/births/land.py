"""Lands the births as they would arrive: one Parquet file a year."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

YEARS = tuple(str(year) for year in range(1969, 1989))
DATA = Path(__file__).parent / "data" / "births.parquet"


def land(landing: Path, years: Sequence[str] = YEARS) -> list[Path]:
    """Write the years' files that are not there yet, each in one move, and return them."""
    folder = landing / "births"
    folder.mkdir(parents=True, exist_ok=True)
    births = pd.read_parquet(DATA)
    landed = []
    for year, rows in births.groupby(births["date"].dt.year.astype(str)):
        path = folder / f"{year}.parquet"
        if year in years and not path.exists():
            part = path.with_suffix(f".{os.getpid()}.part")  # two demos may land the same file at once
            rows.to_parquet(part, index=False)
            part.replace(path)
            landed.append(path)
    return landed
