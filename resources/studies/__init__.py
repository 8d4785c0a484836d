"""Hyperparameter studies by Optuna, beside the ledger: SQLite in one file, or Postgres."""

from resources.studies.sql_studies import SqlStudies

__all__ = ["SqlStudies"]
