"""Offers materializations of assets that a pipeline waits for, also of other code locations, as events."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

import dagster as dg

from ml_assets.assets.team_pipeline import TeamPipeline
from ml_assets.delivery.boxes import is_partition
from ml_assets.inbox_rules import CLOCK_SKEW
from ml_assets.interfaces import Event

PAGE = 1000
"""Materializations of one asset that a tick takes up at most."""
COMMITTED = timedelta(seconds=2)
"""By when a row is seen by everybody, with all that have smaller ids."""


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """What is new of one asset.

    Attributes:
        events: Oldest first.
        storage_ids: Of each event, where the event log has it.
        seen: Storage id of the last materialization that was looked at.
        strange: Partitions that the pipeline does not have, and that are therefore no events.
    """

    events: tuple[Event, ...] = ()
    storage_ids: tuple[int, ...] = ()
    seen: int
    strange: tuple[str, ...] = ()

    def seen_before(self, refused: Event | None) -> int:
        """Return up to where everything was taken up, when the first event that was not is `refused`."""
        return self.seen if refused is None else self.storage_ids[self.events.index(refused)] - 1


def upstream_events(
    instance: dg.DagsterInstance, pipeline: TeamPipeline, asset: str, after: int | None, *, now: datetime
) -> Upstream:
    """Return an asset's materializations after a storage id, up to the first that was written just now.

    On Postgres an id is given before its row is committed: of two writers, the one with the smaller id may be seen
    later. Whoever went on behind the larger one would never see it.

    Args:
        instance: Dagster's instance.
        pipeline: Who waits for it.
        asset: Its key with slashes.
        after: Last storage id that was looked at; None at the first look, which takes up nothing of the past.
        now: The instant, UTC.
    """
    key = dg.AssetKey.from_user_string(asset)
    if after is None:
        newest = instance.fetch_materializations(key, limit=1).records
        return Upstream(seen=newest[0].storage_id if newest else 0)
    wanted = dg.AssetRecordsFilter(asset_key=key, after_storage_id=after)
    found = instance.fetch_materializations(wanted, limit=PAGE, ascending=True).records
    records = list(takewhile(lambda record: not _is_fresh(record.timestamp, now), found))
    mine = [r for r in records if r.partition_key and is_partition(pipeline.spec, r.partition_key)]
    return Upstream(
        events=tuple(
            Event(
                source=f"upstream:{asset}",
                # A run over a range says twice that it made a partition: once for all, once for each.
                key=f"{record.run_id or record.storage_id}:{record.partition_key}",
                pipeline=pipeline.path,
                partition=record.partition_key or "",
                payload={"asset": asset, "run_id": record.run_id, "storage_id": record.storage_id},
            )
            for record in mine
        ),
        storage_ids=tuple(record.storage_id for record in mine),
        seen=records[-1].storage_id if records else after,
        strange=tuple(sorted({str(r.partition_key) for r in records} - {str(r.partition_key) for r in mine})),
    )


def _is_fresh(written_at: float, now: datetime) -> bool:
    """Whether a row was written just now; one from far in the future was stamped by a clock that is ahead."""
    return -CLOCK_SKEW.total_seconds() <= now.timestamp() - written_at < COMMITTED.total_seconds()
