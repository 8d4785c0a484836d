"""Hash chains over verdicts and decisions, what decisions are bound to, and the table of records."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from ml_assets.chain import continued
from ml_assets.interfaces import ChainHead
from ml_assets.ledger_rows import CHAIN_COLUMNS, Kind, Row
from resources.ledger.tables import UtcTimestamp

revision = "0002"
down_revision = "0001"

_BATCH_ROWS = 2000
_BOUND_TO: dict[Kind, dict[str, str]] = {
    "verdicts": {"policy_digest": ""},
    "decisions": {"model_digest": "", "evaluation_digest": "", "policy_digest": "", "decided_by": "pipeline"},
}
"""Texts that the tables gain, with what older rows have there."""


def upgrade() -> None:
    """Add the columns, chain the rows there are in the order of recording, and refuse changes again."""
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for table, texts in _BOUND_TO.items():
        _drop_triggers(table, on_sqlite)
        for name, before in texts.items():
            _add_column(table, name, sa.Text(), before)
        if table == "decisions":
            _add_column(table, "launched_by", sa.JSON(), "[]")
        for name, kind, before in _chain_columns():
            _add_column(table, name, kind, before)
        _chain_rows(table)
        if not on_sqlite:  # SQLite cannot drop a default; there the trigger refuses a row that stays at it
            for name in (*texts, *(["launched_by"] if table == "decisions" else []), *_names(_chain_columns())):
                op.alter_column(table, name, server_default=None)
    _create_records()
    for table in ("verdicts", "decisions", "records"):
        op.create_index(f"ix_{table}_stream_position", table, ["stream", "position"], unique=True)
        (_refuse_changes_sqlite if on_sqlite else _refuse_changes_postgres)(table)


def downgrade() -> None:
    """Refuse: without the hashes nobody could tell what happened to the rows."""
    raise NotImplementedError("The ledger's hash chains cannot be taken back; restore a copy from before instead.")


def _chain_columns() -> list[tuple[str, Any, str]]:
    texts = [(name, sa.Text(), "") for name in ("stream", "previous_hash", "row_hash")]
    return [*texts, ("position", sa.BigInteger(), "0")]


def _names(columns: list[tuple[str, Any, str]]) -> list[str]:
    return [name for name, _, _ in columns]


def _add_column(table: str, name: str, kind: Any, before: str) -> None:
    op.add_column(table, sa.Column(name, kind, nullable=False, server_default=before))


def _chain_rows(kind: Kind) -> None:
    """Give every row its place and hashes."""
    connection = op.get_bind()
    table = sa.Table(kind, sa.MetaData(), autoload_with=connection)
    heads: dict[str, ChainHead] = {}
    place = {name: sa.bindparam(f"new_{name}") for name in ("stream", "position", "previous_hash", "row_hash")}
    change = table.update().where(table.c.sequence == sa.bindparam("of")).values(place)
    for rows in _batches(connection, table):
        chained = continued(kind, [{k: v for k, v in row.items() if k not in CHAIN_COLUMNS} for row in rows], heads)
        for row in chained:
            heads[row["stream"]] = ChainHead(position=row["position"], row_hash=row["row_hash"])
        connection.execute(
            change,
            [
                {"of": old["sequence"], **{f"new_{name}": new[name] for name in place}}
                for old, new in zip(rows, chained, strict=True)
            ],
        )


def _batches(connection: sa.Connection, table: sa.Table) -> Iterator[list[Row]]:
    """Yield all rows in the order of recording, some thousands at a time, with instants in UTC."""
    columns = [c if c.name != "recorded_at" else sa.type_coerce(c, UtcTimestamp()).label(c.name) for c in table.c]
    last = 0
    while True:
        query = sa.select(*columns).where(table.c.sequence > last).order_by(table.c.sequence).limit(_BATCH_ROWS)
        rows = [dict(row) for row in connection.execute(query).mappings()]
        if not rows:
            return
        yield rows
        last = rows[-1]["sequence"]


def _create_records() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    texts = [sa.Column(name, sa.Text(), nullable=False) for name in ("team", "pipeline", "kind", "subject")]
    op.create_table(
        "records",
        sa.Column("sequence", number, sa.Identity(always=True), primary_key=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        *texts,
        sa.Column("body", sa.JSON(), nullable=False),
        *(sa.Column(name, kind, nullable=False) for name, kind, _ in _chain_columns()),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_records_team_pipeline_kind_subject", "records", ["team", "pipeline", "kind", "subject"])


def _drop_triggers(table: str, on_sqlite: bool) -> None:
    if on_sqlite:
        for change in ("update", "delete", "replace"):
            op.execute(f"DROP TRIGGER {table}_no_{change}")
    else:
        op.execute(f"DROP TRIGGER {table}_no_change ON {table}")
        op.execute(f"DROP TRIGGER {table}_no_truncate ON {table}")


def _refuse_changes_sqlite(table: str) -> None:
    refuse = "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    op.execute(f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {refuse}")
    op.execute(f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {refuse}")
    # INSERT OR REPLACE deletes the rows in its way without firing the trigger above; a row in the way has the
    # sequence or the place. A program that knows no chains leaves the position at 0, which follows nothing.
    last = f"(SELECT COALESCE(MAX(position), 0) FROM {table} WHERE stream = NEW.stream)"  # noqa: S608 our own names
    known = f"EXISTS (SELECT 1 FROM {table} WHERE sequence = NEW.sequence)"  # noqa: S608 names of our own
    op.execute(
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
        f"WHEN {known} OR NEW.position IS NOT {last} + 1 {refuse}"
    )


def _refuse_changes_postgres(table: str) -> None:
    changes = {"change": ("UPDATE OR DELETE", "ROW"), "truncate": ("TRUNCATE", "STATEMENT")}
    for name, (events, level) in changes.items():
        op.execute(
            f"CREATE TRIGGER {table}_no_{name} BEFORE {events} ON {table} "
            f"FOR EACH {level} EXECUTE FUNCTION ledger_refuse_change()"
        )
        # ALWAYS: the triggers must hold in a session with session_replication_role = replica too.
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_no_{name}")
