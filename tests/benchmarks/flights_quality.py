"""A year of flights judged month by month: `python -m tests.benchmarks.flights_quality --help`.

Two ways to run a year. "followed": every month's champion learned from all flights known before the month before, and
was evaluated on that; so each month is judged against the evaluation of the month before it. "frozen": the champion
that learned from January and was evaluated on February stays all year. Each month is judged twice: from its scores
alone (what the estimate says), and with its labels. All models are the pipeline's `boosting` variant; the policy is the
library's defaults with a margin of 0.02 for the ROC AUC, as the flights' policy has it.
"""
# ruff: noqa: T201 - a script prints

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from deployments.flights.land import MONTHS
from ml_assets.periods import Periods
from ml_assets.quality.reference import reference_part
from ml_assets.quality.settings import QualitySettings
from ml_assets.quality.verdict import Quality, assess
from ml_assets.spec import PipelineSpec
from ml_assets.training import fit, predict
from tests.benchmarks.ten_comparisons import VARIANT, flights_spec, labelled_rows

METRICS = ("roc_auc", "log_loss", "brier_score")
SETTINGS = QualitySettings(
    alpha=0.05, calibration_gap=0.05, relative_loss=0.1, margins={"roc_auc": 0.02}, block_days=3, min_days=7
)
SEED = 20130101


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One month of one way to run the year, for all flights or one airport's."""

    way: str
    month: str
    airport: str
    early: Quality
    late: Quality


def judge_year(spec: PipelineSpec, rows: pd.DataFrame, airports: Sequence[str]) -> Iterator[Judged]:
    """Yield the verdict on every month from March on; an empty airport stands for all flights."""
    periods = Periods.of(spec.partitions, spec.source.event_time.timezone)
    label, features = spec.label.column, list(spec.features.columns)
    months = {month: rows[rows["day"].dt.strftime("%Y-%m") == month] for month in MONTHS}

    def champion_of(month: str) -> Any:
        known = rows[rows["label_time"] < periods.bounds(month)[0]]
        return fit(spec.variants[VARIANT], known[features], known[label].to_numpy(), seed=SEED)

    frozen = champion = champion_of(MONTHS[1])
    for before, month in itertools.pairwise(MONTHS[1:]):
        ways = {"followed": (before, champion), "frozen": (MONTHS[1], frozen)}
        for (way, (evaluated, model)), airport in ((w, a) for w in ways.items() for a in airports):
            own, now = (_arrays(months[m], model, airport) for m in (evaluated, month))
            part = reference_part(task="binary", metrics=METRICS, **own)
            settings = replace(SETTINGS, alpha=SETTINGS.alpha / max(1, len([a for a in airports if a])))
            given = {"task": "binary", "reference": part, "metrics": METRICS, "settings": settings, **now}
            n_rows = now["y"].size
            yield Judged(
                way=way,
                month=month,
                airport=airport,
                early=assess(**given | {"y": now["y"][:0]}, known=np.zeros(n_rows, dtype=np.bool_)),
                late=assess(**given, known=np.ones(n_rows, dtype=np.bool_)),
            )
        champion = champion_of(month)


def _arrays(rows: pd.DataFrame, model: Any, airport: str) -> dict[str, Any]:
    chosen = rows[rows["origin"] == airport] if airport else rows
    return {
        "y": chosen["late"].to_numpy(dtype=np.float64),
        "score": predict(model, chosen, task="binary"),
        "days": chosen["day"].to_numpy().astype("datetime64[D]"),
    }


def as_markdown(judged: Sequence[Judged]) -> str:
    """Return a table of all months."""
    lines = [
        "| champion | month | flights of | AUC evaluated | AUC estimated [95 %] | AUC realised [95 %] | "
        "label − prediction [95 %] | p | before labels | with labels | why |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_row(one) for one in judged)]) + "\n"


def _row(one: Judged) -> str:
    late = one.late
    if late.realised is None or late.calibration is None:
        raise SystemExit(f"{one.month} was not judged by its labels: {' '.join(late.reasons)}")
    gap = late.calibration.worst
    lower, upper = gap.gap.interval(0.95)
    why = [loss.metric for loss in late.realised.lost] + ["calibration"] * gap.miscalibrated
    cells = [
        one.way,
        one.month,
        one.airport or "all",
        f"{late.reference.gains['roc_auc'].value.estimate:.3f}",
        _auc(late.estimated.gains["roc_auc"].value),
        _auc(late.realised.gains["roc_auc"].value),
        f"{gap.gap.estimate:+.3f} [{lower:+.3f}, {upper:+.3f}]",
        f"{gap.p_value:.4f}",
        one.early.verdict,
        f"**{late.verdict}**" if late.verdict == "decayed" else late.verdict,
        ", ".join(why),
    ]
    return f"| {' | '.join(cells)} |"


def _auc(value: Any) -> str:
    lower, upper = value.interval(0.95)
    return f"{value.estimate:.3f} [{lower:.3f}, {upper:.3f}]"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--by-airport", action="store_true", help="judge each airport, with a third of alpha")
    options = parser.parse_args()
    spec = flights_spec()
    group = spec.partitions.group
    airports = list(group.values) if options.by_airport and group is not None else [""]
    judged = sorted(judge_year(spec, labelled_rows(spec), airports), key=lambda one: one.way)
    print(as_markdown(judged))


if __name__ == "__main__":
    main()
