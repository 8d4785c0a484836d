"""Chooses which queued runs start now: weighted dominant-resource fairness with reserves, limits and a bounded wait."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from ml_assets.interfaces.compute import ComputeRules
from ml_assets.sharing.budgets import Budget, waiting_text
from ml_assets.sharing.lines import Lines
from ml_assets.sharing.runs import RUNS, Choice, QueuedRun, Reason, RunningRun
from ml_assets.sharing.shares import Means, Shares, duration, said

_Size = tuple[tuple[str, int], ...]


def choose(
    queued: Iterable[QueuedRun],
    running: Iterable[RunningRun],
    rules: ComputeRules,
    *,
    now: datetime,
    slots: int | None = None,
    means: Means | None = None,
    budgets: Mapping[str, Budget] | None = None,
    admits: Callable[[QueuedRun], bool] | None = None,
) -> Choice:
    """Return what becomes of every queued run.

    Again and again the team with the smallest weighted dominant share is offered its next run, until no run fits.
    Runs that lie within their team's reserve are offered before all others; while one of them waits, nothing else
    starts that would take what it waits for. A run that has waited for the longest wait holds back, once it is its
    team's turn, whatever could delay it; no more than one run does so at a time: that of the team with the smallest
    share, whatever its size. Until its turn, younger runs of its own team take nothing of what it lacks. Of what a
    reserve does not name, such as cores, its runs take nothing that the run waits for whose turn it is, when they have
    no smaller share. A run that is held up lets others pass only when all that it needs stays free without them. No
    running run is ever ended.

    Args:
        queued: What waits, in any order.
        running: What holds resources.
        rules: Capacity, teams and ageing.
        now: The instant, with a time zone.
        slots: Most runs in progress at once; None for no such limit. When there is one, each run's demand must
            name one of `RUNS`.
        means: Team → resource → mean use of late, as `UsageHistory.means` returns them.
        budgets: Team → its month; a team that is absent has no budget.
        admits: Asked of a run that would start, last; when it says no, the run waits and holds back nobody.
    """
    shares = Shares(rules, running, slots, means)
    round_ = _Round(shares, rules, now, budgets or {}, admits)
    eligible = {team: [run for run in runs if not round_.refuse(run)] for team, runs in _by_team(queued).items()}
    lines = Lines(shares, rules, now, eligible)
    round_.turn, round_.beside = lines.turn, lines.beside
    while (found := lines.next()) is not None:
        round_.offer(*found)
    return Choice(start=tuple(round_.start), waits=round_.waits)


def _by_team(queued: Iterable[QueuedRun]) -> dict[str, list[QueuedRun]]:
    found: dict[str, list[QueuedRun]] = defaultdict(list)
    for run in queued:
        found[run.team].append(run)
    return found


class _Round:
    """One look at the queue: what starts, why the others wait, and what is kept for whom."""

    def __init__(
        self,
        shares: Shares,
        rules: ComputeRules,
        now: datetime,
        budgets: Mapping[str, Budget],
        admits: Callable[[QueuedRun], bool] | None,
    ) -> None:
        self.start: list[QueuedRun] = []
        self.waits: dict[str, Reason] = {}
        self.turn: QueuedRun | None = None  # see `Lines`
        self.beside: QueuedRun | None = None
        self._shares, self._now, self._budgets, self._admits = shares, now, budgets, admits
        self._priced_starts: dict[str, int] = defaultdict(int)
        self._overdue_since = now - rules.ageing.longest_wait
        self._kept: dict[str, int] = defaultdict(int)
        self._kept_of_limit: dict[str, dict[str, int]] = defaultdict(dict)
        self._limit_kept_for: dict[str, str] = {}
        self._kept_for: dict[str, str] = {}
        self._overdue_holds = False
        self._first_of: dict[str, tuple[QueuedRun, frozenset[str]]] = {}
        self._never: dict[tuple[str, _Size], str | None] = {}
        self._limits: dict[tuple[str, _Size], Reason] = {}
        self._obstacles: dict[_Size, Reason] = {}

    def refuse(self, run: QueuedRun) -> bool:
        """Whether a run waits whatever is free; noted."""
        key = (run.team, run.size)
        if key not in self._never:
            self._never[key] = self._shares.never(run.team, run.demand)
        never = self._never[key]
        reason = self._over_budget(run) if never is None else Reason(kind="never", text=never)
        if reason is not None:
            self.waits[run.run_id] = reason
        return reason is not None

    def offer(self, run: QueuedRun, covered: bool) -> None:
        """Start a run, or note why it waits and keep for it what it may claim.

        Args:
            run: The run.
            covered: Whether its team's reserve covers it.
        """
        reason = self._limited(run) or self._over_budget(run)
        if reason is None:
            reason = self._obstacle(run) or (self._kept_beside(run) if covered else self._behind(run))
            if reason is not None:
                self._hold(run, covered)
            elif self._admits is not None and not self._admits(run):
                reason = Reason(kind="engine", text="a limit of the run queue or of a pool, or its code location")
        if run is self.turn:  # what was to be kept for it is
            self.turn = None
        if reason is not None:
            self.waits[run.run_id] = reason
            return
        self._shares.take(run.team, run.demand)
        self._priced_starts[run.team] += run.price_per_hour > 0
        self.start.append(run)

    def _over_budget(self, run: QueuedRun) -> Reason | None:
        budget = self._budgets.get(run.team)
        if budget is None or run.price_per_hour <= 0 or not budget.is_over(self._priced_starts[run.team]):
            return None
        return Reason(kind="budget", text=waiting_text(budget, "waits"))

    def _limited(self, run: QueuedRun) -> Reason | None:
        """Return what is in use of the team's limit, when there is too little left; that stays so in this look."""
        key = (run.team, run.size)
        if key in self._limits:
            return self._limits[key]
        limit = self._shares.team(run.team).limit
        if not limit:
            return None
        kept = self._kept_of_limit[run.team]
        over = self._shares.over_limit(run.team, run.demand, kept)
        if not over:
            return None
        rest = f"; the rest is kept for {self._limit_kept_for[run.team]}" if kept else ""
        if run.submitted <= self._overdue_since and not kept:
            kept.update({r: run.demand[r] for r in over})  # its own team's narrow runs may not pass it for ever
            waited = duration((self._now - run.submitted).total_seconds())
            self._limit_kept_for[run.team] = f"run {run.run_id[:8]} of its own, which has waited {waited}"
        words = " and ".join(
            f"{run.team} uses {self._shares.used(run.team, r)} of its limit of {said(r, limit[r])}" for r in over
        )
        self._limits[key] = Reason(kind="limit", text=f"{words}, and it needs {_asks(run, over)}{rest}")
        return self._limits[key]

    def _obstacle(self, run: QueuedRun) -> Reason | None:
        """Return what is not free, or kept, of what a run needs; within one look, that only becomes more."""
        reason = self._obstacles.get(run.size)
        if reason is None:
            reason = self._missing(run) or self._held(run)
            if reason is not None:
                self._obstacles[run.size] = reason
        return reason

    def _missing(self, run: QueuedRun) -> Reason | None:
        missing = self._shares.missing(run.demand)
        if not missing:
            return None
        free = " and ".join(self._free(r) for r in missing)
        return Reason(kind="resources", text=f"it needs {_asks(run, missing)}; {free}")

    def _held(self, run: QueuedRun) -> Reason | None:
        """Return what is kept of the free resources, when the run would take some of it."""
        free = self._shares.free
        held = [r for r, n in run.demand.items() if n and self._kept[r] and r in free and free[r] - n < self._kept[r]]
        if not held:
            return None
        kept = " and ".join(f"{self._free(r)}, kept for {self._kept_for[r]}" for r in held)
        return Reason(kind="held", text=f"it needs {_asks(run, held)}; {kept}")

    def _kept_beside(self, run: QueuedRun) -> Reason | None:
        """Return what a run within its team's reserve would take of what the overdue run beside reserves waits for."""
        if not self._yields(run.team) or self.beside is None:
            return None
        free, wanted, named = self._shares.free, self.beside.demand, self._shares.team(run.team).reserve
        held = [r for r, n in run.demand.items() if n and r in free and r not in named]
        held = [r for r in held if wanted.get(r, 0) > 0 and free[r] - run.demand[r] < wanted[r]]
        if not held:
            return None
        kept = " and ".join(f"{self._free(r)}, kept for {self._overdue(self.beside)}" for r in held)
        return Reason(kind="held", text=f"it needs {_asks(run, held)}, which the team's reserve does not name; {kept}")

    def _behind(self, run: QueuedRun) -> Reason | None:
        """Return what an overdue run of the same team lacks, when a run would take some of it."""
        first, lacks = self._first_of.get(run.team, (run, frozenset[str]()))
        taken = [r for r, n in run.demand.items() if n and r in lacks]
        if not taken:
            return None
        return Reason(kind="held", text=f"it needs {_asks(run, taken)}; {self._overdue(first)}, goes first")

    def _yields(self, team: str) -> bool:
        """Whether an overdue run beside reserves goes before what a team's reserve does not name."""
        return self.beside is not None and self._shares.share(team) >= self._shares.share(self.beside.team)

    def _overdue(self, run: QueuedRun) -> str:
        waited = duration((self._now - run.submitted).total_seconds())
        return f"run {run.run_id[:8]} of {run.team}, which has waited {waited}"

    def _hold(self, run: QueuedRun, covered: bool) -> None:
        """Keep free what a run needs, when it may: within its team's reserve, or as the one overdue run."""
        demand = run.demand
        if covered:
            if self._yields(run.team):
                named = self._shares.team(run.team).reserve
                demand = {r: amount for r, amount in demand.items() if r in named}
            why = f"run {run.run_id[:8]}, within the reserve of {run.team}"
        elif run.submitted > self._overdue_since:
            return
        elif self._overdue_holds or self.turn not in (None, run):
            # It waits for its turn. Younger runs of its own team would keep the team's share up, and so its turn away.
            free = self._shares.free
            lacks = frozenset(r for r, n in demand.items() if r in free and free[r] - self._kept[r] < n)
            self._first_of.setdefault(run.team, (run, lacks))
            return
        else:
            self._overdue_holds = True
            why = self._overdue(run)
        for resource, amount in demand.items():
            self._kept[resource] += amount
            self._kept_for.setdefault(resource, why)

    def _free(self, resource: str) -> str:
        free, there_is = max(0, self._shares.free[resource]), self._shares.capacity[resource]
        return f"{free} of {there_is} {'places for runs' if resource == RUNS else resource} are free"


def _asks(run: QueuedRun, resources: Sequence[str]) -> str:
    return " and ".join("a place" if r == RUNS else said(r, run.demand[r]) for r in resources)
