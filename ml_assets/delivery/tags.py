"""The run tags by which a batch of events and its run know each other."""

BATCH_TAG = "ml_assets/batch"
"""Run tag: the batch that a run carries; such a run asks the inbox before it works."""
AFTER_BATCH_TAG = "ml_assets/after_batch"
"""Run tag: the batch whose partitions a run scores and watches."""
AFTER_PROMOTION_TAG = "ml_assets/after_promotion"
"""Run tag: the pipeline whose partitions a run scores that came before it had a champion."""
RUN_KEY_TAG = "dagster/run_key"
"""Dagster's own tag of a sensor's run key; a batch's name is its run's key."""
RANGE_START_TAG, RANGE_END_TAG = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
FAILED_PARTITIONS = "ml_assets/failed_partitions"
"""Metadata of a step's failure: partition → what went wrong with it (see `failed_partition`)."""
SENSOR = "arrivals"
"""The sensor whose runs these are, whoever submits them: Dagster looks a run's key up among the sensor's runs."""


def job_name(partitions_identifier: str) -> str:
    """Return the name of the job that runs the batches of all pipelines of one kind of data partitions."""
    return f"{SENSOR}_{partitions_identifier[:8]}"
