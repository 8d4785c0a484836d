"""What each attempt at a step cost its team."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table, empty; nothing that was recorded before changes."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "spend",
        sa.Column("sequence", number, sa.Identity(always=True), primary_key=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        *_texts("team", "pipeline", "run_id", "step_key"),
        sa.Column("attempt", sa.Integer(), nullable=False),
        *_texts("profile"),
        sa.Column("cores", sa.Integer(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=False) for name in ("seconds", "price_per_hour", "amount")),
        *_texts("currency"),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_spend_run_id_step_key_attempt", "spend", ["run_id", "step_key", "attempt"], unique=True)
    op.create_index("ix_spend_ended_at_team", "spend", ["ended_at", "team"])


def downgrade() -> None:
    """Refuse: what teams spent would be forgotten."""
    raise NotImplementedError("Spend cannot be taken back; restore a copy of the database from before instead.")


def _texts(*names: str) -> list[sa.Column]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]
