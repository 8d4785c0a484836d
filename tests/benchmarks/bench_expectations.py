"""Compares the validator with Great Expectations' own fastest run of the same suite.

Start it with `python -m tests.benchmarks.bench_expectations`. Both judge the same frame with the same 50
expectations, of which two fail; ours also counts and samples the failing rows. Runs alternate, and medians of
wall and CPU seconds are shown. A ratio above 1.2 ends with code 1.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.interfaces import Expectation
from ml_assets.testing.validator import expect
from resources.expectations import GreatExpectationsValidator

MAX_RATIO = 1.2


def frame_of(n_rows: int) -> pd.DataFrame:
    """Return a frame with 20 columns: 14 floats, integers, text and a time."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"f{i}": rng.normal(size=n_rows) for i in range(14)})
    frame.loc[::1000, "f0"] = np.nan
    return frame.assign(
        id=np.arange(n_rows),
        category=rng.choice(list("abcd"), n_rows),
        side=rng.choice(["x", "y"], n_rows),
        percent=rng.integers(0, 100, n_rows),
        digit=rng.integers(0, 10, n_rows),
        time=pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 10**6, n_rows), unit="s"),
    )


def fifty_expectations() -> list[Expectation]:
    """Return 50 expectations, of which a range on f1 (2 % of the rows) and a set of letters (25 %) do not hold."""
    expectations = []
    for i in range(14):
        expectations += [
            expect("column_values_to_not_be_null", column=f"f{i}", mostly=0.99),
            expect("column_values_to_be_between", column=f"f{i}", min_value=-2 if i == 1 else -8, max_value=8),
            expect("column_mean_to_be_between", column=f"f{i}", min_value=-0.1, max_value=0.1),
        ]
    return [
        *expectations,
        expect("column_values_to_be_unique", column="id"),
        expect("column_values_to_be_in_set", column="category", value_set=list("abc")),
        expect("column_values_to_be_in_set", column="side", value_set=["x", "y"]),
        expect("column_values_to_be_between", column="percent", min_value=0, max_value=99),
        expect("column_values_to_match_regex", column="category", regex="^[a-d]$"),
        expect("table_row_count_to_be_between", min_value=1, max_value=10**6),
        expect("column_values_to_be_of_type", column="f0", type_="float64"),
        expect("column_pair_values_a_to_be_greater_than_b", column_A="percent", column_B="digit", mostly=0.5),
    ]


def their_run(frame: pd.DataFrame, expectations: list[Expectation]) -> Callable[[], int]:
    """Return Great Expectations' own fastest run: batch and suite made beforehand, BOOLEAN_ONLY."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.registry import get_expectation_impl

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("frames").add_dataframe_asset("frame")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
    built: list[Any] = [get_expectation_impl(e.type)(**e.kwargs) for e in expectations]
    suite = gx.ExpectationSuite(name="batch", expectations=built)

    def run() -> int:
        return sum(not result.success for result in batch.validate(suite, result_format="BOOLEAN_ONLY").results)

    return run


def our_run(frame: pd.DataFrame, expectations: list[Expectation]) -> Callable[[], int]:
    """Return ours, from interface values to results with counts and sample rows."""
    validator = GreatExpectationsValidator()

    def run() -> int:
        failed = [result for result in validator.validate(frame, expectations) if not result.success]
        return sum(bool(result.n_failing and len(result.sample) == 20) for result in failed)

    return run


def measured(run: Callable[[], int]) -> tuple[float, float]:
    """Return wall and CPU seconds of one run, which must find both failing expectations."""
    wall, cpu = time.perf_counter(), time.process_time()
    if run() != 2:
        sys.exit("a run did not find the two failing expectations")
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> int:
    """Measure both sizes and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    expectations = fifty_expectations()
    assert len(expectations) == 50
    worst = 0.0
    for n_rows in (27_000, 300_000):
        frame = frame_of(n_rows)
        runs = {"great expectations": their_run(frame, expectations), "ml_assets": our_run(frame, expectations)}
        for run in runs.values():
            measured(run)
        times = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                times[name].append(measured(run))
        medians = {
            name: [statistics.median(column) for column in zip(*found, strict=True)] for name, found in times.items()
        }
        ratios = [
            ours / theirs for ours, theirs in zip(medians["ml_assets"], medians["great expectations"], strict=True)
        ]
        worst = max(worst, *ratios)
        for name, (wall, cpu) in medians.items():
            print(f"{n_rows:>7,} × 20  {name:<18}  wall {wall:.3f} s  CPU {cpu:.3f} s")  # noqa: T201
        print(f"{n_rows:>7,} × 20  {'ratio':<18}  wall {ratios[0]:.2f}     CPU {ratios[1]:.2f}")  # noqa: T201
    return int(worst > MAX_RATIO)


if __name__ == "__main__":
    sys.exit(main())
