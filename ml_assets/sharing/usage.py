"""How much of each resource every team used of late: an exponentially weighted mean, so that bursts even out."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from ml_assets.sharing.runs import RunningRun

MEMORY = timedelta(hours=6)
"""Time constant: what a team used so long ago counts e times less than what it uses now."""
HORIZON = 5 * MEMORY
"""What ended longer ago counts less than 1 %, and need not be read."""

Means = dict[str, dict[str, float]]


class UsageHistory:
    """Use of ended runs, folded into one number for each team and resource.

    The mean use of a team at `now` is the integral of its use u(t) weighted by exp(-(now - t)/memory) / memory, as in
    decayed fair-share scheduling (Slurm's multifactor priority). A team that always used k units has the mean k.

    Args:
        memory: Time constant of the weights.
    """

    def __init__(self, memory: timedelta = MEMORY) -> None:
        self._memory = memory.total_seconds()
        self._at: datetime | None = None
        self._means: Means = defaultdict(lambda: defaultdict(float))

    def add(self, team: str, demand: Mapping[str, int], started: datetime, ended: datetime) -> None:
        """Fold in a run that held `demand` from `started` to `ended`; runs may come in any order."""
        at = self._at if self._at is not None and ended <= self._at else self._decayed_to(ended)
        weight = self._weight(started, ended, at)
        for resource, amount in demand.items():
            self._means[team][resource] += amount * weight

    def means(self, now: datetime, running: Iterable[RunningRun] = ()) -> Means:
        """Return team → resource → mean use, with what runs in progress have used so far."""
        factor = 1.0 if self._at is None else math.exp(-max(0.0, (now - self._at).total_seconds()) / self._memory)
        found: Means = {
            team: {resource: mean * factor for resource, mean in means.items()} for team, means in self._means.items()
        }
        for run in running:
            if run.started is None:
                continue
            weight = self._weight(run.started, now, now)
            means = found.setdefault(run.team, {})
            for resource, amount in run.demand.items():
                means[resource] = means.get(resource, 0.0) + amount * weight
        return found

    def _decayed_to(self, to: datetime) -> datetime:
        if self._at is not None:
            factor = math.exp(-(to - self._at).total_seconds() / self._memory)
            for means in self._means.values():
                for resource in means:
                    means[resource] *= factor
        self._at = to
        return to

    def _weight(self, started: datetime, ended: datetime, at: datetime) -> float:
        """Return the share of all weights, as of `at`, that lies between two instants."""
        since_start = max(0.0, (at - started).total_seconds())
        since_end = max(0.0, (at - ended).total_seconds())
        return math.exp(-since_end / self._memory) - math.exp(-since_start / self._memory)
