"""A bursty trace of jobs of fifty teams, made from a seed: who asks for what, when, and how long it takes."""

import math
import random
from dataclasses import dataclass

HOUR = 3600.0
GPUS, CORES = 64, 512
TEAMS = 50
GREEDY = 9.0
"""How many times the work of another team a greedy one asks for."""
DAYS = 5
_WIDTHS = {"narrow": ((1, 0.8), (2, 0.2)), "mixed": ((1, 0.5), (2, 0.3), (4, 0.2)), "wide": ((4, 0.7), (8, 0.3))}
_CORES_OF_A_GPU = 6
_MEDIAN_HOURS, _SIGMA, _LONGEST_HOURS = 0.7, 1.0, 8.0


@dataclass(frozen=True)
class Job:
    """A run of a team.

    Attributes:
        name: Its number.
        team: Whose it is.
        submitted: When it is asked for, in seconds.
        seconds: How long it runs.
        gpus: Graphics processors that it needs at once.
        cores: Processor cores that it needs at once.
        priority: A higher one goes first.
        alone: Whether it was asked for by itself, not as one of a sweep.
    """

    name: int
    team: str
    submitted: float
    seconds: float
    gpus: int
    cores: int
    priority: int
    alone: bool


@dataclass(frozen=True)
class Team:
    """What a team is like.

    Attributes:
        name: Such as "team07".
        weight: Its share in proportion to others.
        kind: Key of the widths of its jobs.
        priority: That it gives all its runs.
        activity: Its part of all work, before it is scaled.
    """

    name: str
    weight: float
    kind: str
    priority: int
    activity: float


def make_teams() -> list[Team]:
    """Return the teams: a tenth of them ask for half of the work, a seventh marks its runs as urgent."""
    found = []
    for n in range(TEAMS):
        kind = ("narrow", "narrow", "mixed", "mixed", "wide")[n % 5]
        activity = GREEDY if n % 10 == 3 else 1.0
        found.append(
            Team(
                name=f"team{n:02}",
                weight=2.0 if n % 8 == 1 else 1.0,
                kind=kind,
                priority=10 if n % 7 == 0 else 0,
                activity=activity,
            )
        )
    return found


def make_trace(load: float, seed: int) -> list[Job]:
    """Return the jobs of five days, by the time of submission.

    Args:
        load: GPU time that is asked for ÷ GPU time that there is.
        seed: Of the random numbers.
    """
    random_ = random.Random(seed)  # noqa: S311 - a trace, not a secret
    teams = make_teams()
    horizon, total = DAYS * 24 * HOUR, sum(team.activity for team in teams)
    jobs: list[tuple[float, Team, float, int, bool]] = []
    for team in teams:
        wanted = load * GPUS * horizon * team.activity / total
        own = []
        asked = 0.0
        while wanted > asked:
            at, together = random_.uniform(0, horizon), _burst(random_)
            for _ in range(together):
                late = min(horizon, at + random_.expovariate(1 / 300))
                own.append((late, team, _seconds(random_), _width(random_, team.kind), together == 1))
                asked += own[-1][2] * own[-1][3]
        scale = wanted / asked  # the last sweep was of any size
        jobs += [(at, team, seconds * scale, gpus, alone) for at, team, seconds, gpus, alone in own]
    jobs.sort(key=lambda job: job[0])
    return [
        Job(
            name=n,
            team=team.name,
            submitted=at,
            seconds=seconds,
            gpus=gpus,
            cores=gpus * _CORES_OF_A_GPU,
            priority=team.priority,
            alone=alone,
        )
        for n, (at, team, seconds, gpus, alone) in enumerate(jobs)
    ]


def _burst(random_: random.Random) -> int:
    """Return how many jobs come together: mostly one, at times a sweep of many."""
    return 1 if random_.random() < 0.7 else min(60, 1 + int(random_.paretovariate(1.1) * 6))


def _seconds(random_: random.Random) -> float:
    return min(_LONGEST_HOURS, _MEDIAN_HOURS * math.exp(random_.gauss(0, _SIGMA))) * HOUR


def _width(random_: random.Random, kind: str) -> int:
    widths, chances = zip(*_WIDTHS[kind], strict=True)
    return random_.choices(widths, chances)[0]
