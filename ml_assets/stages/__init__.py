"""What each asset does for one partition, over the interfaces alone; Dagster is not known here."""
