"""What runs cost: every attempt at a step, its seconds from Dagster's event log × the price of its op tags."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.storage.dagster_run import (  # noqa: TID251 - with the times of a run
    FINISHED_STATUSES,
    RunRecord,
)

from ml_assets.compute import PRICE_TAG
from ml_assets.interfaces.spend import Spend, SpendStore, StepCost
from ml_assets.sharing.budgets import RunningCost, month_bounds, month_of
from resources.run_demand import TEAM_TAG, Plans, StepDemand, pipeline_of, price, team_of

CURSOR_KEY = "ml_assets/spend"
"""In Dagster's storage of cursors: up to when ended runs have been recorded, in seconds since the epoch."""

_OVERLAP = timedelta(seconds=60)
"""A run's change is told with the time of its process, and may be committed a little later than another's."""
_FIRST_LOOK = timedelta(days=1)
_PAGE = 200


@dataclass(frozen=True, kw_only=True)
class RunCosts:
    """What a run cost until now.

    Attributes:
        ended: Attempts that are over.
        open_amount: What the attempts that go on cost until now.
    """

    ended: tuple[StepCost, ...] = ()
    open_amount: float = 0.0

    @property
    def so_far(self) -> float:
        """Return the sum."""
        return sum(cost.amount for cost in self.ended) + self.open_amount


def costs_of(
    instance: dg.DagsterInstance, record: RunRecord, plans: Plans, *, currency: str, now: datetime
) -> RunCosts:
    """Return what a run cost until now; an attempt that a run left open when it ended is over, too."""
    run = record.dagster_run
    steps = {key: step for key, step in plans.steps(run).items() if step.price_per_hour > 0}
    if not steps:
        return RunCosts()
    over = _end_of(record) if run.is_finished else None
    ended, open_amount = [], 0.0
    for stats in instance.get_run_step_stats(run.run_id, step_keys=list(steps)):
        step = steps[stats.step_key]
        spans = [(mark.start_time, mark.end_time) for mark in stats.attempts_list]
        if stats.partial_attempt_start is not None:
            spans.append((stats.partial_attempt_start, over))
        for attempt, (start, end) in enumerate(spans, start=1):
            if start is None:
                continue
            if end is None:
                open_amount += max(0.0, now.timestamp() - start) / 3600 * step.price_per_hour
            else:
                ended.append(_cost(run, stats.step_key, attempt, step, start, max(start, end), currency))
    return RunCosts(ended=tuple(ended), open_amount=open_amount)


def _end_of(record: RunRecord) -> float:
    return record.end_time if record.end_time is not None else record.update_timestamp.timestamp()


def _cost(
    run: dg.DagsterRun, key: str, attempt: int, step: StepDemand, start: float, end: float, currency: str
) -> StepCost:
    return StepCost(
        team=run.tags.get(TEAM_TAG) or team_of(run),
        pipeline=pipeline_of(run),
        run_id=run.run_id,
        step_key=key,
        attempt=attempt,
        profile=step.profile,
        cores=step.cores,
        gpus=step.gpus,
        seconds=end - start,
        price_per_hour=step.price_per_hour,
        currency=currency,
        ended_at=datetime.fromtimestamp(end, UTC),
    )


def is_priced(run: dg.DagsterRun) -> bool:
    """Whether a step of a run costs something, by the tag that the run queue gave it."""
    return price(run.tags.get(PRICE_TAG, "0")) > 0


def running_costs(
    instance: dg.DagsterInstance, in_progress: Iterable[RunRecord], plans: Plans, spend: SpendStore, *, now: datetime
) -> dict[str, RunningCost]:
    """Return what runs in progress cost until now, by run id; those that cost nothing are left out."""
    priced = [record for record in in_progress if is_priced(record.dagster_run)]
    kept = spend.of_runs([record.dagster_run.run_id for record in priced])
    return {
        record.dagster_run.run_id: RunningCost(
            team=record.dagster_run.tags.get(TEAM_TAG) or team_of(record.dagster_run),
            kept=kept.get(record.dagster_run.run_id, 0.0),
            so_far=costs_of(instance, record, plans, currency="", now=now).so_far,
        )
        for record in priced
    }


def month_sums(spend: SpendStore, *, currency: str, now: datetime) -> tuple[dict[str, Spend], dict[str, Spend]]:
    """Return what each team spent in this month, and in the month before."""
    since, until = month_bounds(month_of(now))
    before, _ = month_bounds(month_of(since - timedelta(days=1)))
    return spend.by_team(since, until, currency=currency), spend.by_team(before, since, currency=currency)


def ended_runs(instance: dg.DagsterInstance, since: datetime) -> Iterator[RunRecord]:
    """Yield the runs that are over and changed after an instant, the newest first."""
    filters = dg.RunsFilter(statuses=FINISHED_STATUSES, updated_after=since.astimezone(UTC))
    cursor: str | None = None
    while True:
        page = instance.get_run_records(filters, limit=_PAGE, cursor=cursor)
        yield from page
        if len(page) < _PAGE:
            return
        cursor = page[-1].dagster_run.run_id


class SpendRecorder:
    """Records what steps cost, soon after they end; a step is recorded once, whoever recorded it.

    Args:
        instance: Whose runs are looked at.
        plans: Their steps' prices.
        spend: Where costs are kept.
    """

    def __init__(self, instance: dg.DagsterInstance, plans: Plans, spend: SpendStore) -> None:
        self._instance, self._plans, self._spend = instance, plans, spend
        self._until: datetime | None = None
        self._done: set[str] = set()

    def record_ended(self, *, currency: str, now: datetime) -> int:
        """Record the runs that ended since the last time, here or in a process before; return how many rows are new.

        Raises:
            LedgerError: If the database refuses; the next call does it again.
        """
        until = self._until or self._stored_cursor() or now - _FIRST_LOOK
        seen = list(ended_runs(self._instance, until - _OVERLAP))
        records = [record for record in seen if record.dagster_run.run_id not in self._done]
        new = self._record([record for record in records if is_priced(record.dagster_run)], currency, now)
        # of a machine whose clock is ahead, the time would be passed over that comes until then
        newest = max((min(record.update_timestamp, now) for record in records), default=until)
        if newest > until or self._until is None:
            self._instance.daemon_cursor_storage.set_cursor_values({CURSOR_KEY: str(newest.timestamp())})
        self._until, self._done = max(until, newest), {record.dagster_run.run_id for record in seen}
        return new

    def record_in_progress(self, in_progress: Sequence[RunRecord], *, currency: str, now: datetime) -> int:
        """Record the steps that ended in runs that go on; return how many rows are new."""
        return self._record([r for r in in_progress if is_priced(r.dagster_run)], currency, now)

    def _record(self, records: Sequence[RunRecord], currency: str, now: datetime) -> int:
        costs = [
            cost
            for record in records
            for cost in costs_of(self._instance, record, self._plans, currency=currency, now=now).ended
        ]
        return self._spend.record(costs, now=now)

    def _stored_cursor(self) -> datetime | None:
        text = self._instance.daemon_cursor_storage.get_cursor_values({CURSOR_KEY}).get(CURSOR_KEY)
        return None if text is None else datetime.fromtimestamp(float(text), UTC)
