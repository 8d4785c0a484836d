"""A code location whose runs are launched as pods: those pods start the pods of their steps."""

import os
from pathlib import Path

from dagster import Definitions

from tests.kubernetes.pod_jobs import two_worlds

# The run launcher gives every pod its home; where the location is only looked at, nothing is written.
_NOTES = Path(os.environ.get("DAGSTER_HOME", "home")).parent / "notes"

defs = Definitions(jobs=[two_worlds(str(_NOTES))])
