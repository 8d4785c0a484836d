"""The ledger's tables as SQLAlchemy sees them; the migrations make them, a test compares the two."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from ml_assets.ledger_rows import Kind

REVISIONS = ("0001", "0002")
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
