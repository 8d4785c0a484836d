"""Alembic's entry: runs the migrations in the transaction that `resources.ledger.schema` opened."""

from alembic import context

from resources.ledger.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
