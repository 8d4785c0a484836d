"""The pipelines of team births, one folder each."""
