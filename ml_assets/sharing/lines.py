"""In which order queued runs are offered what is free, and which overdue one may hold back the others."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from ml_assets.interfaces.compute import ComputeRules
from ml_assets.sharing.runs import QueuedRun
from ml_assets.sharing.shares import Shares

_RESERVED, _SHARED = 0, 1


def in_order(runs: Iterable[QueuedRun], rules: ComputeRules, now: datetime) -> list[QueuedRun]:
    """Return a team's runs in the order in which they are offered: overdue ones, then by aged priority and age."""

    def key(run: QueuedRun) -> tuple[int, int, datetime, str]:
        if run.is_overdue(rules.ageing, now):
            return 0, 0, run.submitted, run.run_id
        return 1, -run.aged_priority(rules.ageing, now), run.submitted, run.run_id

    return sorted(runs, key=key)


class Lines:
    """Every team's runs in two lines, that of its reserve before that of all; the smallest share comes next.

    Attributes:
        turn: The overdue run that may hold back others: the first one of the team with the smallest share.
        beside: The same, when runs within reserves may not pass it where it needs what no reserve names: the reserves
            leave it room, and its own team's does not cover it.
    """

    def __init__(
        self, shares: Shares, rules: ComputeRules, now: datetime, runs: Mapping[str, Sequence[QueuedRun]]
    ) -> None:
        self._shares, self._rules, self._now = shares, rules, now
        self._any_reserve = any(share.reserve for share in rules.teams.values())
        teams = {team: in_order(waiting, rules, now) for team, waiting in runs.items() if waiting}
        covered = {team: self._covered(team, waiting) for team, waiting in teams.items()}
        self.turn, self.beside = self._turn([waiting[0] for waiting in teams.values()]), None
        # Those who use their reserves without a pause would keep a run waiting for ever that needs what they reserved.
        goes_first = None
        if self.turn is not None and self._any_reserve and self.turn.run_id not in covered[self.turn.team]:
            if shares.too_wide_beside_reserves(self.turn.demand):
                goes_first = self.turn
            else:
                self.beside = self.turn
        self._waiting: dict[tuple[int, str], list[tuple[QueuedRun, bool]]] = {}
        self._heap: list[tuple[int, float, datetime, str]] = []
        for team, waiting in teams.items():
            lines = {_RESERVED: list[tuple[QueuedRun, bool]](), _SHARED: list[tuple[QueuedRun, bool]]()}
            for run in waiting:
                within = run.run_id in covered[team]
                lines[_RESERVED if within or run is goes_first else _SHARED].append((run, within))
            for line, there in lines.items():
                self._push(line, team, there)

    def _push(self, line: int, team: str, waiting: list[tuple[QueuedRun, bool]]) -> None:
        if waiting:
            self._waiting[line, team] = waiting[::-1]
            heapq.heappush(self._heap, (line, self._shares.share(team), waiting[0][0].submitted, team))

    def _turn(self, firsts: Iterable[QueuedRun]) -> QueuedRun | None:
        found = [
            run
            for run in firsts
            if run.is_overdue(self._rules.ageing, self._now) and not self._shares.over_limit(run.team, run.demand, {})
        ]
        return min(found, key=lambda run: (self._shares.share(run.team), run.submitted, run.run_id), default=None)

    def _covered(self, team: str, runs: Sequence[QueuedRun]) -> set[str]:
        """Return the ids of the runs that the team's reserve covers."""
        reserve = {r: amount for r, amount in self._shares.team(team).reserve.items() if amount > 0}
        left = {r: amount - self._shares.used(team, r) for r, amount in reserve.items()}
        covered = set[str]()
        for run in runs if reserve else ():
            touched = {r: run.demand[r] for r in reserve if run.demand.get(r, 0) > 0}
            if touched and all(amount <= left[r] for r, amount in touched.items()):
                left |= {r: left[r] - amount for r, amount in touched.items()}
                covered.add(run.run_id)
        return covered

    def next(self) -> tuple[QueuedRun, bool] | None:
        """Return the run that is offered next and whether its team's reserve covers it; None at the end."""
        while self._heap:
            line, share, _, team = self._heap[0]
            today = self._shares.share(team)  # larger when the team got something since it was pushed
            waiting = self._waiting[line, team]
            found = waiting.pop() if share == today else None
            if waiting:
                heapq.heapreplace(self._heap, (line, today, waiting[-1][0].submitted, team))
            else:
                heapq.heappop(self._heap)
            if found is not None:
                return found
        return None
