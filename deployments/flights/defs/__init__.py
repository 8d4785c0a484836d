"""The pipelines of team flights, one folder each."""
