"""What follows from a study's trials alone: what each may know of others, what comes next, which is best."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ml_assets.interfaces import Direction, Studies, StudyPlan, Trial
from ml_assets.search_space import grid_points


def known_to(plan: StudyPlan, number: int, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials before one as its sampler and pruner may see them.

    Trials of earlier rounds are known; those of its own round are running, whatever has become of them. So a trial
    does not depend on which process was faster, nor on where a study was interrupted or first ended.
    """
    begins = number - number % plan.parallel
    return [t if t.number < begins else replace(t, state="running", result=None) for t in trials[:number]]


def propose(
    studies: Studies,
    plan: StudyPlan,
    trials: Sequence[Trial],
    count: int,
    between: Callable[[], None] = lambda: None,
) -> list[Trial]:
    """Return the trials that come next: the rest of a round, no further than `count` trials in all.

    Args:
        studies: Suggests parameters, unless the sampler is a grid.
        plan: The study.
        trials: All there are, from number 0, told.
        count: How many there will be in the end; at most the points of a grid.
        between: Called before each; suggestions after thousands of trials take seconds.
    """
    first = len(trials)
    end = min(first - first % plan.parallel + plan.parallel, count)
    proposed = list(trials)
    for number in range(first, end):
        between()
        known = known_to(plan, number, proposed)
        params = _point(plan, number) if plan.sampler == "grid" else studies.suggest(plan, number, known)
        proposed.append(Trial(number=number, params=params))
    return proposed[first:]


def best_of(direction: Direction, trials: Sequence[Trial]) -> Trial | None:
    """Return the completed trial with the best value, of equals the earliest; None when none was completed."""
    sign = 1.0 if direction == "minimize" else -1.0
    completed = [(t, t.result.value) for t in trials if t.state == "completed" and t.result]
    values = [(sign * value, trial) for trial, value in completed if value is not None]
    return min(values, key=lambda pair: pair[0])[1] if values else None


def _point(plan: StudyPlan, number: int) -> dict[str, Any]:
    """Return a point of the grid, in an order that does not begin in one corner: fewer trials than points may do."""
    points = list(grid_points(plan.space))
    order = sorted(range(len(points)), key=lambda i: hashlib.sha256(f"{plan.seed}/{i}".encode()).digest())
    return points[order[number]]
