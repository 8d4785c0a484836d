"""What is free, who uses how much, and how large each team's share is."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from ml_assets.interfaces.compute import ComputeRules, TeamShare
from ml_assets.sharing.runs import RUNS, RunningRun

Amounts = Mapping[str, int]
Means = Mapping[str, Mapping[str, float]]


class Shares:
    """The installation's resources at one instant; `take` gives some of them away.

    Attributes:
        capacity: Resource → how much there is; one that is absent is not bounded.
        free: Resource → how much is left; below 0 when more is in use than there is.
        unreserved: Resource → how much of the capacity no team has reserved.

    Args:
        rules: Capacity, weights, reserves and limits.
        running: What is in use.
        slots: Most runs in progress at once; None for no such limit.
        means: Team → resource → its mean use of late.
    """

    def __init__(
        self, rules: ComputeRules, running: Iterable[RunningRun], slots: int | None, means: Means | None = None
    ) -> None:
        self._rules, self._means = rules, means or {}
        self.capacity: dict[str, int] = dict(rules.capacity) | ({} if slots is None else {RUNS: slots})
        self.free = dict(self.capacity)
        self._used: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._known: dict[str, float] = {}
        self._teams: dict[str, TeamShare] = {}
        for run in running:
            self.take(run.team, run.demand)
        kept = {r: sum(share.reserve.get(r, 0) for share in rules.teams.values()) for r in self.capacity}
        self.unreserved = {resource: amount - kept[resource] for resource, amount in self.capacity.items()}

    def team(self, name: str) -> TeamShare:
        """Return what a team gets."""
        found = self._teams.get(name)
        if found is None:
            found = self._teams[name] = self._rules.team(name)
        return found

    def used(self, team: str, resource: str) -> int:
        """Return how much a team holds."""
        return self._used[team][resource]

    def take(self, team: str, demand: Amounts) -> None:
        """Give resources to a team."""
        self._known.pop(team, None)
        for resource, amount in demand.items():
            self._used[team][resource] += amount
            if resource in self.free:
                self.free[resource] -= amount

    def share(self, team: str) -> float:
        """Return a team's weighted dominant share.

        It is the largest fraction that the team has of any resource, divided by its weight (dominant resource
        fairness, Ghodsi et al., NSDI 2011); it has what it holds and, so that shares even out over time as well, its
        mean use of late.
        """
        if team not in self._known:
            used, means = self._used[team], self._means.get(team, {})
            fractions = ((used[r] + means.get(r, 0.0)) / amount for r, amount in self.capacity.items() if amount > 0)
            self._known[team] = max(fractions, default=0.0) / self.team(team).weight
        return self._known[team]

    def missing(self, demand: Amounts) -> list[str]:
        """Return the resources of which less is free than a run needs."""
        return [r for r, amount in demand.items() if amount > self.free.get(r, amount)]

    def over_limit(self, team: str, demand: Amounts, besides: Amounts) -> list[str]:
        """Return the resources of which the team would hold more than its limit.

        Args:
            team: Whose limit.
            demand: What it would take.
            besides: What is kept of its limit for a run of its own that goes first.
        """
        limit = self.team(team).limit
        return [
            r
            for r, most in limit.items()
            if demand.get(r, 0) > 0 and self.used(team, r) + demand[r] + besides.get(r, 0) > most
        ]

    def never(self, team: str, demand: Amounts) -> str | None:
        """Return why a run can never start, or None when it can."""
        for resource, amount in demand.items():
            there_is = self.capacity.get(resource, amount)
            if amount > there_is:
                return f"it asks for {said(resource, amount)} at once, and the capacity is {there_is}"
            most = self.team(team).limit.get(resource, amount)
            if amount > most:
                return f"it asks for {said(resource, amount)} at once, and the limit of {team} is {most}"
        return None

    def too_wide_beside_reserves(self, demand: Amounts) -> bool:
        """Whether a run cannot start while every reserve is in use."""
        return any(amount > self.unreserved.get(r, amount) for r, amount in demand.items())


def said(resource: str, amount: int) -> str:
    """Return an amount for people, such as "1 gpu"."""
    return f"{amount} {resource.removesuffix('s') if amount == 1 else resource}"


def duration(seconds: float) -> str:
    """Return a time for people, such as "2d 3h", "4h 10m" or "40s"."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{n}{unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")) if n]
    return " ".join(parts[:2]) or "0s"
