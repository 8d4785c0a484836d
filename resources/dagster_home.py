"""Makes a directory a complete Dagster home before any service opens it."""

import fcntl
import json
import os
from pathlib import Path

from dagster import DagsterInstance

LOCAL_INSTANCE = Path(__file__).parent.parent / "deployments" / "local" / "dagster.yaml"
"""The instance configuration of one machine."""

_HOME_VARIABLE = "{env: DAGSTER_HOME}"


def initialise_home(home: Path, config: Path = LOCAL_INSTANCE) -> None:
    """Write dagster.yaml into a home and create its databases; doing so again changes nothing.

    Two services that open a fresh SQLite home at once ruin it. Call this first; it may be called by several
    processes at the same time (one works, the others wait).

    Args:
        home: Directory for DAGSTER_HOME; made when missing.
        config: Instance configuration to copy, with `{env: DAGSTER_HOME}` replaced by the home's path: a
            process that opens the directory without that variable then finds the same instance.
    """
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    wanted = config.read_text(encoding="utf-8").replace(_HOME_VARIABLE, json.dumps(str(home)))
    with (home / ".initialise.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        target = home / "dagster.yaml"
        if not target.exists() or target.read_text(encoding="utf-8") != wanted:
            draft = home / f".dagster.yaml.{os.getpid()}"
            draft.write_text(wanted, encoding="utf-8")
            draft.replace(target)
        with DagsterInstance.from_config(str(home)):
            pass
