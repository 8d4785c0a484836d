"""The ledger on a SQL database: SQLite in one file, or Postgres."""

from resources.ledger.sql_ledger import SqlLedger

__all__ = ["SqlLedger"]
