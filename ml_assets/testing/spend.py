"""FakeSpend, and the suite that every store of spend passes."""
# ruff: noqa: D102 - the names of the tests are the sentences

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from ml_assets.interfaces.spend import Spend, SpendStore, StepCost

SEPTEMBER, OCTOBER = datetime(2013, 9, 1, tzinfo=UTC), datetime(2013, 10, 1, tzinfo=UTC)
NOW = datetime(2013, 9, 2, 6, 0, tzinfo=UTC)


class FakeSpend:
    """Costs in memory, in the order in which they were recorded."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str, int], StepCost] = {}

    def record(self, costs: Sequence[StepCost], *, now: datetime) -> int:
        """Keep costs that are not kept yet, and return how many that were; what was kept first stays."""
        del now
        before = len(self.kept)
        for cost in costs:
            self.kept.setdefault((cost.run_id, cost.step_key, cost.attempt), cost)
        return len(self.kept) - before

    def by_team(self, since: datetime, until: datetime, *, currency: str) -> dict[str, Spend]:
        """Return what each team spent on steps that ended from `since` on and before `until`, in one currency."""
        return self._by(lambda cost: cost.team, since, until, currency)

    def by_pipeline(
        self, team: str, since: datetime, until: datetime, *, currency: str
    ) -> dict[tuple[str, str], Spend]:
        """Return what a team spent in such a time, by pipeline and profile."""
        found = self._by(lambda cost: (cost.team, cost.pipeline, cost.profile), since, until, currency)
        return {key[1:]: spend for key, spend in found.items() if key[0] == team}

    def teams(self) -> list[str]:
        """Return the teams that ever spent anything, in any currency, sorted."""
        return sorted({cost.team for cost in self.kept.values()})

    def of_runs(self, run_ids: Sequence[str]) -> dict[str, float]:
        """Return what was kept of some runs so far; a run without any cost is left out."""
        found: dict[str, float] = {}
        for cost in self.kept.values():
            if cost.run_id in run_ids:
                found[cost.run_id] = found.get(cost.run_id, 0.0) + cost.amount
        return found

    def _by(self, key: Callable[[StepCost], Any], since: datetime, until: datetime, currency: str) -> dict[Any, Spend]:
        within = [c for c in self.kept.values() if since <= c.ended_at < until and c.currency == currency]
        return {name: _sum([cost for cost in within if key(cost) == name]) for name in map(key, within)}


def _sum(costs: Sequence[StepCost]) -> Spend:
    return Spend(
        amount=sum(cost.amount for cost in costs),
        core_hours=sum(cost.cores * cost.seconds for cost in costs) / 3600,
        gpu_hours=sum(cost.gpus * cost.seconds for cost in costs) / 3600,
        steps=len(costs),
        runs=len({cost.run_id for cost in costs}),
    )


def cost(**changes: Any) -> StepCost:
    """Return a cost to test with, changed in the given fields: half an hour of two GPUs for 0.60."""
    fields: dict[str, Any] = {
        "team": "flights",
        "pipeline": "arrival_delay",
        "run_id": "run-1",
        "step_key": "models__forest",
        "attempt": 1,
        "profile": "gpu-small",
        "cores": 4,
        "gpus": 2,
        "seconds": 1800.0,
        "price_per_hour": 1.2,
        "currency": "EUR",
        "ended_at": NOW,
    }
    return StepCost(**fields | changes)


class SpendSuite:
    """What every store of spend does; subclass it and provide a fixture `spend` that is empty for each test."""

    def test_what_steps_cost_is_summed_by_team(self, spend: SpendStore) -> None:
        assert spend.by_team(SEPTEMBER, OCTOBER, currency="EUR") == {}
        costs = [cost(), cost(step_key="models__net"), cost(run_id="run-2"), cost(team="births", run_id="run-3")]

        assert spend.record(costs, now=NOW) == 4

        found = spend.by_team(SEPTEMBER, OCTOBER, currency="EUR")
        assert found["flights"].amount == pytest.approx(1.8)
        assert (found["flights"].core_hours, found["flights"].gpu_hours) == pytest.approx((6.0, 3.0))
        assert (found["flights"].steps, found["flights"].runs) == (3, 2)
        assert found["births"].amount == pytest.approx(0.6)

    def test_a_cost_is_kept_once_and_the_first_stays(self, spend: SpendStore) -> None:
        assert spend.record([cost(), cost()], now=NOW) == 1
        assert spend.record([cost(seconds=7200.0), cost(attempt=2)], now=NOW) == 1
        assert spend.record([], now=NOW) == 0

        assert spend.of_runs(["run-1"]) == {"run-1": pytest.approx(1.2)}

    def test_a_cost_belongs_to_the_month_in_which_the_step_ended(self, spend: SpendStore) -> None:
        east = timezone(timedelta(hours=2))
        ends = [
            datetime(2013, 9, 1, 1, 59, tzinfo=east),
            SEPTEMBER,
            OCTOBER - timedelta(microseconds=1),
            OCTOBER,
        ]
        spend.record([cost(run_id=str(n), ended_at=end) for n, end in enumerate(ends)], now=NOW)

        assert spend.by_team(SEPTEMBER, OCTOBER, currency="EUR")["flights"].runs == 2

    def test_currencies_are_not_added_up(self, spend: SpendStore) -> None:
        spend.record([cost(), cost(run_id="run-2", currency="CHF")], now=NOW)

        assert spend.by_team(SEPTEMBER, OCTOBER, currency="CHF")["flights"].amount == pytest.approx(0.6)
        assert spend.by_team(SEPTEMBER, OCTOBER, currency="USD") == {}

    def test_a_teams_spend_is_told_by_pipeline_and_profile(self, spend: SpendStore) -> None:
        costs = [cost(), cost(attempt=2), cost(step_key="features", profile="cpu-small", gpus=0)]
        costs += [cost(run_id="run-2", pipeline=""), cost(run_id="run-3", team="births")]
        spend.record(costs, now=NOW)

        found = spend.by_pipeline("flights", SEPTEMBER, OCTOBER, currency="EUR")

        assert {key: one.steps for key, one in found.items()} == {
            ("arrival_delay", "gpu-small"): 2,
            ("arrival_delay", "cpu-small"): 1,
            ("", "gpu-small"): 1,
        }
        assert found["arrival_delay", "cpu-small"].gpu_hours == 0

    def test_teams_that_ever_spent_anything_are_known(self, spend: SpendStore) -> None:
        assert spend.teams() == []
        spend.record([cost(currency="CHF"), cost(run_id="run-2"), cost(team="births", run_id="run-3")], now=NOW)

        assert spend.teams() == ["births", "flights"]

    def test_the_cost_of_many_runs_is_asked_for_at_once(self, spend: SpendStore) -> None:
        spend.record([cost(run_id=f"run-{n}") for n in range(1200)], now=NOW)

        assert len(spend.of_runs([f"run-{n}" for n in range(1500)])) == 1200
        assert spend.of_runs([]) == {}

    def test_of_threads_that_record_the_same_cost_one_does(self, spend: SpendStore) -> None:
        with ThreadPoolExecutor(6) as pool:
            new = list(pool.map(lambda _: spend.record([cost()], now=NOW), range(12)))

        assert sorted(new) == [0] * 11 + [1]
