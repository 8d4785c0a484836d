"""The ledger's tables as SQLAlchemy sees them; the migrations make them, a test compares the two."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

REVISIONS = ("0001",)
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


def _sequence() -> sa.Column[Any]:
    """Return the order of recording; the database counts, and no number is used twice."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("sequence", number, sa.Identity(always=True), primary_key=True)


verdicts = sa.Table(
    "verdicts",
    metadata,
    _sequence(),
    sa.Column("recorded_at", UtcTimestamp(), nullable=False),
    sa.Column("asset", sa.Text(), nullable=False),
    sa.Column("partition", sa.Text(), nullable=False),
    sa.Column("data_version", sa.Text(), nullable=False),
    sa.Column("policy_version", sa.Text(), nullable=False),
    sa.Column("check_name", sa.Text(), nullable=False),
    sa.Column("outcome", sa.Text(), nullable=False),
    sa.Column("severity", sa.Text(), nullable=False),
    sa.Column("reason", sa.Text(), nullable=False),
    sa.Column("run_id", sa.Text(), nullable=False),
    sa.Column("evidence", sa.JSON(), nullable=False),
    sa.Index(None, "asset", "partition", "data_version", "policy_version"),
    sqlite_autoincrement=True,
)

decisions = sa.Table(
    "decisions",
    metadata,
    _sequence(),
    sa.Column("recorded_at", UtcTimestamp(), nullable=False),
    sa.Column("team", sa.Text(), nullable=False),
    sa.Column("pipeline", sa.Text(), nullable=False),
    sa.Column("partition", sa.Text(), nullable=False),
    sa.Column("outcome", sa.Text(), nullable=False),
    sa.Column("reason", sa.Text(), nullable=False),
    sa.Column("model_name", sa.Text(), nullable=False),
    sa.Column("model_version", sa.Text()),
    sa.Column("champion_version", sa.Text()),
    sa.Column("data_version", sa.Text(), nullable=False),
    sa.Column("policy_version", sa.Text(), nullable=False),
    sa.Column("run_id", sa.Text(), nullable=False),
    sa.Column("evidence", sa.JSON(), nullable=False),
    sa.Index(None, "team", "pipeline"),
    sqlite_autoincrement=True,
)
