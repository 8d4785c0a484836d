"""Adding and summing costs on one connection; SQLAlchemy's errors pass through."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ml_assets.interfaces.spend import Spend, StepCost
from resources.ledger.tables import spend

_AT_ONCE = 500
"""Names in one IN list; SQLite of some builds takes no more than 999 parameters."""


def insert_costs(connection: sa.Connection, costs: Sequence[StepCost], now: datetime) -> int:
    """Insert the costs that are not there; the caller keeps other writers out."""
    new: dict[tuple[str, str, int], StepCost] = {}
    for cost in costs:
        new.setdefault((cost.run_id, cost.step_key, cost.attempt), cost)
    known = sa.select(spend.c.run_id, spend.c.step_key, spend.c.attempt)
    for part in _parts(sorted({cost.run_id for cost in costs})):
        for row in connection.execute(known.where(spend.c.run_id.in_(part))):
            new.pop((row.run_id, row.step_key, row.attempt), None)
    if new:
        rows = [asdict(cost) | {"amount": cost.amount, "recorded_at": now} for cost in new.values()]
        connection.execute(spend.insert(), rows)
    return len(new)


def sum_by_team(connection: sa.Connection, since: datetime, until: datetime, currency: str) -> dict[str, Spend]:
    """Return each team's spend on steps that ended in a time."""
    query = sa.select(spend.c.team, *_sums()).where(*_between(since, until, currency)).group_by(spend.c.team)
    return {row.team: _spend(row) for row in connection.execute(query)}


def sum_by_pipeline(
    connection: sa.Connection, team: str, since: datetime, until: datetime, currency: str
) -> dict[tuple[str, str], Spend]:
    """Return a team's spend by pipeline and profile."""
    columns = (spend.c.pipeline, spend.c.profile)
    query = sa.select(*columns, *_sums()).where(*_between(since, until, currency), spend.c.team == team)
    return {(row.pipeline, row.profile): _spend(row) for row in connection.execute(query.group_by(*columns))}


def spending_teams(connection: sa.Connection) -> list[str]:
    """Return the teams that have a cost, sorted."""
    return sorted(connection.scalars(sa.select(spend.c.team).distinct()))


def sum_of_runs(connection: sa.Connection, run_ids: Sequence[str]) -> dict[str, float]:
    """Return the sum of each run that has a cost."""
    found = {}
    for part in _parts(run_ids):
        query = sa.select(spend.c.run_id, sa.func.sum(spend.c.amount).label("amount"))
        query = query.where(spend.c.run_id.in_(part)).group_by(spend.c.run_id)
        found |= {row.run_id: row.amount for row in connection.execute(query)}
    return found


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(names), _AT_ONCE):
        yield names[begin : begin + _AT_ONCE]


def _between(since: datetime, until: datetime, currency: str) -> list[sa.ColumnElement[bool]]:
    return [spend.c.ended_at >= since, spend.c.ended_at < until, spend.c.currency == currency]


def _sums() -> list[sa.ColumnElement[Any]]:
    return [
        sa.func.sum(spend.c.amount).label("amount"),
        sa.func.sum(spend.c.cores * spend.c.seconds).label("core_seconds"),
        sa.func.sum(spend.c.gpus * spend.c.seconds).label("gpu_seconds"),
        sa.func.count().label("steps"),
        sa.func.count(spend.c.run_id.distinct()).label("runs"),
    ]


def _spend(row: Any) -> Spend:
    return Spend(
        amount=row.amount,
        core_hours=row.core_seconds / 3600,
        gpu_hours=row.gpu_seconds / 3600,
        steps=row.steps,
        runs=row.runs,
    )
