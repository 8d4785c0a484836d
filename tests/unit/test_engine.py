"""Planned runs travel to the engine process as lines."""

import os

from ml_assets.cli.engine import PlannedRun, decode, encode


def test_a_planned_run_survives_its_line() -> None:
    run = PlannedRun(module="m", assets=("a/b",), first="x|1", last="x|2", title="t ☂", tags={"k": os.sep})

    assert decode(encode(run)) == run
    assert "\n" not in encode(run)
