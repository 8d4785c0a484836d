"""`ml-assets spend`: what teams spent in a month, and what is left of their budgets."""

from collections.abc import Mapping
from datetime import UTC, datetime

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ml_assets.cli.arguments import current_project
from ml_assets.cli.known_teams import require_team
from ml_assets.cli.project import Profile
from ml_assets.cli.tables import add_row, make_console, plain
from ml_assets.interfaces import ComputeRules
from ml_assets.interfaces.spend import Spend
from ml_assets.sharing.budgets import Budget, money, month_bounds, month_of

_NUMBERS = ("GPU hours", "core hours", "steps", "runs")


@click.command()
@click.argument("team", required=False, metavar="[TEAM]")
@click.option("--month", metavar="YYYY-MM", help="Calendar month in UTC; this one otherwise.")
def spend(team: str | None, month: str | None) -> None:
    """Show what each team spent in a month, or what one team spent it on.

    A step is counted in the month in which it ended. Runs in progress are shown for this month alone.
    """
    project, now = current_project(), datetime.now(UTC)
    profile = project.profile
    try:
        month = month_of(month_bounds(month or month_of(now))[0])  # "2013-9" is September, too
    except ValueError:
        raise click.UsageError(f"{month!r} is no month; expected such as {month_of(now)}.") from None
    rules = profile.policy_source(profile.policy_url).compute()
    if team is not None:
        require_team(project, team, rules, profile.spend())
    has_budgets = any(share.budget_per_month is not None for share in rules.teams.values())
    running: Mapping[str, Budget] = profile.queue_report().budgets if has_budgets and month == month_of(now) else {}
    table = _of_team(profile, rules, team, month) if team else _of_all(profile, rules, month, running)
    console = make_console()
    if not table.row_count:
        who = "Nobody spent anything" if team is None else f"{team} spent nothing"
        console.print(plain(f"{who} in {month}, in {rules.currency}."))
    else:
        console.print(table)
    if team is not None and team in running:
        console.print(plain(f"{running[team].sums}."))


def _of_all(profile: Profile, rules: ComputeRules, month: str, running: Mapping[str, Budget]) -> Table:
    spent = profile.spend().by_team(*month_bounds(month), currency=rules.currency)
    table = _table("team", f"spent, {rules.currency}", "in progress", "budget", "left", *_NUMBERS)
    for team in sorted({*spent, *(t for t, share in rules.teams.items() if share.budget_per_month is not None)}):
        one, going, budget = spent.get(team, Spend()), running.get(team), rules.team(team).budget_per_month
        going_sum = going.running if going else 0.0
        left = "–" if budget is None else money(max(0.0, budget - one.amount - going_sum))
        add_row(
            table,
            team,
            money(one.amount),
            money(going_sum) if going else "–",
            "–" if budget is None else money(budget),
            left if going is None or not going.is_over() else f"{left}; runs {_what(going)}",
            *_numbers(one),
        )
    return table


def _what(budget: Budget) -> str:
    return "wait" if budget.over_budget == "wait" else "are refused"


def _of_team(profile: Profile, rules: ComputeRules, team: str, month: str) -> Table:
    spent = profile.spend().by_pipeline(team, *month_bounds(month), currency=rules.currency)
    table = _table("pipeline", "profile", f"spent, {rules.currency}", *_NUMBERS)
    for (pipeline, name), one in sorted(spent.items(), key=lambda item: -item[1].amount):
        add_row(table, pipeline or "several", name or "–", money(one.amount), *_numbers(one))
    return table


def _table(*columns: str) -> Table:
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(
            column, overflow="fold", justify="left" if column in {"team", "pipeline", "profile"} else "right"
        )
    return table


def _numbers(one: Spend) -> tuple[str, ...]:
    return f"{one.gpu_hours:,.1f}", f"{one.core_hours:,.1f}", f"{one.steps:,}", f"{one.runs:,}"
