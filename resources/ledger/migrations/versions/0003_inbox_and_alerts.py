"""The event inbox and the alerts: rows that are changed as they move on, outside of the hash chains."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_EVENT_INDEXES = (
    ("state", "team", "pipeline", "partition"),
    ("state", "number"),
    ("batch",),
    ("team", "pipeline", "source", "key", "number"),
    ("team", "pipeline", "source", "place", "number"),
    ("team", "pipeline", "source", "received_at"),
)


def upgrade() -> None:
    """Create the tables, empty; nothing that was recorded before changes."""
    _create_events()
    op.create_table(
        "inbox_batches",
        sa.Column("name", sa.Text(), primary_key=True),
        *_texts("team", "pipeline"),
        sa.Column("run_id", sa.Text()),
        *_instants("claimed_at", "leased_until"),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "inbox_counts",
        *(sa.Column(name, sa.Text(), primary_key=True) for name in ("team", "pipeline", "state")),
        sa.Column("events", sa.BigInteger(), nullable=False),
    )
    counters = op.create_table(
        "inbox_counters",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("value", sa.BigInteger(), nullable=False),
    )
    op.bulk_insert(counters, [{"name": "events", "value": 0}, {"name": "changes", "value": 0}])
    _create_alerts()
    op.create_table(
        "ledger_marks",
        sa.Column("stream", sa.Text(), primary_key=True),
        sa.Column("appends", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    """Refuse: events that wait would be lost."""
    raise NotImplementedError("The inbox cannot be taken back; restore a copy of the database from before instead.")


def _create_events() -> None:
    op.create_table(
        "inbox_events",
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        *_texts("team", "pipeline", "source", "key", "partition", "place"),
        sa.Column("payload", sa.JSON(), nullable=False),
        *_texts("state"),
        *_instants("received_at", "seen_at"),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        *_instants("not_before"),
        sa.Column("batch", sa.Text()),
        sa.Column("run_id", sa.Text()),
        *_texts("reason", "traceback"),
    )
    for columns in _EVENT_INDEXES:
        op.create_index(f"ix_inbox_events_{'_'.join(columns)}", "inbox_events", list(columns))


def _create_alerts() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "alerts",
        sa.Column("number", number, sa.Identity(), primary_key=True),
        *_texts("key", "kind", "team", "pipeline", "title", "body"),
        *_instants("created_at"),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        *_instants("not_before"),
        *_texts("last_error"),
    )
    op.create_index("ix_alerts_key", "alerts", ["key"], unique=True)
    op.create_index("ix_alerts_sent_at_not_before", "alerts", ["sent_at", "not_before"])


def _texts(*names: str) -> list[sa.Column]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _instants(*names: str) -> list[sa.Column]:
    return [sa.Column(name, sa.DateTime(timezone=True), nullable=False) for name in names]
