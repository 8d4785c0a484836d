"""Drift that is known, found by us and by others: `python -m tests.benchmarks.bench_drift_detectors --help`.

Tables with a known change are cut into chunks of 5,000 rows in the order of time, and each chunk is compared with all
reference rows. Counted are chunks before the change in which any column is named (false alarms), chunks from the
change to the first that is named (delay; 0 is the first changed chunk), changed columns that are named in at least half
of the changed chunks, and columns that did not change and are named in any chunk. All tools run by their defaults.

The tables are those that NannyML 0.13.1 ships, and River's streams, whose inputs never change (only what the label
depends on does), so that any named input is a false alarm. The census has its college dormitories in rows 133,570 to
143,938; from row 69,126 on, its files put all group quarters into one place, and so RELP, which tells them from homes,
lacks two of its values elsewhere. That is a change, if no change of people: false alarms are counted before it.

In all of these, rows are independent of each other. "weather" is simulated: days of 200 rows that hang together as real
ones do, by the columns of `drift_null.py`; four of its columns change in the middle, sixteen never.

`--held-out` runs other cases instead: streams that no setting of ours was chosen on, two of them without any change,
and twenty worlds of weather with other seeds and storms that last longer. They were written down before they were run,
and nothing was changed after.

NannyML's folder `nannyml/datasets/data` and the streams (`drift_rivals.py streams FOLDER`) are given as options, as is
the interpreter of an environment with the other tools; `drift_rivals.py` tells how to make both environments.

Days come from the time stamps where a chunk has 25 of them at least (car loan, weather). The other tables have
rows in one order but no usable days: 150 rows in a row count as a day there, 33 or 34 of them to a chunk.
"""
# ruff: noqa: T201 - a script prints

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ml_assets.drift.compare import compare
from ml_assets.drift.settings import DriftSettings
from ml_assets.drift.verdicts import persistent
from ml_assets.profiles.profile import Profile
from ml_assets.profiles.table import profile_table
from tests.benchmarks.drift_null import FIRST, KINDS, World, column, correlated

CHUNK, FEWEST_DAYS, ROWS_OF_A_DAY = 5_000, 25, 150
RIVALS = Path(__file__).with_name("drift_rivals.py")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A table with a known change.

    Attributes:
        name: Such as "car loan".
        files: Of the reference and of the analysed rows; one file with both, 60,000 rows each, for a stream; none for
            simulated rows.
        change: Analysed rows that changed: first, and the one after the last (None: to the end).
        stationary: Analysed rows before the first change of any kind; those before `change` when None.
        stable: Columns that do not change; with `changed` all that are compared.
        changed: Columns that do.
        seed: Of simulated rows.
        storms: Correlation of a simulated day's shared effect with that of the day before.
    """

    name: str
    files: tuple[str, ...]
    change: tuple[int, int | None]
    stationary: int | None = None
    stable: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    seed: int = 5
    storms: float = 0.6

    @property
    def columns(self) -> list[str]:
        """Return the columns that are compared."""
        return [*self.changed, *self.stable]


CENSUS = ("AGEP", "SCHL", "MAR", "RELP", "DIS", "ESP", "CIT", "MIG", "MIL", "ANC")
CENSUS_REST = ("NATIVITY", "DEAR", "DEYE", "DREM", "SEX", "RAC1P")
CHANGED = (("rows", 0), ("mixed", 0), ("shares", 0), ("missing", 0))
STIRRED = tuple(f"{kind}_{i}" for kind, i in CHANGED)
CALM = tuple(f"{kind}_{i}" for kind in KINDS for i in (0, 1) if (kind, i) not in CHANGED)
REWIRED = (0, 2, 5, 7, 9, 11)
SIMULATED_DAYS, SIMULATED_REFERENCE_DAYS, SIMULATED_ROWS = 600, 300, 200
HELD_OUT_WORLDS = range(1001, 1021)
CASES = (
    Case(
        name="car loan",
        files=("synthetic_car_loan_reference.csv", "synthetic_car_loan_analysis.csv"),
        change=(25_000, None),
        stable=("debt_to_income_ratio", "size_of_downpayment", "driver_tenure"),
        changed=("car_value", "salary_range", "loan_length", "repaid_loan_on_prev_car"),
    ),
    Case(
        name="car price",
        files=("regression_synthetic_reference.csv", "regression_synthetic_analysis.csv"),
        change=(30_000, None),
        changed=("car_age", "km_driven", "price_new", "accident_count", "door_count", "fuel", "transmission"),
    ),
    Case(
        name="credit card",
        files=("mc_reference.csv", "mc_analysis.csv"),
        change=(30_000, None),
        changed=(
            "acq_channel",
            "app_behavioral_score",
            "requested_credit_limit",
            "app_channel",
            "credit_bureau_score",
            "stated_income",
            "is_customer",
        ),
    ),
    Case(
        name="census",
        files=("employment_MA_reference.pq", "employment_MA_analysis.pq"),
        change=(133_570, 143_938),
        stationary=69_126,
        changed=(*CENSUS, *CENSUS_REST),
    ),
    Case(name="river sine", files=("river_sine.parquet",), change=(30_000, None), stable=("0", "1")),
    Case(name="river sea", files=("river_sea.parquet",), change=(30_000, None), stable=("0", "1", "2")),
    Case(
        name="river agrawal",
        files=("river_agrawal.parquet",),
        change=(30_000, None),
        stable=("salary", "commission", "age", "elevel", "car", "zipcode", "hvalue", "hyears", "loan"),
    ),
    Case(name="weather", files=(), change=(30_000, None), stable=CALM, changed=STIRRED),
)
HELD_OUT = (
    Case(
        name="clusters",
        files=("river_rbf.parquet",),
        change=(30_000, None),
        changed=tuple(map(str, range(10))),
    ),
    Case(
        name="led",
        files=("river_led.parquet",),
        change=(30_000, None),
        stable=tuple(str(k) for k in range(24) if k not in REWIRED),
        changed=tuple(map(str, REWIRED)),
    ),
    Case(name="waveform", files=("river_waveform.parquet",), change=(60_000, None), stable=tuple(map(str, range(40)))),
    Case(name="mixed", files=("river_mixed.parquet",), change=(60_000, None), stable=tuple(map(str, range(4)))),
    *(
        Case(
            name=f"weather {seed}",
            files=(),
            change=(30_000, None),
            stable=CALM,
            changed=STIRRED,
            seed=seed,
            storms=0.8,
        )
        for seed in HELD_OUT_WORLDS
    ),
)


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """A case's rows.

    Attributes:
        reference: All reference rows.
        chunks: The analysed rows in order; a last chunk of less than half the size is left out.
        days: Days of the reference, then of each chunk.
    """

    reference: pd.DataFrame
    chunks: list[pd.DataFrame]
    days: list[np.ndarray]


def load(case: Case, folders: Sequence[Path]) -> Chunks | None:
    """Return a case's rows, or None when no folder has its files."""
    if not case.files:
        return simulated(case)
    paths = [next((f / name for f in folders if (f / name).exists()), None) for name in case.files]
    found = [path for path in paths if path is not None]
    if len(found) < len(paths):
        return None
    tables = [pd.read_csv(p) if p.suffix == ".csv" else pd.read_parquet(p) for p in found]
    if len(tables) == 1:
        tables = [tables[0].iloc[:60_000], tables[0].iloc[60_000:]]
    reference, analysed = (_plain(table.reset_index(drop=True), case) for table in tables)
    return _cut(reference, analysed)


def _cut(reference: pd.DataFrame, analysed: pd.DataFrame) -> Chunks:
    starts = [*range(0, len(analysed) - CHUNK // 2, CHUNK), len(analysed)]
    chunks = [analysed.iloc[a : min(b, a + CHUNK)].reset_index(drop=True) for a, b in pairwise(starts)]
    parts = [reference, *chunks]
    return Chunks(reference=reference, chunks=chunks, days=_days(parts))


def simulated(case: Case) -> Chunks:
    """Return days that hang together; the changed columns are shifted, missing or of another value from a day on."""
    day = np.repeat(np.arange(SIMULATED_DAYS), SIMULATED_ROWS)
    rng = np.random.default_rng(case.seed)
    world = World(rng=rng, day=day, storm=correlated(rng, SIMULATED_DAYS, case.storms))
    drawn = {name: column(world, name.rpartition("_")[0]).to_pandas() for name in sorted(case.columns)}
    start = SIMULATED_REFERENCE_DAYS * SIMULATED_ROWS
    after = np.arange(len(day)) >= start + case.change[0]
    some = after & (rng.random(len(day)) < 0.4)
    drawn["rows_0"] = drawn["rows_0"] + 0.6 * after
    drawn["mixed_0"] = drawn["mixed_0"] + 1.5 * after
    drawn["shares_0"] = drawn["shares_0"].where(~some, "v5")
    drawn["missing_0"] = drawn["missing_0"].where(~some)
    frame = pd.DataFrame(drawn).assign(timestamp=FIRST + day)
    return _cut(frame.iloc[:start].reset_index(drop=True), frame.iloc[start:].reset_index(drop=True))


def _plain(table: pd.DataFrame, case: Case) -> pd.DataFrame:
    columns = [*case.columns, *(["timestamp"] if "timestamp" in table else [])]
    plain = table[columns].copy()
    for name in case.columns:
        if not pd.api.types.is_numeric_dtype(plain[name]) or plain[name].dtype == bool:
            plain[name] = plain[name].astype(str)
    return plain


def _days(parts: Sequence[pd.DataFrame]) -> list[np.ndarray]:
    if "timestamp" in parts[0]:
        days = [pd.to_datetime(p["timestamp"]).to_numpy().astype("datetime64[D]") for p in parts]
        if min(len(np.unique(d)) for d in days) >= FEWEST_DAYS:
            return days
    return [np.datetime64("2000-01-01") + np.arange(len(p)) // ROWS_OF_A_DAY for p in parts]


def profiles(case: Case, rows: Chunks) -> tuple[Profile, list[Profile]]:
    """Return the profiles of the reference and of each chunk."""
    tables = [pa.Table.from_pandas(p[case.columns], preserve_index=False) for p in (rows.reference, *rows.chunks)]
    found = [profile_table(table, case.columns, days) for table, days in zip(tables, rows.days, strict=True)]
    return found[0], found[1:]


def ours(case: Case, rows: Chunks) -> tuple[list[list[str]], float]:
    """Return the columns we name in each chunk, and the CPU seconds that took, profiles with them."""
    started = time.process_time()
    reference, chunks = profiles(case, rows)
    named = [list(compare(reference, chunk, importance={}, settings=DriftSettings()).moved) for chunk in chunks]
    return named, time.process_time() - started


def rivals(python: str, cases: Mapping[str, tuple[Case, Chunks]]) -> dict[tuple[str, str], list[list[str]]]:
    """Return what the other tools name: (tool, case) → columns in each chunk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, (case, rows) in cases.items():
            slug = title.replace(" ", "_")
            parts = {f"{slug}_reference.parquet": rows.reference}
            parts |= {f"{slug}_{i:03}.parquet": chunk for i, chunk in enumerate(rows.chunks)}
            for file, frame in parts.items():
                frame.to_parquet(folder / file)
            reference, *chunks = parts
            asked = {"table": title, "reference": reference, "chunks": chunks, "columns": case.columns}
            (folder / f"chunks_{slug}.json").write_text(json.dumps(asked), encoding="utf-8")
        argv = [python, str(RIVALS), "judge", str(folder)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} ended with code {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[tuple[str, str], list[list[str]]] = {}
    for entry in json.loads(done.stdout.splitlines()[-1]):
        found.setdefault((entry["tool"], entry["table"]), []).append(entry["columns"])
    return found


def line(case: Case, tool: str, named: Sequence[Sequence[str]], rows: Chunks) -> str:
    """Return one line of the table."""
    end = case.change[1] or len(named) * CHUNK
    first, last = case.change[0] // CHUNK, -(-end // CHUNK)
    n_before = (case.change[0] if case.stationary is None else case.stationary) // CHUNK
    before, during = named[:n_before], named[first:last]
    alarms = sum(bool(columns) for columns in before)
    hits = [number for number, columns in enumerate(during) if set(columns) & set(case.changed)]
    delay = str(hits[0]) if hits else ("–" if not case.changed else "missed")
    often = [c for c in case.changed if sum(c in columns for columns in during) >= len(during) / 2]
    changed = f"{len(often)} of {len(case.changed)}" if case.changed else "–"
    wrong = sorted({c for columns in named for c in columns if c in case.stable})
    moved = [bool(columns) for columns in named]
    lasting = sum(moved[i] and persistent(moved[: i + 1], 2, 3) for i in range(n_before))
    stable = f"{len(wrong)} of {len(case.stable)}" if case.stable else "–"
    cells = (case.name, tool, f"{alarms} of {len(before)}", str(lasting), delay, changed, stable)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", help="folders with NannyML's tables and River's streams")
    parser.add_argument("--rivals", help="interpreter of an environment with nannyml and evidently")
    parser.add_argument("--held-out", action="store_true", help="cases that no setting was chosen on")
    parser.add_argument("--chunks", action="store_true", help="also print what is named in each chunk")
    asked = parser.parse_args()
    cases = HELD_OUT if asked.held_out else CASES
    found = {case.name: (case, rows) for case in cases if (rows := load(case, asked.folders)) is not None}
    results = {("ml_assets", name): ours(case, rows)[0] for name, (case, rows) in found.items()}
    if asked.rivals:
        results |= rivals(asked.rivals, found)
    print("| table | tool | false alarms | with 2 of 3 | delay | changed columns named | stable columns named |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name, (case, rows) in found.items():
        for (tool, table), named in sorted(results.items()):
            if table == name:
                print(line(case, tool, named, rows))
    if asked.chunks:
        for (tool, table), named in sorted(results.items()):
            for number, columns in enumerate(named):
                print(f"{table}, {tool}, chunk {number}: {', '.join(columns) or 'nothing'}")


if __name__ == "__main__":
    main()
