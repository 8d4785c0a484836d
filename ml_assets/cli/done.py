"""What of a plan is done already: asked of Dagster's instance, so that a second start goes on where one stopped."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ml_assets.cli.engine import PlannedRun
from ml_assets.cli.plan import Backfill
from ml_assets.errors import GateClosedError
from ml_assets.periods import join_partition
from ml_assets.stages.champions import latest_by_partition
from ml_assets.stages.promotion import approvals
from ml_assets.stages.step import Services, Step, gates_of

if TYPE_CHECKING:
    import dagster as dg


@dataclass(frozen=True, kw_only=True)
class Records:
    """Where it is written what has been done.

    Attributes:
        instance: Dagster's instance: which partitions are materialized.
        services: The ledger and the policy: which of them are judged.
    """

    instance: "dg.DagsterInstance"
    services: Services


def remaining(run: PlannedRun, partitions: list[str], plan: Backfill, records: Records) -> PlannedRun | None:
    """Return the run with only the stages that are still to be done on its partitions; None when all are done.

    A stage is done when it is materialized and its gates have a verdict under the policy as it is now. Stages stand
    in the order in which they depend on each other; one after a stage that is not done is done again too, since
    what it read changes. Variants do not depend on each other: finished ones stay done.
    """
    done = {asset: _done(asset, partitions, plan, records) for asset in run.assets}
    missing = [asset for asset in run.assets if not done[asset]]
    if not missing:
        return None
    later = run.assets[run.assets.index(missing[0]) :]
    if _is_variant(missing[0]):
        later = tuple(asset for asset in later if not (_is_variant(asset) and done[asset]))
    return replace(run, assets=later)


def refused(plan: Backfill, period: str, services: Services) -> bool:
    """Whether a gate refused the period's candidate, on the evaluation and by the policy that there are now.

    A gate that somebody has waived since refuses nothing.
    """
    step = Step(pipeline=plan.pipeline, services=services, partition=period, run_id="")
    decision = latest_by_partition(services.ledger.decisions(step.path)).get(period)
    stored = services.data_store.describe(step.asset("evaluation"), period)
    if decision is None or decision.outcome != "refused" or stored is None:
        return False
    if stored.data_version != decision.data_version:
        return False
    if gates_of(step, "evaluation")[1] != decision.policy_version:
        return False
    try:
        step.describe(("evaluation",), period)
    except GateClosedError:
        return True
    return False


def must_decide(plan: Backfill, period: str, services: Services) -> bool:
    """Whether `promotion` has something to do, though it is materialized.

    The candidate waits for nothing more (its approvals are complete, or its time is over), it waits under a policy
    that is no more, or the process that recorded the last decision died before it had carried it out.
    """
    step = Step(pipeline=plan.pipeline, services=services, partition=period, run_id="")
    decision = latest_by_partition(services.ledger.decisions(step.path)).get(period)
    if decision is None or services.data_store.describe(step.asset("promotion"), period) is None:
        return False
    if decision.outcome == "awaiting_approval":
        given = approvals(step, services.ledger, decision)
        return given.complete or given.closed or decision.policy_digest != step.policy.digest
    if decision.outcome == "refused" and decision.decided_by == "expiry":
        return True
    carried_out = services.data_store.read_document(step.asset("promotion"), period)
    return carried_out["outcome"] != decision.outcome


def _done(asset: str, partitions: list[str], plan: Backfill, records: Records) -> bool:
    import dagster as dg

    materialized = records.instance.get_materialized_partitions(dg.AssetKey.from_user_string(asset))
    stage = asset.split("/", 2)[2]
    if stage == "promotion" and any(must_decide(plan, p, records.services) for p in partitions):
        return False
    return set(partitions) <= materialized and all(_judged(stage, p, plan, records.services) for p in partitions)


def _judged(stage: str, partition: str, plan: Backfill, services: Services) -> bool:
    """Whether every gate of a stage has said something of its current version, by the current policy."""
    step = Step(pipeline=plan.pipeline, services=services, partition=partition, run_id="")
    checks, policy_version = gates_of(step, stage)
    stored = services.data_store.describe(step.asset(*stage.split("/")), partition)
    if not checks or stored is None:
        return stored is not None
    verdicts = services.ledger.verdicts(
        stored.asset, partition, data_version=stored.data_version, policy_version=policy_version
    )
    return set(checks) <= {verdict.check for verdict in verdicts}


def partitions_of(backfill: Backfill) -> list[str]:
    """Return the time × group partitions of a backfill's range."""
    group = backfill.spec.partitions.group
    values = [None] if group is None else list(group.values)
    return [join_partition(value, period) for period in backfill.periods for value in values]


def _is_variant(asset: str) -> bool:
    return asset.split("/")[-2] == "models"
