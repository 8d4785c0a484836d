"""No run waits for ever: the bound of the wait, against floods of runs of any width, under any rules of sharing."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_assets.interfaces import Ageing, ComputeRules, TeamShare
from ml_assets.sharing.choose import choose
from ml_assets.sharing.runs import RUNS, QueuedRun, RunningRun

NOW = datetime(2013, 9, 2, 12, 0, tzinfo=UTC)
MINUTE, LONGEST_WAIT, LONGEST_RUN = timedelta(minutes=1), timedelta(hours=1), timedelta(minutes=50)
TEAMS = ("flights", "births", "rides", "trips")
GPUS = 8


@dataclass
class Flood:
    """An installation that is never idle: from 90 minutes before on, teams ask for more than there is.

    Args:
        seed: Draws the rules, the places for runs, what the probe needs, and all that others ask for.
        own: Whether the probe's team floods the queue, too, with runs of higher priority and without a reserve.
    """

    seed: int
    own: bool
    queue: list[QueuedRun] = field(default_factory=list)
    running: list[tuple[datetime, RunningRun]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = chance = random.Random(self.seed)  # noqa: S311 - a simulation
        self.teams = TEAMS[: chance.randint(2, 4)]
        self.cores, self.slots = chance.choice([32, 64]), chance.choice([None, 3, 6])
        self.widest = chance.choice([1, 2, GPUS])
        self.rules = ComputeRules(
            capacity={"gpus": GPUS, "cores": self.cores},
            teams=self._shares(),
            ageing=Ageing(step=MINUTE, longest_wait=LONGEST_WAIT),
        )
        demand = {"gpus": chance.randint(0, GPUS), "cores": chance.randint(1, self.cores), RUNS: 1}
        self.probe = QueuedRun(run_id="probe", team=TEAMS[0], demand=demand, priority=-100, submitted=NOW)

    def _shares(self) -> Mapping[str, TeamShare]:
        shares, left = {}, self.chance.choice([0, 4, GPUS])
        for team in self.teams:
            probes = team == TEAMS[0]
            gpus = self.chance.randint(0, left) if self.chance.random() < 0.5 and not (self.own and probes) else 0
            left -= gpus
            reserve = {"gpus": gpus, **({"cores": 2 * gpus} if self.chance.random() < 0.4 else {})} if gpus else {}
            limit = (
                {"gpus": self.chance.randint(max(1, gpus), GPUS)} if self.chance.random() < 0.3 and not probes else {}
            )
            shares[team] = TeamShare(weight=self.chance.choice([0.5, 1.0, 3.0]), reserve=reserve, limit=limit)
        return shares

    def wait_of_probe(self, at_most: timedelta) -> timedelta:
        """Return how long the probe waits, or a little more than `at_most`."""
        at = NOW - timedelta(minutes=90)
        while at - NOW <= at_most:
            self.running = [(end, run) for end, run in self.running if end > at]
            self._ask(at)
            if (
                at == NOW
            ):  # whoever waits already is younger than the probe: what is older goes first where shares are equal
                self.queue = [replace(run, submitted=NOW + timedelta(seconds=1)) for run in self.queue]
            waiting = [*self.queue, *([self.probe] if at >= NOW else [])]
            held = [run for _, run in self.running]
            started = choose(waiting, held, self.rules, now=at + timedelta(seconds=2), slots=self.slots).start
            if self.probe in started:
                break
            for run in started:
                going = RunningRun(run_id=run.run_id, team=run.team, demand=run.demand, started=at)
                self.running.append((at + self.chance.randint(1, 50) * MINUTE, going))
            self.queue = [run for run in self.queue if run not in started]
            at += MINUTE
        return at - NOW

    def _ask(self, at: datetime) -> None:
        cores = max(1, self.cores * self.widest // (2 * GPUS))
        for team in self.teams if self.own else self.teams[1:]:
            most = min(self.widest, self.rules.team(team).limit.get("gpus", GPUS))
            for n in range(10 - sum(run.team == team for run in self.queue)):
                demand = {"gpus": self.chance.randint(0, most), "cores": self.chance.randint(1, cores), RUNS: 1}
                self.queue.append(
                    QueuedRun(
                        run_id=f"{team}-{at:%d%H%M}-{n}",
                        team=team,
                        demand=demand,
                        priority=self.chance.randint(0, 100),
                        submitted=at + timedelta(seconds=1),
                    )
                )


@given(st.integers(0, 1_000_000))
@example(58)  # overdue runs that need what is reserved had gone first for ever, whatever their team had
@example(55)
@settings(max_examples=60, deadline=None)
def test_a_run_starts_after_the_longest_wait_and_the_longest_run_when_its_team_has_nothing(seed: int) -> None:
    """Whatever reserves, weights, limits and places there are, and however wide the runs are that wait as long."""
    bound = LONGEST_WAIT + LONGEST_RUN
    assert Flood(seed, own=False).wait_of_probe(bound) <= bound


@given(st.integers(0, 1_000_000))
@example(14)
@settings(max_examples=40, deadline=None)
def test_runs_of_its_own_team_do_not_keep_a_run_from_its_turn(seed: int) -> None:
    """What they hold keeps the team's share up, so each team may have a turn before, in which runs in progress end."""
    flood = Flood(seed, own=True)
    bound = LONGEST_WAIT + 2 * len(flood.teams) * LONGEST_RUN
    assert flood.wait_of_probe(bound) <= bound
