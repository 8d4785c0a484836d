"""Plans a pipeline's runs over periods: data in one range run, models a month a run oldest first, then predictions."""

from collections.abc import Sequence
from dataclasses import dataclass

import click

from ml_assets.cli.engine import PlannedRun
from ml_assets.periods import Periods, join_partition
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.spec import PipelineSpec
from ml_assets.stages.step import LAUNCHED_BY_TAG


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """What is to be done for one pipeline.

    Attributes:
        pipeline: The pipeline.
        module: Its code location.
        first: First period.
        last: Last period.
        launched_by: Who does it.
    """

    pipeline: LoadedPipeline
    module: str
    first: str
    last: str
    launched_by: str

    @property
    def spec(self) -> PipelineSpec:
        """Return the pipeline's description."""
        return self.pipeline.spec

    @property
    def periods(self) -> list[str]:
        """Return the periods, oldest first."""
        return periods_of(self.spec).between(self.first, self.last)

    def data_runs(self) -> list[PlannedRun]:
        """Return the run that ingests the range and computes its features."""
        return [self._range(("raw_data", "features"), "data", self.first, self.last)]

    def model_runs(self, period: str) -> list[PlannedRun]:
        """Return the run that trains, evaluates and decides for one period; none for the very first."""
        if not periods_of(self.spec).window(period, 1):
            return [self._run(("row_index",), period, period, f"{period} row index")]
        stages = (
            "row_index",
            "training_set",
            *(f"models/{v}" for v in self.spec.variants),
            "candidate",
            "evaluation",
            "promotion",
        )
        return [self._run(stages, period, period, f"{period} models")]

    def promotion_run(self, period: str) -> PlannedRun:
        """Return the run that decides again on a period's candidate, such as after an approval."""
        return self._run(("promotion",), period, period, f"{period} promotion")

    def prediction_runs(self, scorable: Sequence[str]) -> list[PlannedRun]:
        """Return the run that scores and watches the range with the champions of their time; none without champions.

        Args:
            scorable: The range's periods that have a champion, oldest first.
        """
        if not scorable:
            return []
        return [self._range(("predictions", "drift", "performance"), "predictions", scorable[0], scorable[-1])]

    def _range(self, stages: Sequence[str], title: str, first: str, last: str) -> PlannedRun:
        group = self.spec.partitions.group
        low, high = (None, None) if group is None else (min(group.values), max(group.values))
        span = first if first == last else f"{first} to {last}"
        return self._run(stages, join_partition(low, first), join_partition(high, last), f"{span} {title}")

    def _run(self, stages: Sequence[str], first: str, last: str, title: str) -> PlannedRun:
        prefix = f"{self.spec.team}/{self.spec.name}"
        return PlannedRun(
            module=self.module,
            assets=tuple(f"{prefix}/{stage}" for stage in stages),
            first=first,
            last=last,
            title=title,
            tags={"ml_assets/pipeline": prefix, LAUNCHED_BY_TAG: self.launched_by},
        )


def periods_of(spec: PipelineSpec) -> Periods:
    """Return a pipeline's periods."""
    return Periods.of(spec.partitions, spec.source.event_time.timezone)


def check_range(spec: PipelineSpec, first: str, last: str) -> None:
    """Refuse a range that is not one of declared periods.

    Raises:
        click.BadParameter: With the range there is.
    """
    periods = periods_of(spec)
    for name, key in (("--from", first), ("--to", last)):
        if key not in periods:
            end = f" to before {spec.partitions.end}" if spec.partitions.end else ""
            raise click.BadParameter(
                f"{key!r} is no {spec.partitions.every} of {spec.team}/{spec.name}; they run from "
                f"{spec.partitions.start}{end}.",
                param_hint=name,
            )
    if first > last:
        raise click.BadParameter(f"{first!r} is after {last!r}.", param_hint="--from")
