"""The pipeline's periods as Dagster partitions, and the mappings between its stages."""

import dagster as dg

from ml_assets.periods import KEY_FORMAT, Periods
from ml_assets.spec import PipelineSpec

TIME, GROUP = "time", "group"
_CRON = {"day": "0 0 * * *", "week": "0 0 * * 0", "month": "0 0 1 * *", "year": "0 0 1 1 *"}
# An open-ended expanding window needs a number for Dagster's mapping; the stage itself enforces the true window.
_LONGEST = {"day": 3660, "week": 1040, "month": 480, "year": 100}


def time_partitions(spec: PipelineSpec) -> dg.TimeWindowPartitionsDefinition:
    """Return the time dimension; keys read 2013, 2013-01 or 2013-01-01."""
    every = spec.partitions.every
    return dg.TimeWindowPartitionsDefinition(
        cron_schedule=_CRON[every],
        fmt=KEY_FORMAT[every],
        start=spec.partitions.start,
        end=spec.partitions.end,
        timezone=spec.source.event_time.timezone,
    )


def data_partitions(spec: PipelineSpec) -> dg.PartitionsDefinition:
    """Return time × group, or time alone when the pipeline has no group."""
    time = time_partitions(spec)
    if spec.partitions.group is None:
        return time
    groups = dg.StaticPartitionsDefinition(list(spec.partitions.group.values))
    return dg.MultiPartitionsDefinition({TIME: time, GROUP: groups})


def same_period(spec: PipelineSpec) -> dg.PartitionMapping | None:
    """Return the mapping between time × group and time: all groups of the same period."""
    if spec.partitions.group is None:
        return None
    return dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name=TIME)


def past_window(spec: PipelineSpec) -> dg.PartitionMapping:
    """Return the mapping from a period to the periods of its training window, itself excluded."""
    window = spec.training.window
    length = _window_length(spec) if window == "expanding" else window
    return dg.TimeWindowPartitionMapping(
        start_offset=-length, end_offset=-1, allow_nonexistent_upstream_partitions=True
    )


def with_history(spec: PipelineSpec) -> dg.PartitionMapping | None:
    """Return the mapping from a partition to itself and its group's earlier periods that its features read."""
    if spec.features.history == 0:
        return None
    back = dg.TimeWindowPartitionMapping(
        start_offset=-spec.features.history, end_offset=0, allow_nonexistent_upstream_partitions=True
    )
    if spec.partitions.group is None:
        return back
    return dg.MultiPartitionMapping(
        {
            TIME: dg.DimensionPartitionMapping(dimension_name=TIME, partition_mapping=back),
            GROUP: dg.DimensionPartitionMapping(dimension_name=GROUP, partition_mapping=dg.IdentityPartitionMapping()),
        }
    )


def _window_length(spec: PipelineSpec) -> int:
    count = Periods.of(spec.partitions, spec.source.event_time.timezone).count()
    return max(1, _LONGEST[spec.partitions.every] if count is None else count)
