"""When things run: sensors over all pipelines of a code location.

There is none in this release: runs are started by a person, on the command line or in the Dagster UI. A sensor is
written here, takes what it needs as Dagster resources, and is attached by a team's `definitions.py`. Like `resources`,
this package imports `ml_assets` alone.
"""
