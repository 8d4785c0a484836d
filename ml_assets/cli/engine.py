"""Carries out planned runs through Dagster's engine, in a process of its own that prints one JSON line an event.

It runs apart from the command line because its steps are forked from it: it must have no thread, and the
progress bars have one.
"""

import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

RUN_PROCESS_TAG = "ml_assets/run_process"
"""Run tag: the host and process that carry a run out, so that a later start can tell that they are gone."""

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run to carry out.

    Attributes:
        module: Module of the code location, with `defs`.
        assets: Asset keys as text, such as "flights/arrival_delay/raw_data".
        first: Partition, or the first of a range.
        last: Last partition of the range; equal to `first` for one.
        title: For the progress bar.
        tags: Further run tags.
    """

    module: str
    assets: tuple[str, ...]
    first: str
    last: str
    title: str
    tags: dict[str, str] = field(default_factory=dict)


def carry_out(runs: Iterator[PlannedRun], root: Path, out: IO[str]) -> None:
    """Carry out runs in order; a failed run does not keep later ones from starting."""
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        for run in runs:
            _carry_out(run, root, instance, out)


def _carry_out(run: PlannedRun, root: Path, instance: Any, out: IO[str]) -> None:
    """Make Dagster's run of a planned one and report its steps as they end."""
    import dagster as dg
    from dagster._core.definitions.reconstruct import ReconstructableRepository  # noqa: TID251 - as dagster's CLI
    from dagster._core.execution.api import execute_run_iterator  # noqa: TID251 - as dagster's run worker

    repository = ReconstructableRepository.for_module(run.module, "defs", str(root))
    keys = {dg.AssetKey.from_user_string(a) for a in run.assets}
    job = repository.get_definition().get_implicit_job_def_for_assets(keys)
    if job is None:
        raise dg.DagsterInvariantViolationError(f"{sorted(run.assets)} cannot be materialized by one run.")
    if run.first == run.last:
        tags = job.get_tags_for_partition_key(run.first, selected_asset_keys=keys)
    else:
        tags = {RANGE_START: run.first, RANGE_END: run.last}
    recon = repository.get_reconstructable_job(job.name).get_subset(asset_selection=keys)
    dagster_run = instance.create_run_for_job(
        job_def=recon.get_definition(),
        asset_selection=keys,
        tags={**tags, **run.tags, RUN_PROCESS_TAG: f"{socket.gethostname()}:{os.getpid()}"},
        job_code_origin=recon.get_python_origin(),
    )
    _say(out, "run", title=run.title, run_id=dagster_run.run_id, steps=len(run.assets))
    failures: dict[str, str] = {}
    refusals: dict[str, list[str]] = {}
    for event in execute_run_iterator(recon, dagster_run, instance):
        if event.event_type_value == "ASSET_CHECK_EVALUATION":
            check = event.asset_check_evaluation_data
            if not check.passed and check.blocking:
                refusals.setdefault(event.step_key or "", []).append(
                    f"gate {check.check_name.replace('__', '.')}: {check.description}"
                )
        if event.is_step_success or event.is_step_failure or event.is_step_skipped:
            _say(out, "step", step=event.step_key, outcome=event.event_type_value.removeprefix("STEP_").lower())
        if event.is_step_failure and event.step_key:
            failures[event.step_key] = "; ".join(refusals.get(event.step_key, [])) or _message(event)
    status = instance.get_run_by_id(dagster_run.run_id).status.value
    _say(out, "end", run_id=dagster_run.run_id, status=status, failures=failures)


def _message(event: Any) -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else "the step failed"


def _say(out: IO[str], kind: str, **facts: Any) -> None:
    out.write(json.dumps({"kind": kind, **facts}) + "\n")
    out.flush()


def encode(run: PlannedRun) -> str:
    """Return a planned run as one line of JSON."""
    return json.dumps(asdict(run))


def decode(line: str) -> PlannedRun:
    """Return the planned run that `encode` wrote."""
    values = json.loads(line)
    return PlannedRun(**{**values, "assets": tuple(values["assets"])})


def main() -> None:
    """Read planned runs from standard input, one a line, until it ends."""
    # A plain `kill` ends the run as Ctrl-C does: its steps are stopped and it is recorded as cancelled.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Steps write to the inherited standard output; the events go to a copy of it that they do not know.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    carry_out((decode(line) for line in sys.stdin), Path(sys.argv[1]), events)
    gc.freeze()  # or Python destroys every object of every library one by one before it ends: seconds


if __name__ == "__main__":
    main()
