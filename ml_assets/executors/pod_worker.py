"""What runs in a step's pod: one step, as `dagster api execute_step` runs it, that leaves its end by signal to others.

`python -m ml_assets.executors.pod_worker` takes the arguments of a step from the variable in which Dagster passes them.
A pod that is evicted, preempted or cancelled gets SIGTERM. Dagster's own program then reports the step as failed, or
uses up one of its retries. Here the step stops, user code may clean up, and nothing is reported: the executor learns
from the cluster why the pod ended, and decides.
"""

import base64
import sys
import zlib
from typing import Any

import click
from dagster import DagsterInstance
from dagster._cli.api import _execute_step_command_body
from dagster._cli.utils import get_instance_for_cli
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import deserialize_value
from dagster._utils.interrupts import capture_interrupts
from dagster_shared.error import SerializableErrorInfo

INTERRUPTED = 143
"""Exit code of a step that was told to stop, as of a process that SIGTERM ends."""
_INTERRUPTS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")


@click.command()
@click.option("--step", envvar="DAGSTER_COMPRESSED_EXECUTE_STEP_ARGS", required=True)
def main(step: str) -> None:
    """Execute the step that Dagster's compressed arguments name."""
    with capture_interrupts():
        args = deserialize_value(zlib.decompress(base64.b64decode(step)).decode(), ExecuteStepArgs)
        with get_instance_for_cli(instance_ref=args.instance_ref) as instance:
            run = instance.get_run_by_id(args.run_id)
            if run is None:
                raise click.ClickException(f"Run {args.run_id} is not in the instance that this pod opens.")
            withheld = withhold_interrupts(instance)
            try:
                for _ in _execute_step_command_body(args, instance, run):
                    pass
            except BaseException as error:
                if type(error).__name__ not in _INTERRUPTS:
                    raise
                withheld.append(error)
    sys.exit(INTERRUPTED if withheld else 0)


def withhold_interrupts(instance: DagsterInstance) -> list[Any]:
    """Keep failures and retries that come from a signal out of the instance's log; return the list they go to."""
    withheld: list[Any] = []
    store = instance.should_store_event

    def should_store_event(entry: Any) -> bool:
        event = entry.dagster_event
        error = None
        if event is not None and event.is_step_failure:
            error = event.step_failure_data.error
        elif event is not None and event.is_step_up_for_retry:
            error = event.step_retry_data.error
        if error is not None and is_interrupt(error):
            withheld.append(event)
            return False
        return store(entry)

    instance.should_store_event = should_store_event  # type: ignore[method-assign]
    return withheld


def is_interrupt(error: SerializableErrorInfo) -> bool:
    """Return whether an error, or what caused it, is a signal to stop; also one that was raised while cleaning up."""
    found: SerializableErrorInfo | None = error
    while found is not None:
        if found.cls_name in _INTERRUPTS:
            return True
        found = found.cause or found.context
    return False


if __name__ == "__main__":
    main()
