"""What of a plan is done already: asked of Dagster's instance, so that a second start goes on where one stopped."""

from dataclasses import replace
from typing import TYPE_CHECKING

from ml_assets.cli.engine import PlannedRun
from ml_assets.cli.plan import Backfill
from ml_assets.periods import join_partition
from ml_assets.stages.champions import latest_by_partition

if TYPE_CHECKING:
    import dagster as dg

    from ml_assets.stages.step import Services


def remaining(run: PlannedRun, partitions: list[str], instance: "dg.DagsterInstance") -> PlannedRun | None:
    """Return the run with only the stages that are still to be done on its partitions; None when all are done.

    Stages stand in the order in which they depend on each other; one after a stage that is not done is done
    again too, since what it read changes. Variants do not depend on each other: finished ones stay done.
    """
    import dagster as dg

    wanted = set(partitions)
    done = {
        asset: wanted <= instance.get_materialized_partitions(dg.AssetKey.from_user_string(asset))
        for asset in run.assets
    }
    missing = [asset for asset in run.assets if not done[asset]]
    if not missing:
        return None
    later = run.assets[run.assets.index(missing[0]) :]
    if _is_variant(missing[0]):
        later = tuple(asset for asset in later if not (_is_variant(asset) and done[asset]))
    return replace(run, assets=later)


def refused(backfill: Backfill, period: str, services: "Services") -> bool:
    """Whether the period's candidate was refused by a gate, on the evaluation that is stored now."""
    pipeline = (backfill.spec.team, backfill.spec.name)
    decision = latest_by_partition(services.ledger.decisions(pipeline)).get(period)
    stored = services.data_store.describe((*pipeline, "evaluation"), period)
    return (
        decision is not None
        and decision.outcome == "refused"
        and stored is not None
        and stored.data_version == decision.data_version
    )


def partitions_of(backfill: Backfill) -> list[str]:
    """Return the time × group partitions of a backfill's range."""
    group = backfill.spec.partitions.group
    values = [None] if group is None else list(group.values)
    return [join_partition(value, period) for period in backfill.periods for value in values]


def _is_variant(asset: str) -> bool:
    return asset.split("/")[-2] == "models"
