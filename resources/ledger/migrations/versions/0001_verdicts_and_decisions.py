"""Verdicts and decisions, append-only by triggers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create both tables, their indexes and the triggers that refuse changes."""
    op.create_table(
        "verdicts",
        *_first_columns(),
        *_texts("asset", "partition", "data_version", "policy_version", "check_name", "outcome", "severity"),
        *_texts("reason", "run_id"),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_verdicts_asset_partition_data_version_policy_version",
        "verdicts",
        ["asset", "partition", "data_version", "policy_version"],
    )
    op.create_table(
        "decisions",
        *_first_columns(),
        *_texts("team", "pipeline", "partition", "outcome", "reason", "model_name"),
        sa.Column("model_version", sa.Text()),
        sa.Column("champion_version", sa.Text()),
        *_texts("data_version", "policy_version", "run_id"),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_decisions_team_pipeline", "decisions", ["team", "pipeline"])
    if op.get_bind().dialect.name == "sqlite":
        _refuse_changes_sqlite()
    else:
        _refuse_changes_postgres()


def downgrade() -> None:
    """Refuse: a ledger does not forget."""
    raise NotImplementedError("The first revision of the ledger has nothing below it.")


def _first_columns() -> list[sa.Column]:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return [
        sa.Column("sequence", number, sa.Identity(always=True), primary_key=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
    ]


def _texts(*names: str) -> list[sa.Column]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _refuse_changes_sqlite() -> None:
    refuse = "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    for table in ("verdicts", "decisions"):
        op.execute(f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {refuse}")
        op.execute(f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {refuse}")
        # INSERT OR REPLACE deletes the old row without firing the trigger above.
        known = f"(SELECT sequence FROM {table})"  # noqa: S608 names of our own
        op.execute(f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN NEW.sequence IN {known} {refuse}")


def _refuse_changes_postgres() -> None:
    op.execute(
        "CREATE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the ledger is append-only: % on %', TG_OP, TG_TABLE_NAME; END $$"
    )
    for table in ("verdicts", "decisions"):
        op.execute(
            f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change()"
        )
        # ALWAYS: the triggers must hold in a session with session_replication_role = replica too.
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_no_change")
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_no_truncate")
