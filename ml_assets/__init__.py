"""Governed machine-learning pipelines as Dagster assets."""
