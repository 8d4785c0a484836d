"""Ends runs whose process is gone: killed or lost in a restart, they would stay in progress and keep pool slots."""

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from resources.run_processes import process_of

_IN_PROGRESS = [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def end_abandoned_runs(instance: DagsterInstance) -> list[str]:
    """Mark runs in progress whose process on this machine is gone as failed, free their pool slots, and return them.

    A run of which no process is known, or that another machine carries out, is left alone. A failed run can be
    executed again from where it stopped.
    """
    ended = []
    for record in instance.get_run_records(RunsFilter(statuses=_IN_PROGRESS)):
        run = record.dagster_run
        process = process_of(instance, run, record.create_timestamp.timestamp())
        if process is None or process.lives():
            continue
        instance.report_run_failed(
            run, f"The process of this run (pid {process.pid}) is gone, as after a kill or a restart of the machine."
        )
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        ended.append(run.run_id)
    return ended
