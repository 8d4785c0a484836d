"""A code location with one asset that does nothing, for runs whose cost is that of starting them."""

import dagster as dg

from ml_assets.executors.warm_executor import warm_executor


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["JFK|2013-01"]))
def light() -> None:
    """Do nothing."""


defs = dg.Definitions(assets=[light], executor=warm_executor)
