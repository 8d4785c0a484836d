"""Reading and changing alerts on one connection; SQLAlchemy's errors pass through."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ml_assets.interfaces.alerts import Alert, RaisedAlert
from ml_assets.interfaces.names import PipelinePath
from resources.ledger.tables import alerts


def insert_alert(connection: sa.Connection, alert: Alert, now: datetime) -> bool:
    """Insert an alert unless one of its key is there; the caller keeps other writers out."""
    if _is_known(connection, alert.key):
        return False
    team, pipeline = alert.pipeline
    row = {"key": alert.key, "kind": alert.kind, "team": team, "pipeline": pipeline, "title": alert.title}
    row |= {"body": alert.body, "created_at": now, "attempts": 0, "not_before": now, "last_error": ""}
    connection.execute(alerts.insert(), row)
    return True


def read_pending(
    connection: sa.Connection,
    now: datetime,
    pipelines: Collection[PipelinePath] | None,
    channels: Collection[str] | None,
    limit: int,
) -> list[RaisedAlert]:
    """Return what is to be sent now of some pipelines over some channels (None for all), oldest first."""
    query = alerts.select().where(alerts.c.sent_at.is_(None), alerts.c.not_before <= now)
    if pipelines is not None:
        query = query.where(sa.tuple_(alerts.c.team, alerts.c.pipeline).in_(sorted(set(pipelines))))
    if channels is not None:
        # Not LIKE: on SQLite it takes capital letters for small ones.
        own = (sa.func.substr(alerts.c.key, 1, len(name) + 1) == f"{name}|" for name in sorted(set(channels)))
        query = query.where(sa.or_(sa.false(), *own))
    return _read(connection, query.order_by(alerts.c.number).limit(limit))


def read_recent(connection: sa.Connection, limit: int) -> list[RaisedAlert]:
    """Return the newest, newest first."""
    return _read(connection, alerts.select().order_by(alerts.c.number.desc()).limit(limit))


def mark_sent(connection: sa.Connection, key: str, now: datetime) -> bool:
    """Set when an alert arrived, unless it did already; whether there is such an alert."""
    change = alerts.update().where(alerts.c.key == key, alerts.c.sent_at.is_(None)).values(sent_at=now)
    return connection.execute(change).rowcount > 0 or _is_known(connection, key)


def mark_failed(connection: sa.Connection, key: str, error: str, not_before: datetime) -> bool:
    """Count a failed attempt, unless the alert arrived; whether there is such an alert."""
    change = alerts.update().where(alerts.c.key == key, alerts.c.sent_at.is_(None))
    change = change.values(attempts=alerts.c.attempts + 1, last_error=error, not_before=not_before)
    return connection.execute(change).rowcount > 0 or _is_known(connection, key)


def _is_known(connection: sa.Connection, key: str) -> bool:
    return connection.execute(sa.select(alerts.c.number).where(alerts.c.key == key)).first() is not None


def _read(connection: sa.Connection, query: sa.Select) -> list[RaisedAlert]:
    return [_raised(row) for row in connection.execute(query).mappings()]


def _raised(row: Mapping[Any, Any]) -> RaisedAlert:
    told = ("key", "kind", "title", "body")
    kept = ("created_at", "sent_at", "attempts", "not_before", "last_error")
    alert = Alert(pipeline=(row["team"], row["pipeline"]), **{name: row[name] for name in told})
    return RaisedAlert(alert=alert, **{name: row[name] for name in kept})
