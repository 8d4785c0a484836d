"""A team's budget of a calendar month: what was spent, what runs in progress will add, and whether more may start."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ml_assets.interfaces.compute import ComputeRules, OverBudget
from ml_assets.interfaces.spend import Spend


@dataclass(frozen=True, kw_only=True)
class RunningCost:
    """What a run in progress costs.

    Attributes:
        team: Who pays.
        kept: What is recorded of it already.
        so_far: What it cost until now, with what is recorded.
    """

    team: str
    kept: float = 0.0
    so_far: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A team's month.

    Attributes:
        team: Whose.
        month: Such as "2013-09" (UTC).
        spent: What ended steps cost.
        running: What runs in progress are expected to add to it.
        budget: Most the team may spend.
        currency: Of all three.
        over_budget: What becomes of its runs once it is spent.
        mean_run: What its runs of this month cost on average, or those of the month before when there was none yet; 0
            when there was none in either.
    """

    team: str
    month: str
    spent: float
    running: float
    budget: float
    currency: str
    over_budget: OverBudget = "wait"
    mean_run: float = 0.0

    def is_over(self, just_started: int = 0) -> bool:
        """Whether no further run that costs something may start, when so many have just been started."""
        return self.spent + self.running + just_started * self.mean_run >= self.budget

    @property
    def sums(self) -> str:
        """Return the sums for people, without a full stop."""
        running = f", runs in progress are expected to add {money(self.running)}" if self.running else ""
        return (
            f"{self.team} spent {money(self.spent)} of its budget of {money(self.budget)} {self.currency} "
            f"for {self.month}{running}"
        )


def budgets(
    rules: ComputeRules,
    spent: Mapping[str, Spend],
    running: Mapping[str, RunningCost],
    *,
    now: datetime,
    before: Mapping[str, Spend] | None = None,
) -> dict[str, Budget]:
    """Return the month of every team that has a budget.

    A run in progress is expected to cost what the team's runs of this month cost on average, or what it cost so far,
    whichever is more: a run that has just begun is not free. While the team has no cost in this month, the mean is that
    of the month before: what waited for the first day of a month would else start all at once.

    Args:
        rules: Who has a budget.
        spent: Team → its spend of this month, in the currency of the rules.
        running: Run id → what it costs, for runs in progress that cost something.
        now: Tells the month.
        before: Team → its spend of the month before.
    """
    found = {}
    for team, share in rules.teams.items():
        if share.budget_per_month is None:
            continue
        month = spent.get(team, Spend())
        mean = _mean(month) or _mean((before or {}).get(team, Spend()))
        own = [cost for cost in running.values() if cost.team == team]
        found[team] = Budget(
            team=team,
            month=month_of(now),
            spent=month.amount,
            running=sum(max(cost.so_far, mean) - cost.kept for cost in own if max(cost.so_far, mean) > cost.kept),
            budget=share.budget_per_month,
            currency=rules.currency,
            over_budget=share.over_budget,
            mean_run=mean,
        )
    return found


def _mean(month: Spend) -> float:
    return month.amount / month.runs if month.runs else 0.0


def month_of(at: datetime) -> str:
    """Return the calendar month of an instant in UTC, such as "2013-09"."""
    return f"{at.astimezone(UTC):%Y-%m}"


def month_bounds(month: str) -> tuple[datetime, datetime]:
    """Return when a month begins and when the next one does.

    Raises:
        ValueError: If it is not of the form "2013-09".
    """
    first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    return first, first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)


def money(amount: float) -> str:
    """Return an amount with thousands separated and two decimals."""
    return f"{amount:,.2f}"


def waiting_text(budget: Budget, what: Literal["waits", "refused"]) -> str:
    """Return what a run over budget is told, without a full stop."""
    _, until = month_bounds(budget.month)
    if what == "waits":
        return f"{budget.sums}; it waits until {until:%Y-%m-%d} (UTC) or until the budget is raised"
    return (
        f"{budget.sums}. Wait until {until:%Y-%m-%d} (UTC), or have teams.{budget.team}.budget_per_month raised in "
        "policies/compute.yaml"
    )
