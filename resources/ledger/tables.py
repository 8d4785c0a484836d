"""The ledger's tables as SQLAlchemy sees them; the migrations make them, a test compares the two."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from ml_assets.ledger_rows import Kind

REVISIONS = ("0001", "0002", "0003", "0004")
"""Every schema revision of this release, oldest first; kept here so that opening need not import Alembic."""

VERSION_TABLE = "ledger_version"
"""Not Alembic's default name: Dagster and MLflow use that one, and may share the database."""


class UtcTimestamp(sa.TypeDecorator[datetime]):
    """A time zone aware instant in UTC on every database; SQLite keeps it as text without a zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Convert to UTC; SQLite's own type would drop the offset without converting."""
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Attach UTC (SQLite), or convert from the session's zone (Postgres)."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


metadata = sa.MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"})


def _first_columns() -> list[sa.Column[Any]]:
    """Return the order of recording, which the database counts without using a number twice, and the instant."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return [
        sa.Column("sequence", number, sa.Identity(always=True), primary_key=True),
        sa.Column("recorded_at", UtcTimestamp(), nullable=False),
    ]


def _texts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _chain() -> list[sa.Column[Any] | sa.Index]:
    """Return the columns that hold a row in its place of its stream; the index gives a stream's last row at once."""
    return [
        *_texts("stream"),
        sa.Column("position", sa.BigInteger(), nullable=False),
        *_texts("previous_hash", "row_hash"),
        sa.Index(None, "stream", "position", unique=True),
    ]


verdicts = sa.Table(
    "verdicts",
    metadata,
    *_first_columns(),
    *_texts("asset", "partition", "data_version", "policy_version", "check_name", "outcome", "severity"),
    *_texts("reason", "run_id"),
    sa.Column("evidence", sa.JSON(), nullable=False),
    *_texts("policy_digest"),
    *_chain(),
    sa.Index(None, "asset", "partition", "data_version", "policy_version"),
    sqlite_autoincrement=True,
)

decisions = sa.Table(
    "decisions",
    metadata,
    *_first_columns(),
    *_texts("team", "pipeline", "partition", "outcome", "reason", "model_name"),
    sa.Column("model_version", sa.Text()),
    sa.Column("champion_version", sa.Text()),
    *_texts("data_version", "policy_version", "run_id"),
    sa.Column("evidence", sa.JSON(), nullable=False),
    *_texts("model_digest", "evaluation_digest", "policy_digest", "decided_by"),
    sa.Column("launched_by", sa.JSON(), nullable=False),
    *_chain(),
    sa.Index(None, "team", "pipeline"),
    sqlite_autoincrement=True,
)

records = sa.Table(
    "records",
    metadata,
    *_first_columns(),
    *_texts("team", "pipeline", "kind", "subject"),
    sa.Column("body", sa.JSON(), nullable=False),
    *_chain(),
    sa.Index(None, "team", "pipeline", "kind", "subject"),
    sqlite_autoincrement=True,
)

TABLES: Mapping[Kind, sa.Table] = {"decisions": decisions, "records": records, "verdicts": verdicts}
"""Every table by the first segment of its streams' names."""

ledger_marks = sa.Table(
    "ledger_marks",
    metadata,
    sa.Column("stream", sa.Text(), primary_key=True),
    sa.Column("appends", sa.BigInteger(), nullable=False),
)
"""How often was appended to each stream since this table is there; their sum tells whether anything was."""

inbox_events = sa.Table(
    "inbox_events",
    metadata,
    sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
    *_texts("team", "pipeline", "source", "key", "partition", "place"),
    sa.Column("payload", sa.JSON(), nullable=False),
    *_texts("state"),
    sa.Column("received_at", UtcTimestamp(), nullable=False),
    sa.Column("seen_at", UtcTimestamp(), nullable=False),
    sa.Column("repeats", sa.Integer(), nullable=False),
    sa.Column("attempts", sa.Integer(), nullable=False),
    sa.Column("not_before", UtcTimestamp(), nullable=False),
    sa.Column("batch", sa.Text()),
    sa.Column("run_id", sa.Text()),
    *_texts("reason", "traceback"),
    sa.Index(None, "state", "team", "pipeline", "partition"),
    sa.Index(None, "state", "number"),
    sa.Index(None, "batch"),
    sa.Index(None, "team", "pipeline", "source", "key", "number"),
    sa.Index(None, "team", "pipeline", "source", "place", "number"),
    sa.Index(None, "team", "pipeline", "source", "received_at"),
)
"""Events from outside; unlike the tables above, their rows are changed as the events move on."""

inbox_batches = sa.Table(
    "inbox_batches",
    metadata,
    sa.Column("name", sa.Text(), primary_key=True),
    *_texts("team", "pipeline"),
    sa.Column("run_id", sa.Text()),
    sa.Column("claimed_at", UtcTimestamp(), nullable=False),
    sa.Column("leased_until", UtcTimestamp(), nullable=False),
    sa.Column("ended_at", UtcTimestamp()),
)
"""Every batch there was: its name is a run's key, and is never used twice."""

inbox_counts = sa.Table(
    "inbox_counts",
    metadata,
    *(sa.Column(name, sa.Text(), primary_key=True) for name in ("team", "pipeline", "state")),
    sa.Column("events", sa.BigInteger(), nullable=False),
)
"""How many events each pipeline has in each state: counting a million finished ones would take a second."""

inbox_counters = sa.Table(
    "inbox_counters",
    metadata,
    sa.Column("name", sa.Text(), primary_key=True),
    sa.Column("value", sa.BigInteger(), nullable=False),
)
"""Two numbers: "events", the last event's, and "changes", which moves with every change of the inbox."""

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), primary_key=True),
    *_texts("key", "kind", "team", "pipeline", "title", "body"),
    sa.Column("created_at", UtcTimestamp(), nullable=False),
    sa.Column("sent_at", UtcTimestamp()),
    sa.Column("attempts", sa.Integer(), nullable=False),
    sa.Column("not_before", UtcTimestamp(), nullable=False),
    *_texts("last_error"),
    sa.Index(None, "key", unique=True),
    sa.Index(None, "sent_at", "not_before"),
)

spend = sa.Table(
    "spend",
    metadata,
    *_first_columns(),
    *_texts("team", "pipeline", "run_id", "step_key"),
    sa.Column("attempt", sa.Integer(), nullable=False),
    *_texts("profile"),
    sa.Column("cores", sa.Integer(), nullable=False),
    sa.Column("gpus", sa.Integer(), nullable=False),
    *(sa.Column(name, sa.Double(), nullable=False) for name in ("seconds", "price_per_hour", "amount")),
    *_texts("currency"),
    sa.Column("ended_at", UtcTimestamp(), nullable=False),
    sa.Index(None, "run_id", "step_key", "attempt", unique=True),
    sa.Index(None, "ended_at", "team"),
    sqlite_autoincrement=True,
)
"""What each attempt at a step cost its team; rows are added and never changed, outside of the hash chains."""
