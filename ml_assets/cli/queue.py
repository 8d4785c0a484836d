"""`ml-assets queue`: what waits in the run queue, for whom, why and for how long, and who has what."""

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ml_assets.cli.arguments import current_project
from ml_assets.cli.known_teams import require_team
from ml_assets.cli.tables import add_row, make_console
from ml_assets.sharing.report import QueueReport
from ml_assets.sharing.runs import RUNS, QueuedRun
from ml_assets.sharing.shares import duration, said

_RESOURCES = ("gpus", "cores", RUNS)


@click.command()
@click.option("--team", metavar="NAME", help="Only this team's runs.")
@click.option("--most", metavar="N", type=click.IntRange(min=1), default=50, show_default=True, help="Runs to show.")
def queue(team: str | None, most: int) -> None:
    """Show what waits for its turn and why, as the daemon would decide now, and what each team has in use.

    A look changes nothing: runs are started by the daemon alone. Runs are shared fairly among teams as soon as there is
    any entry below `teams:` in policies/compute.yaml; without one they start by priority, then time.
    """
    project, console = current_project(), make_console()
    report = project.profile.queue_report()
    if team is not None:
        require_team(project, team, report.rules, project.profile.spend(), report.teams)
    _show_waiting(console, report, [run for run in report.queued if team in (None, run.team)], most)
    _show_teams(console, report, [name for name in report.teams if team in (None, name)])


def _show_waiting(console: Console, report: QueueReport, waiting: list[QueuedRun], most: int) -> None:
    if not waiting:
        console.print("No run waits.")
        return
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("run", "team", "what", "asks for", "priority", "waits", "for"):
        table.add_column(column, overflow="fold", no_wrap=column in {"run", "waits"})
    order = {run.run_id: n for n, run in enumerate(report.choice.start)}
    for run in sorted(waiting, key=lambda run: order.get(run.run_id, len(order)))[:most]:
        add_row(
            table,
            run.run_id[:8],
            run.team,
            report.names.get(run.run_id, ""),
            ", ".join(said(r, run.demand[r]) for r in ("gpus", "cores") if run.demand.get(r)),
            _priority(run, report),
            duration((report.now - run.submitted).total_seconds()),
            report.why(run),
        )
    console.print(table)
    if len(waiting) > most:
        console.print(f"{len(waiting) - most} more wait; --most shows more.")


def _priority(run: QueuedRun, report: QueueReport) -> str:
    aged = run.aged_priority(report.rules.ageing, report.now) if report.rules.teams else run.priority
    return str(aged) if aged == run.priority else f"{run.priority} + {aged - run.priority}"


def _show_teams(console: Console, report: QueueReport, teams: list[str]) -> None:
    rules = report.rules
    if not rules.teams:
        console.print("There are no teams in policies/compute.yaml: runs start by priority, then in order of time.")
    there_is = {**rules.capacity, **({} if report.slots is None else {RUNS: report.slots})}
    shown = [r for r in _RESOURCES if r in there_is or any(report.held(team, r) for team in teams)]
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("team", "weight", *(f"{r} in use" for r in shown), "waiting", f"budget, {rules.currency}"):
        table.add_column(column, overflow="fold", no_wrap=column == "team")
    for team in teams:
        share, month = rules.team(team), report.budgets.get(team)
        budget = "–" if month is None else f"{month.spent:,.2f} + {month.running:,.2f} of {month.budget:,.2f}"
        waiting = sum(run.team == team for run in report.queued)
        held = [_held(report, team, r) for r in shown]
        add_row(table, team, f"{share.weight:g}", *held, str(waiting), budget)
    totals = [_of(sum(run.demand.get(r, 0) for run in report.running), there_is.get(r)) for r in shown]
    if teams == report.teams:
        table.add_section()
        add_row(table, "all", "", *totals, str(len(report.queued)), "")
    console.print(table)


def _held(report: QueueReport, team: str, resource: str) -> str:
    share = report.rules.team(team)
    notes = [
        f"{name} {amounts[resource]}"
        for name, amounts in (("reserve", share.reserve), ("limit", share.limit))
        if resource in amounts
    ]
    return str(report.held(team, resource)) + (f" ({', '.join(notes)})" if notes else "")


def _of(amount: int, there_is: int | None) -> str:
    return str(amount) if there_is is None else f"{amount} of {there_is}"
