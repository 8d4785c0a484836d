"""The A/B experiments of a pipeline: the rows that two versions scored, joined with the labels that have arrived."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ml_assets.experiments.report import AbReport, ab_report
from ml_assets.experiments.stopping import row_losses
from ml_assets.periods import split_partition
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.stages.columns import EVENT_TIME, LABEL_TIME, ROW_ID
from ml_assets.stages.step import Services, Step

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One challenger against one champion, at one planned share: another share is another experiment.

    Attributes:
        champion: Version of the champion.
        challenger: Version of the challenger.
        periods: Periods with rows of both arms, oldest first.
        share: The challenger's planned share.
        report: Sample ratio and stop rule.
    """

    champion: str
    challenger: str
    periods: tuple[str, ...]
    share: float
    report: AbReport


def experiments(services: Services, pipeline: LoadedPipeline) -> list[Experiment]:
    """Return a pipeline's experiments, by the period in which they began."""
    spec = pipeline.spec
    step = Step(pipeline=pipeline, services=services, partition=spec.partitions.start, run_id="")
    parts: dict[tuple[str, str, float], list[tuple[str, pd.DataFrame]]] = {}
    partitions = services.data_store.partitions(step.asset("predictions"))
    for partition in sorted(partitions, key=lambda p: (split_partition(p)[1], p)):
        rows = _rows(step, partition)
        if rows is not None and len(rows):
            parts.setdefault(_plan(rows), []).append((split_partition(partition)[1], rows))
    return [_experiment(step, plan, found) for plan, found in parts.items()]


def _rows(step: Step, partition: str) -> "pd.DataFrame | None":
    """Return what `ab_report` needs of a partition, with NaN as loss where no label is known; None without arms."""
    store, spec = step.services.data_store, step.spec
    stored = store.describe(step.asset("predictions"), partition)
    if stored is None or "arm" not in {name for name, _ in stored.columns}:
        return None
    scored = store.read(step.asset("predictions"), partition).to_pandas()
    label = spec.label.column
    labels = step.read(("features",), partition, columns=[ROW_ID, label, LABEL_TIME]).to_pandas()
    if spec.label.task == "multiclass":
        labels[label] = labels[label].astype("string")  # before missing labels turn whole numbers into fractions
    joined = scored.merge(labels.rename(columns={label: "_label"}), on=ROW_ID, how="left", validate="one_to_one")
    known = joined["_label"].notna().to_numpy() & _complete(joined)
    loss = np.full(len(joined), np.nan)
    if known.any():
        names = [c for c in scored.columns if c.startswith("score_")]
        scores = joined[names] if spec.label.task == "multiclass" else joined["score"]
        classes = [n.removeprefix("score_") for n in names] if spec.label.task == "multiclass" else None
        truth = joined["_label"][known]
        y = truth.astype(str).to_numpy() if classes else truth.to_numpy(dtype=np.float64)
        loss[known] = row_losses(spec.label.task, y, scores.to_numpy(dtype=np.float64)[known], classes)
    plan = ["champion_version", "challenger_version", "challenger_share"]
    return joined[[ROW_ID, EVENT_TIME, "arm", *plan]].assign(loss=loss)


def _complete(rows: "pd.DataFrame") -> NDArray[np.bool_]:
    """Return which rows happened before the first one whose label is not due yet: later days are known in part only."""
    import pandas as pd

    due = pd.to_datetime(rows[LABEL_TIME], utc=True) <= pd.Timestamp.now(tz="UTC")
    if due.all():
        return np.ones(len(rows), dtype=np.bool_)
    times = pd.to_datetime(rows[EVENT_TIME], utc=True)
    return (times.dt.floor("D") < times[~due].min().floor("D")).to_numpy()


def _plan(rows: "pd.DataFrame") -> tuple[str, str, float]:
    """Return (champion, challenger, share) of a partition's rows, also when an arm got none of them."""
    first = rows.iloc[0]
    return str(first["champion_version"]), str(first["challenger_version"]), float(first["challenger_share"])


def _experiment(step: Step, plan: tuple[str, str, float], found: "list[tuple[str, pd.DataFrame]]") -> Experiment:
    import pandas as pd

    champion, challenger, share = plan
    rows = pd.concat([frame for _, frame in found], ignore_index=True)
    report = ab_report(rows, share=share, alpha=step.policy.number("ab.alpha"), timezone=step.periods.timezone)
    return Experiment(
        champion=champion,
        challenger=challenger,
        periods=tuple(dict.fromkeys(period for period, _ in found)),
        share=share,
        report=report,
    )
