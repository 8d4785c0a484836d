"""The Dagster face of the stages: asset definitions, checks, partitions, and runs over one or many partitions."""
