"""Evidently on the two tables of `bench_profile`, in an environment of its own.

It knows nothing of ml_assets, and ml_assets knows nothing of Evidently:

    python -m venv rivals
    rivals/bin/python -m pip install evidently==0.7.23 pyarrow "pandas<3"

`rivals/bin/python profile_rival.py preset FOLDER` reads the tables, runs the data drift preset once on their first rows
and then on all of them, and prints what that took and found as JSON; `columns` in place of `preset` asks for the drift
of each column by itself, which computes it once; the preset does so three times, for its values and for its pages. The
kinds of the columns are declared. The methods are its defaults: above 1,000 rows the Wasserstein distance for numbers,
the Jensen-Shannon distance for categories.
"""
# ruff: noqa: T201 - the parent process reads what it prints

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

WARM_UP_ROWS = 1_500
LEFT_OUT = ("category_9",)
"""Columns that Evidently does not get: the time it takes grows with the square of the number of a category's values."""

SHORT_SECONDS = 0.5


def measured(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what an action found, and the seconds it took: of CPU (this process and its children) and of wall.

    What takes less than half a second is repeated for as long, and the mean is given.
    """
    cpu, wall, times = _cpu(), time.monotonic(), 0
    while True:
        found, times = action(), times + 1
        spent = time.monotonic() - wall
        if spent >= SHORT_SECONDS:
            return found | {"cpu": (_cpu() - cpu) / times, "wall": spent / times}


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def report(kind: str, reference: pd.DataFrame, current: pd.DataFrame) -> dict[str, Any]:
    """Return the columns that Evidently says have drifted, by its "preset" or by one metric for each of "columns"."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift
    from evidently.presets import DataDriftPreset

    numbers = [name for name in reference.columns if name.startswith("number")]
    categories = [name for name in reference.columns if name.startswith("category")]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    sides = [Dataset.from_pandas(frame, data_definition=definition) for frame in (current, reference)]
    asked = {
        "preset": lambda: [DataDriftPreset()],
        "columns": lambda: [ValueDrift(column=c) for c in reference.columns],
    }
    document = Report(asked[kind]()).run(*sides).json()
    return {"moved": drifted(json.loads(document)), "bytes": len(document)}


def drifted(document: dict[str, Any]) -> list[str]:
    """Return the columns whose distance is not below their threshold."""
    found = []
    for metric in document["metrics"]:
        config = metric["config"]
        if config["type"].endswith("ValueDrift") and metric["value"] >= config["threshold"]:
            found.append(config["column"])
    return found


def main(kind: str, folder: Path) -> None:
    """Measure and print."""
    import evidently

    warnings.simplefilter("ignore")
    frames = [
        pd.read_feather(folder / f"{side}.arrow").drop(columns=list(LEFT_OUT)) for side in ("reference", "current")
    ]
    report(kind, *(frame.head(WARM_UP_ROWS) for frame in frames))
    version = {"version": f"Evidently {evidently.__version__}, pandas {pd.__version__}"}
    print(json.dumps(measured(lambda: report(kind, *frames)) | version))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
