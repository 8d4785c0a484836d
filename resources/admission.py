"""What happens to a run before it is queued: its tags for sharing, and whether it is refused."""

import logging
from collections.abc import Mapping
from datetime import datetime

import dagster as dg
from dagster._core.storage.dagster_run import ACTIVE_RUN_STATUSES  # noqa: TID251

from ml_assets.compute import CORES_TAG, GPUS_TAG, PRICE_TAG
from ml_assets.errors import LedgerError, QueueRefusedError
from ml_assets.interfaces import ComputeRules, PolicySource
from ml_assets.interfaces.spend import SpendStore
from ml_assets.sharing.budgets import budgets, waiting_text
from ml_assets.sharing.shares import Shares
from resources.live_rules import LiveRules
from resources.run_costs import UnreadableRuns, month_sums, running_costs
from resources.run_demand import TEAM_TAG, Plans, price, sharing_tags, whole

_log = logging.getLogger("ml_assets.queue")


class Admission:
    """Tags and refuses runs by the rules of sharing.

    Args:
        instance: Dagster's.
        policy: Where the rules are.
        spend: What steps cost.
    """

    def __init__(self, instance: dg.DagsterInstance, policy: PolicySource, spend: SpendStore) -> None:
        self._instance, self._spend = instance, spend
        self._rules, self._plans, self._unreadable = LiveRules(policy), Plans(instance), UnreadableRuns()

    def tags(self, run: dg.DagsterRun) -> dict[str, str]:
        """Return the tags that say whose a run is, what it takes at once, and its highest price."""
        return sharing_tags(run, self._plans.steps(run), self._rules.now())

    def refusal(self, tags: Mapping[str, str], *, now: datetime) -> QueueRefusedError | None:
        """Return why a run with these tags is not queued, or None.

        Without teams in the rules no run is refused. While the rules or the sums cannot be read, none is either: a run
        that is queued can still be held back.
        """
        rules, team = self._rules.now(), tags[TEAM_TAG]
        if not rules.teams:
            return None
        demand = {"gpus": whole(tags[GPUS_TAG]), "cores": whole(tags[CORES_TAG])}
        never = Shares(rules, (), None).never(team, demand)
        if never is not None:
            return QueueRefusedError(
                f"The run of {team} could never start: {never}. Ask for less in the pipeline's `compute`, or have "
                "policies/compute.yaml changed."
            )
        costs = price(tags.get(PRICE_TAG, "0")) > 0
        if not costs or rules.team(team).over_budget != "refuse" or rules.team(team).budget_per_month is None:
            return None
        return self._over_budget(team, rules, now)

    def _over_budget(self, team: str, rules: ComputeRules, now: datetime) -> QueueRefusedError | None:
        in_progress = self._instance.get_run_records(dg.RunsFilter(statuses=ACTIVE_RUN_STATUSES, tags={TEAM_TAG: team}))
        try:
            running = running_costs(self._instance, in_progress, self._plans, self._spend, self._unreadable, now=now)
            spent, before = month_sums(self._spend, currency=rules.currency, now=now)
        except LedgerError as error:
            _log.error("What %s spent cannot be read; its run is queued. %s", team, error)
            return None
        month = budgets(rules, spent, running, now=now, before=before)[team]
        if not month.is_over():
            return None
        return QueueRefusedError(f"The run is refused: {waiting_text(month, 'refused')}.")
