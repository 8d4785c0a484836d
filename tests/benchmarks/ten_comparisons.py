"""Ten months of flights, champion against challenger: `python -m tests.benchmarks.ten_comparisons --help`.

For each month from March to December of 2013 the champion learned from all flights through the month before last, the
honest challenger through last month, and the bad challenger from nothing but days 22 and later of last month. All are
the pipeline's `boosting` variant on its own features, and all score the month's flights, which none has seen.
"""
# ruff: noqa: T201 - a script prints

import argparse
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from deployments.flights.land import MONTHS, land
from ml_assets.bootstrap import Interval
from ml_assets.challenge import challenge
from ml_assets.challenge_result import ChallengeResult, ChallengeRules
from ml_assets.features.graph import FeatureGraph
from ml_assets.features.joins import join_side_table
from ml_assets.features.module import load_feature_module
from ml_assets.periods import Periods
from ml_assets.sources import LandingZone, read_table
from ml_assets.spec import PipelineSpec
from ml_assets.training import fit, predict
from ml_assets.yaml_positions import load_yaml

FOLDER = Path(__file__).parents[2] / "deployments" / "flights" / "defs" / "arrival_delay"
VARIANT, BAD_FROM_DAY = "boosting", 22
RULES = ChallengeRules(
    metric="roc_auc",
    margin=0.02,
    confidence=0.95,
    replicates=2000,
    block_days=1,
    slice_margin=0.05,
    calibration_guard=True,
    seed=20130101,
)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One challenger against one month's champion."""

    month: str
    kind: str
    result: ChallengeResult


def flights_spec() -> PipelineSpec:
    """Return the flights pipeline as its YAML describes it."""
    text = (FOLDER / "defs.yaml").read_text(encoding="utf-8")
    return PipelineSpec.model_validate(load_yaml(text, file="defs.yaml").data["attributes"])


def labelled_rows(spec: PipelineSpec, months: Iterable[str] = MONTHS) -> pd.DataFrame:
    """Return all labelled flights: features, label, local `day`, and `label_time` (UTC)."""
    graph = FeatureGraph(module=load_feature_module(FOLDER, "features.py"))
    columns = [spec.label.column, *spec.features.columns]
    source = spec.source
    with tempfile.TemporaryDirectory() as folder:
        land(Path(folder), tuple(months))
        zone = LandingZone(root=folder)
        sides = {
            name: read_table(zone, side.url, "csv", side.columns).to_pandas()
            for name, side in source.side_tables.items()
        }
        parts = []
        for month in months:
            # Features count departures of the same airport, so each partition is computed by itself.
            for airport in spec.partitions.group.values if spec.partitions.group else ():
                url = source.url.format(time=month, group=airport)
                rows = read_table(zone, url, "csv", source.columns).to_pandas()
                needed = graph.reads(columns)
                for name, side in sides.items():
                    joined = join_side_table(
                        rows, side, name=name, spec=source.side_tables[name], event_time="time_hour", wanted=needed
                    )
                    rows = rows.join(joined)
                local = rows["time_hour"].dt.tz_convert(source.event_time.timezone).dt.tz_localize(None)
                parts.append(
                    graph.compute(columns, rows).assign(
                        day=local.dt.floor("D"),
                        label_time=rows["time_hour"] + pd.Timedelta(spec.label.known_after or "0d"),
                    )
                )
    frame = pd.concat(parts, ignore_index=True)
    return frame[frame[spec.label.column].notna()].reset_index(drop=True)


def compare_months(
    spec: PipelineSpec, rows: pd.DataFrame, rules: ChallengeRules = RULES, months: Sequence[str] = MONTHS
) -> Iterator[Compared]:
    """Yield the honest and the bad challenger of every month that has two months before it."""
    periods = Periods.of(spec.partitions, spec.source.event_time.timezone)
    key = rows["day"].dt.strftime("%Y-%m")
    label, features = spec.label.column, list(spec.features.columns)

    def fitted(mask: pd.Series) -> object:
        return fit(spec.variants[VARIANT], rows.loc[mask, features], rows.loc[mask, label].to_numpy(), seed=rules.seed)

    def known(month: str) -> pd.Series:
        return rows["label_time"] < periods.bounds(month)[0]

    champion = fitted(known(months[1]))
    for before, month in itertools.pairwise(months[1:]):
        honest_rows = known(month)
        bad = fitted(honest_rows & (key == before) & (rows["day"].dt.day >= BAD_FROM_DAY))
        honest = fitted(honest_rows)
        test = rows[key == month]
        for kind, model in (("honest", honest), ("bad", bad)):
            scores = {
                name: predict(m, test, task="binary") for name, m in (("candidate", model), ("champion", champion))
            }
            # The baseline is the rate that the candidate was trained on.
            prior = rows.loc[honest_rows, label].mean()
            scores["baseline"] = np.full(len(test), prior)
            result = challenge(
                task="binary",
                y_true=test[label].to_numpy(),
                scores=scores,
                days=test["day"].to_numpy().astype("datetime64[D]"),
                columns=test[list(spec.evaluation.slices)],
                rules=rules,
            )
            yield Compared(month=month, kind=kind, result=result)
        champion = honest


def as_markdown(compared: Sequence[Compared]) -> str:
    """Return a table of all comparisons, honest ones first."""
    lines = [
        "| month | challenger | improvement of AUC [95 %] | slices worse (held, not measured) | log loss against prior "
        "[95 %] | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for kind in ("honest", "bad"):
        lines += [_row(c) for c in compared if c.kind == kind]
    return "\n".join(lines) + "\n"


def _row(compared: Compared) -> str:
    result = compared.result
    counts = {name: sum(s.outcome == name for s in result.slices) for name in ("worse", "held", "not_measured")}
    named = ", ".join(f"{s.column}={s.value}" for s in result.slices if s.outcome == "worse") or "none"
    calibration = "" if result.calibration is None else _interval(result.calibration.improvement)
    lost = result.calibration is not None and result.calibration.outcome == "worse"
    more = f", {result.more_days} more days" if result.more_days else ""
    return (
        f"| {compared.month} | {compared.kind} | {_interval(result.comparison.improvement)} | {named} "
        f"({counts['held']}, {counts['not_measured']}) | {calibration}{' worse' if lost else ''} | "
        f"**{result.outcome}**{more} |"
    )


def _interval(found: Interval) -> str:
    return f"{found.estimate:+.3f} [{found.lower:+.3f}, {found.upper:+.3f}]"


def main() -> None:
    """Print the table, and write it when a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--markdown", type=Path, help="file to write the table to")
    parser.add_argument("--reasons", action="store_true", help="print every reason")
    options = parser.parse_args()
    spec = flights_spec()
    compared = list(compare_months(spec, labelled_rows(spec)))
    table = as_markdown(compared)
    print(table)
    for one in compared if options.reasons else ():
        print(f"{one.month} {one.kind}: {one.result.reason}")
        for guard in one.result.slices:
            if guard.outcome != "held":
                print(f"    {guard.column}={guard.value} ({guard.n_rows} rows): {guard.outcome}: {guard.reason}")
    if options.markdown:
        options.markdown.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
