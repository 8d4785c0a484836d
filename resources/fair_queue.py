"""One look at Dagster's run queue by the rules of sharing; the daemon starts what it chooses, the command shows it."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.instance.config import ConcurrencyConfig  # noqa: TID251 - what the queue's daemon is given
from dagster._core.run_coordinator import QueuedRunCoordinator  # noqa: TID251
from dagster._core.storage.dagster_run import (  # noqa: TID251 - with the times of a run
    ACTIVE_RUN_STATUSES,
    RunRecord,
)

from ml_assets.errors import MlAssetsError
from ml_assets.interfaces import ComputeRules, PolicySource
from ml_assets.interfaces.spend import Spend, SpendStore
from ml_assets.sharing.budgets import Budget, RunningCost, budgets
from ml_assets.sharing.choose import choose
from ml_assets.sharing.report import QueueReport
from ml_assets.sharing.runs import Choice, QueuedRun
from ml_assets.sharing.usage import HORIZON, UsageHistory
from resources.engine_limits import EngineLimits
from resources.live_rules import LiveRules
from resources.run_costs import SpendRecorder, UnreadableRuns, ended_runs, is_priced, month_sums, running_costs
from resources.run_demand import Plans, pipeline_of, queued_run, running_run

SWEEP_SECONDS = 15.0
"""How often ended runs and sums are read; between two looks at the queue, half a second passes."""
_REREAD_SECONDS = 60.0
"""After this time queued runs are read anew: somebody may have changed a tag."""
_PAGE = 200
_log = logging.getLogger("ml_assets.queue")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a look found.

    Attributes:
        report: For people.
        runs: Queued runs by id.
    """

    report: QueueReport
    runs: Mapping[str, dg.DagsterRun]

    @property
    def choice(self) -> Choice:
        """Return what starts, and why the rest waits."""
        return self.report.choice

    @property
    def start(self) -> list[dg.DagsterRun]:
        """Return the runs that start, in order."""
        return [self.runs[run.run_id] for run in self.choice.start]


class FairQueue:
    """The queue of an instance, with what is remembered of it between two looks.

    Args:
        instance: Dagster's.
        policy: Where the rules are.
        spend: What steps cost.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        policy: PolicySource,
        spend: SpendStore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._instance, self._spend, self._clock = instance, spend, clock
        self._rules = LiveRules(policy, clock)
        self._plans = Plans(instance)
        self._unreadable = UnreadableRuns()
        self._recorder = SpendRecorder(instance, self._plans, spend, self._unreadable)
        self._queued: dict[str, tuple[RunRecord, QueuedRun]] = {}
        self._unread: set[str] = set()
        self._reread_at = self._swept_at = -float("inf")
        self._usage, self._usage_until = UsageHistory(), datetime.fromtimestamp(0, UTC)
        self._folded: set[str] = set()
        self._spent: Mapping[str, Spend] = {}
        self._spent_before: Mapping[str, Spend] = {}
        self._running: Mapping[str, RunningCost] = {}

    def rules(self) -> ComputeRules:
        """Return the rules as they are now."""
        return self._rules.now()

    def in_progress(self) -> Sequence[RunRecord]:
        """Return the runs that hold resources."""
        return self._instance.get_run_records(dg.RunsFilter(statuses=ACTIVE_RUN_STATUSES))

    def is_empty(self) -> bool:
        """Whether no run is queued; one query for ids."""
        waiting = set(self._instance.get_run_ids(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])))
        self._queued = {run_id: one for run_id, one in self._queued.items() if run_id in waiting}
        self._unread = waiting - set(self._queued)
        return not waiting

    def sweep(self, now: datetime, *, record: bool = True) -> None:
        """Now and then, record what steps cost and read what ended; what goes wrong is logged, for the queue goes on.

        Args:
            now: The instant.
            record: Whether costs are written; else they are only read.
        """
        if self._clock() - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = self._clock()
        rules = self.rules()
        if not rules.teams and not any(profile.price_per_hour for profile in rules.profiles.values()):
            return
        try:
            priced = [one for one in self.in_progress() if is_priced(one.dagster_run)]
            if record:
                self._recorder.record_ended(currency=rules.currency, now=now)
                self._recorder.record_in_progress(priced, currency=rules.currency, now=now)
            if any(share.budget_per_month is not None for share in rules.teams.values()):
                running = running_costs(self._instance, priced, self._plans, self._spend, self._unreadable, now=now)
                self._spent, self._spent_before = month_sums(self._spend, currency=rules.currency, now=now)
                self._running = running
        except MlAssetsError as error:
            _log.error("What steps cost could not be recorded or read; it is tried again. %s", error)

    def budgets(self, in_progress: Sequence[RunRecord], now: datetime) -> dict[str, Budget]:
        """Return the month of each team with a budget, as of the last sweep and with what has started since.

        A run that has ended since then counts as if it went on: what it cost is not in the sums yet.
        """
        started = (running_run(record) for record in in_progress if is_priced(record.dagster_run))
        running = {one.run_id: RunningCost(team=one.team) for one in started} | dict(self._running)
        return budgets(self.rules(), self._spent, running, now=now, before=self._spent_before)

    def look(
        self,
        config: ConcurrencyConfig,
        in_progress: Sequence[RunRecord],
        now: datetime,
        paused: Collection[str] = (),
    ) -> Look:
        """Choose which queued runs start now; `is_empty` was asked just before.

        Args:
            config: Dagster's own limits.
            in_progress: What holds resources.
            now: The instant.
            paused: Names of code locations from which no run is launched now.
        """
        assert config.run_queue_config is not None  # noqa: S101 - the queue's daemon runs only with one
        self._read_queued()
        rules, most = self.rules(), config.run_queue_config.max_concurrent_runs
        runs = {run_id: record.dagster_run for run_id, (record, _) in self._queued.items()}
        queued = sorted((run for _, run in self._queued.values()), key=lambda run: (run.submitted, run.run_id))
        running = [running_run(record) for record in in_progress]
        limits = EngineLimits(self._instance, config, in_progress, list(runs.values()), paused)
        slots, budgets_ = None if most < 0 else most, self.budgets(in_progress, now)
        choice = Choice()
        if rules.teams:
            choice = choose(
                queued,
                running,
                rules,
                now=now,
                slots=slots,
                means=self._means(now).means(now, running),
                budgets=budgets_,
                admits=lambda run: limits.admits(runs[run.run_id]),
            )
        every = [*runs.values(), *(record.dagster_run for record in in_progress)]
        report = QueueReport(
            now=now,
            rules=rules,
            slots=slots,
            queued=tuple(queued),
            running=tuple(running),
            names={run.run_id: _name(run) for run in every},
            choice=choice,
            budgets=budgets_,
        )
        return Look(report=report, runs=runs)

    def _read_queued(self) -> None:
        """Read the queued runs that are not known, and now and then all of them."""
        if self._clock() - self._reread_at > _REREAD_SECONDS:
            self._reread_at = self._clock()
            self._unread |= set(self._queued)
        unread, self._unread = sorted(self._unread), set()
        for begin in range(0, len(unread), _PAGE):
            page = dg.RunsFilter(run_ids=unread[begin : begin + _PAGE], statuses=[dg.DagsterRunStatus.QUEUED])
            for record in self._instance.get_run_records(page):
                self._queued[record.dagster_run.run_id] = record, queued_run(record)

    def _means(self, now: datetime) -> UsageHistory:
        """Return what ended runs used, with those that ended since the last look folded in."""
        since = max(self._usage_until - timedelta(seconds=60), now - HORIZON)
        if now - self._usage_until < timedelta(seconds=SWEEP_SECONDS):
            return self._usage
        seen = list(ended_runs(self._instance, since, self._unreadable))
        for record in seen:
            run = running_run(record)
            if run.run_id in self._folded or run.started is None or record.end_time is None:
                continue
            ended = datetime.fromtimestamp(record.end_time, UTC)
            if ended >= since:  # else only a tag of it was changed: it is folded in already
                self._usage.add(run.team, run.demand, run.started, ended)
        self._folded = {record.dagster_run.run_id for record in seen}
        self._usage_until = now
        return self._usage


def queue_report(instance: dg.DagsterInstance, policy: PolicySource, spend: SpendStore) -> QueueReport:
    """Return what waits and why, as the daemon would decide now; nothing is changed.

    Which code locations the daemon leaves alone for a while only the daemon knows.

    Raises:
        MlAssetsError: If the rules cannot be read, or runs are not queued here.
    """
    policy.compute()  # rules that cannot be read are no rules to the queue; here somebody is to be told
    queue, now, config = FairQueue(instance, policy, spend), datetime.now(UTC), instance.get_concurrency_config()
    if not isinstance(instance.run_coordinator, QueuedRunCoordinator):
        raise MlAssetsError(
            f"Runs are not queued here: this instance's run coordinator is {type(instance.run_coordinator).__name__}. "
            "Write `run_coordinator: {module: resources.run_queue, class: PromptRunQueue}` into dagster.yaml."
        )
    queue.sweep(now, record=False)
    queue.is_empty()
    return queue.look(config, queue.in_progress(), now).report


def _name(run: dg.DagsterRun) -> str:
    keys = run.asset_selection or ()
    pipeline = pipeline_of(run)
    if pipeline:
        stages = sorted({"/".join(key.path[2:]) for key in keys if len(key.path) > 2})
        return f"{pipeline}: {', '.join(stages[:2])}{', …' if len(stages) > 2 else ''}"
    return run.job_name
