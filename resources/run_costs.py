"""What runs cost: every attempt at a step, its seconds from Dagster's event log × the price of its op tags."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.storage.dagster_run import (  # noqa: TID251 - with the times of a run
    FINISHED_STATUSES,
    RunRecord,
)

from ml_assets.compute import PRICE_TAG
from ml_assets.errors import MlAssetsError
from ml_assets.interfaces.spend import Spend, SpendStore, StepCost
from ml_assets.sharing.budgets import RunningCost, month_bounds, month_of
from resources.run_demand import TEAM_TAG, Plans, StepDemand, pipeline_of, price, team_of

CURSOR_KEY = "ml_assets/spend"
"""In Dagster's storage of cursors: up to when ended runs have been recorded, in seconds since the epoch."""

_OVERLAP = timedelta(seconds=60)
"""A run's change is told with the time of its process, and may be committed a little later than another's."""
_FIRST_LOOK = timedelta(days=1)
_PAGE = 200
_log = logging.getLogger("ml_assets.queue")


class UnreadableRuns:
    """Runs that are passed over, since what is stored of them cannot be read; each is told once, with its id."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    @contextmanager
    def passed_over(self, run_id: str) -> Iterator[None]:
        """Leave the block when something of a run cannot be read; a storage that does not answer is raised."""
        try:
            yield
        except Exception as error:  # what a damaged row or a foreign event raises nobody can name
            if _is_outage(error):
                raise
            if run_id not in self._told:
                self._told.add(run_id)
                _log.error(
                    "Run %s cannot be read (%s: %s). What it cost is not counted; the other runs are. See its log in "
                    "the UI: an event of it, or its row, is damaged or of a release that is not installed here.",
                    run_id,
                    type(error).__name__,
                    error,
                )


def _is_outage(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, is of the database or the disk and not of what stands there."""
    from sqlalchemy.exc import SQLAlchemyError

    while error is not None:
        if isinstance(error, SQLAlchemyError | OSError | MlAssetsError):
            return True
        error = error.__cause__ or error.__context__  # some code says `from None`, or nothing
    return False


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
    instance: dg.DagsterInstance,
    in_progress: Iterable[RunRecord],
    plans: Plans,
    spend: SpendStore,
    unreadable: UnreadableRuns,
    *,
    now: datetime,
) -> dict[str, RunningCost]:
    """Return what runs in progress cost until now, by run id.

    Those that cost nothing are left out. Of one that cannot be read, what was kept of it counts.
    """
    priced = [record for record in in_progress if is_priced(record.dagster_run)]
    kept = spend.of_runs([record.dagster_run.run_id for record in priced])
    found: dict[str, RunningCost] = {}
    for record in priced:
        run = record.dagster_run
        before = so_far = kept.get(run.run_id, 0.0)
        with unreadable.passed_over(run.run_id):
            so_far = costs_of(instance, record, plans, currency="", now=now).so_far
        found[run.run_id] = RunningCost(team=run.tags.get(TEAM_TAG) or team_of(run), kept=before, so_far=so_far)
    return found


def month_sums(spend: SpendStore, *, currency: str, now: datetime) -> tuple[dict[str, Spend], dict[str, Spend]]:
    """Return what each team spent in this month, and in the month before."""
    since, until = month_bounds(month_of(now))
    before, _ = month_bounds(month_of(since - timedelta(days=1)))
    return spend.by_team(since, until, currency=currency), spend.by_team(before, since, currency=currency)


def ended_runs(instance: dg.DagsterInstance, since: datetime, unreadable: UnreadableRuns) -> Iterator[RunRecord]:
    """Yield the runs that are over and changed after an instant, the newest first; unreadable ones are left out."""
    filters = dg.RunsFilter(statuses=FINISHED_STATUSES, updated_after=since.astimezone(UTC))
    cursor: str | None = None
    while True:
        try:
            page = instance.get_run_records(filters, limit=_PAGE, cursor=cursor)
        except Exception as error:  # as of one run
            if _is_outage(error):
                raise
            # Dagster reads a page as a whole, so that one damaged row hides the others.
            ids = instance.get_run_ids(filters, limit=_PAGE, cursor=cursor)
            yield from _one_by_one(instance, ids, unreadable)
        else:
            ids = [record.dagster_run.run_id for record in page]
            yield from page
        if len(ids) < _PAGE:
            return
        cursor = ids[-1]


def _one_by_one(
    instance: dg.DagsterInstance, run_ids: Iterable[str], unreadable: UnreadableRuns
) -> Iterator[RunRecord]:
    for run_id in run_ids:
        records: Sequence[RunRecord] = ()
        with unreadable.passed_over(run_id):
            records = instance.get_run_records(dg.RunsFilter(run_ids=[run_id]))
        yield from records


class SpendRecorder:
    """Records what steps cost, soon after they end; a step is recorded once, whoever recorded it.

    Args:
        instance: Whose runs are looked at.
        plans: Their steps' prices.
        spend: Where costs are kept.
        unreadable: Tells the runs that cannot be read.
    """

    def __init__(
        self, instance: dg.DagsterInstance, plans: Plans, spend: SpendStore, unreadable: UnreadableRuns
    ) -> None:
        self._instance, self._plans, self._spend, self._unreadable = instance, plans, spend, unreadable
        self._until: datetime | None = None
        self._done: set[str] = set()

    def record_ended(self, *, currency: str, now: datetime) -> int:
        """Record the runs that ended since the last time, here or in a process before; return how many rows are new.

        Raises:
            LedgerError: If the database refuses; the next call does it again.
        """
        until = self._until or self._stored_cursor() or now - _FIRST_LOOK
        seen = list(ended_runs(self._instance, until - _OVERLAP, self._unreadable))
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
        costs: list[StepCost] = []
        for record in records:
            with self._unreadable.passed_over(record.dagster_run.run_id):
                costs += costs_of(self._instance, record, self._plans, currency=currency, now=now).ended
        return self._spend.record(costs, now=now)

    def _stored_cursor(self) -> datetime | None:
        text = self._instance.daemon_cursor_storage.get_cursor_values({CURSOR_KEY}).get(CURSOR_KEY)
        return None if text is None else datetime.fromtimestamp(float(text), UTC)
