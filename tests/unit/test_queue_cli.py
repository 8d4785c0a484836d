"""The commands queue and spend, on a queue and on costs in memory."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from ml_assets.cli.project import Location, Project
from ml_assets.cli.queue import queue
from ml_assets.cli.spend import spend
from ml_assets.interfaces import ComputeRules, TeamShare
from ml_assets.sharing.budgets import Budget, month_of
from ml_assets.sharing.choose import choose
from ml_assets.sharing.report import QueueReport
from ml_assets.sharing.runs import RUNS, QueuedRun, RunningRun
from ml_assets.testing.policy_source import FakePolicySource
from ml_assets.testing.spend import FakeSpend, cost

NOW = datetime.now(UTC)
THIS_MONTH = month_of(NOW)
RULES = ComputeRules(
    capacity={"gpus": 4},
    teams={
        "births": TeamShare(reserve={"gpus": 1}),
        "flights": TeamShare(weight=2, limit={"gpus": 3}, budget_per_month=100.0),
    },
)


def run(name: str, gpus: int = 1, *, minutes: int = 25, price: float = 0.0) -> QueuedRun:
    return QueuedRun(
        run_id=f"{name}-run",
        team=name.partition("-")[0],
        demand={"gpus": gpus, "cores": 4, RUNS: 1},
        submitted=NOW - timedelta(minutes=minutes),
        price_per_hour=price,
    )


def report(*queued: QueuedRun, rules: ComputeRules = RULES) -> QueueReport:
    running = (RunningRun(run_id="r", team="flights", demand={"gpus": 3, "cores": 8, RUNS: 1}, started=NOW),)
    budget = Budget(team="flights", month=THIS_MONTH, spent=95.5, running=6.0, budget=100.0, currency="EUR")
    months = {"flights": budget} if rules.teams else {}
    choice = choose(queued, running, rules, now=NOW, slots=8, budgets=months) if rules.teams else None
    return QueueReport(
        now=NOW,
        rules=rules,
        slots=8,
        queued=queued,
        running=running,
        names={one.run_id: f"[/red] delay\x07 of {one.team}" for one in queued},
        **({} if choice is None else {"choice": choice}),
        budgets=months,
    )


class Desk:
    """Somebody at the command line."""

    def __init__(self, root: Path) -> None:
        self.report, self.spend, self.rules = report(), FakeSpend(), RULES
        profile: Any = SimpleNamespace(
            policy_url="",
            queue_report=lambda: self.report,
            spend=lambda: self.spend,
            policy_source=lambda _: FakePolicySource({}, compute=self.rules),
        )
        locations = (Location(name="rides", module="deployments.rides.definitions"),)
        self._project = Project(root=root, profile=profile, locations=locations)

    def run(self, command: Any, *words: str, code: int = 0) -> str:
        result = CliRunner().invoke(command, list(words), obj=self._project)
        assert result.exit_code == code, result.output
        return " ".join(result.output.split())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_queue_says_who_waits_for_what_and_how_long(desk: Desk) -> None:
    desk.report = report(run("flights-a", price=0.6), run("births-a"), run("births-b", 2, minutes=300))

    shown = desk.run(queue)

    assert "births-a births" in shown
    assert "it starts at the" in shown
    assert "1 gpu, 4 cores" in shown
    assert "0 + 2" in shown
    assert "25m" in shown
    assert "5h" in shown
    assert "flights spent 95.50 of its" in shown
    assert "\x07" not in shown
    assert "3 (limit 3)" in shown
    assert "0 (reserve 1)" in shown
    assert "95.50 + 6.00 of 100.00" in shown
    assert "3 of 4" in shown


def test_the_queue_of_one_team_and_of_many_runs(desk: Desk) -> None:
    desk.report = report(*(run(f"births-{n}", 2) for n in range(5)), run("flights-a"))

    assert "flights-a" not in desk.run(queue, "--team", "births")
    assert "4 more wait; --most shows more." in desk.run(queue, "--most", "2")
    desk.report = report()
    assert desk.run(queue).startswith("No run waits. team weight gpus in use cores in use runs in use")


def test_without_teams_the_queue_says_so(desk: Desk) -> None:
    desk.report = report(run("births-a"), rules=ComputeRules())

    shown = desk.run(queue)

    assert "its turn, by priority and time" in shown
    assert "There are no teams in policies/compute.yaml" in shown


def test_spend_shows_every_team_with_what_is_left_of_its_budget(desk: Desk) -> None:
    assert desk.run(spend, "--month", "2013-08").endswith("0.0 0 0")  # flights has a budget
    desk.spend.record([cost(ended_at=NOW, seconds=3600.0 * 80), cost(team="births", run_id="b", ended_at=NOW)], now=NOW)

    shown = desk.run(spend)

    assert "births 0.60 – – – 1.0 2.0 1 1" in shown
    assert "flights 96.00 6.00 100.00 0.00; runs wait 160.0 320.0 1 1" in shown


def test_spend_without_budgets_needs_no_queue(desk: Desk) -> None:
    desk.rules = ComputeRules()
    del desk.report

    assert desk.run(spend) == f"Nobody spent anything in {THIS_MONTH}, in EUR."


def test_spend_of_a_team_shows_on_what(desk: Desk) -> None:
    costs = [cost(ended_at=NOW), cost(ended_at=NOW, step_key="f", profile="", price_per_hour=0.2, pipeline="")]
    desk.spend.record(costs, now=NOW)

    shown = desk.run(spend, "flights")

    assert shown.index("arrival_delay gpu-small 0.60 1.0 2.0 1 1") < shown.index("several – 0.10")
    assert shown.endswith(f"of its budget of 100.00 EUR for {THIS_MONTH}, runs in progress are expected to add 6.00.")
    assert desk.run(spend, "rides") == f"rides spent nothing in {THIS_MONTH}, in EUR."


def test_what_runs_in_progress_will_add_is_shown_of_a_team_that_has_spent_nothing_yet(desk: Desk) -> None:
    assert desk.run(spend, "flights").endswith("runs in progress are expected to add 6.00.")


@pytest.mark.parametrize("words", [(queue, "--team", "fligths"), (spend, "fligths")])
def test_a_team_that_nobody_knows_is_a_wrong_call(desk: Desk, words: tuple[Any, ...]) -> None:
    desk.spend.record([cost(team="gone", currency="CHF", ended_at=NOW)], now=NOW)

    shown = desk.run(*words, code=2)

    assert "There is no team 'fligths'; there are births, flights, gone, rides (of" in shown
    assert "did you mean 'flights'?" in shown


@pytest.mark.parametrize("team", ["rides", "births", "gone"])
def test_a_team_without_anything_is_known_by_its_location_its_rules_or_what_it_spent(desk: Desk, team: str) -> None:
    desk.spend.record([cost(team="gone", currency="CHF", ended_at=NOW)], now=NOW)

    assert desk.run(queue, "--team", team)
    assert f"{team} spent nothing" in desk.run(spend, team)


def test_a_team_in_the_queue_is_known(desk: Desk) -> None:
    desk.report = report(run("other-a"))

    assert "other-a" in desk.run(queue, "--team", "other")


def test_a_month_may_be_written_without_its_zero(desk: Desk) -> None:
    assert desk.run(spend, "rides", "--month", "2013-9") == "rides spent nothing in 2013-09, in EUR."


def test_a_month_of_another_form_is_a_wrong_call(desk: Desk) -> None:
    assert "'September' is no month; expected such as" in desk.run(spend, "--month", "September", code=2)
