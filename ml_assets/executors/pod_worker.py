"""What runs in a step's pod: one step, as `dagster api execute_step` runs it, that leaves its end by signal to others.

`python -m ml_assets.executors.pod_worker` takes the arguments of a step from the variable in which Dagster passes them.
A pod that is evicted, preempted or cancelled gets SIGTERM. Dagster's own program then reports the step as failed, or
uses up one of its retries. Here the step stops, user code may clean up, and nothing is reported: the executor learns
from the cluster why the pod ended, and decides.

A step that does not hear it goes on until the pod's grace time is over and it is killed, while somebody waits for its
GPU. So it is heard from the beginning: Linux gives the first process of a container no SIGTERM that it has no handler
for, and importing Dagster takes seconds. It is heard as well where Python drops the exception that a handler raises.
"""

import base64
import os
import signal
import sys
import threading
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster import DagsterInstance
    from dagster_shared.error import SerializableErrorInfo

INTERRUPTED = 143
"""Exit code of a step that was told to stop, as of a process that SIGTERM ends."""
_INTERRUPTS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
_ARGUMENTS = "DAGSTER_COMPRESSED_EXECUTE_STEP_ARGS"
_AGAIN_SECONDS = 0.1
"""How long after a signal whose exception was dropped it is given again: what dropped it has ended then."""


def main() -> None:
    """Execute the step that Dagster's compressed arguments name, and end the process with its exit code."""
    signal.signal(signal.SIGTERM, _leave)
    from dagster._cli.api import _execute_step_command_body
    from dagster._cli.utils import get_instance_for_cli
    from dagster._grpc.types import ExecuteStepArgs
    from dagster._serdes import deserialize_value
    from dagster._utils.interrupts import capture_interrupts

    sys.unraisablehook = signal_again(sys.unraisablehook)
    step = os.environ.get(_ARGUMENTS)  # noqa: TID251 - as Dagster gives them to a step of its own
    if not step:
        sys.exit(f"{_ARGUMENTS} is not set; expected the arguments of a step, as the executor gives them to its pod.")
    with capture_interrupts():
        args = deserialize_value(zlib.decompress(base64.b64decode(step)).decode(), ExecuteStepArgs)
        with get_instance_for_cli(instance_ref=args.instance_ref) as instance:
            run = instance.get_run_by_id(args.run_id)
            if run is None:
                sys.exit(f"Run {args.run_id} is not in the instance that this pod opens.")
            withheld = withhold_interrupts(instance)
            try:
                for _ in _execute_step_command_body(args, instance, run):
                    pass
            except BaseException as error:
                if type(error).__name__ not in _INTERRUPTS:
                    raise
                withheld.append(error)
    sys.exit(INTERRUPTED if withheld else 0)


def _leave(number: int, frame: object) -> None:
    """End a process that has begun nothing yet; an exception might be dropped by the import that it comes into."""
    del number, frame
    os._exit(INTERRUPTED)


def signal_again(hook: Any) -> Any:
    """Return a `sys.unraisablehook` that gives a signal again whose exception Python could not raise.

    The handlers of a step raise an exception wherever the process is. In a finalizer or in a callback of a weak
    reference, as each import has one, Python prints it and goes on as if nothing had been.

    Args:
        hook: What is done beside it.
    """

    def hear(unraisable: Any) -> None:
        hook(unraisable)
        if unraisable.exc_type.__name__ in _INTERRUPTS:
            again = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGTERM))
            again.daemon = True
            again.start()

    return hear


def withhold_interrupts(instance: "DagsterInstance") -> list[Any]:
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


def is_interrupt(error: "SerializableErrorInfo") -> bool:
    """Return whether an error, or what caused it, is a signal to stop; also one that was raised while cleaning up."""
    found: SerializableErrorInfo | None = error
    while found is not None:
        if found.cls_name in _INTERRUPTS:
            return True
        found = found.cause or found.context
    return False


if __name__ == "__main__":
    main()
