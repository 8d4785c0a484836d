"""Trials of a search as MLflow runs nested in another run: each number once, whatever died in between."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ml_assets.interfaces import TrialRun
from resources.model_runs import fitting_params, log_files

if TYPE_CHECKING:
    import mlflow
    import mlflow.entities

PARENT_TAG = "mlflow.parentRunId"
NUMBER_TAG, STATE_TAG = "ml_assets.trial", "ml_assets.trial_state"
_STATUSES = {"completed": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


def log_trials(client: "mlflow.MlflowClient", run_id: str, trials: Sequence[TrialRun]) -> None:
    """Record trials below a run; those that are there and ended are left alone, half-written ones are completed."""
    experiment_id = client.get_run(run_id).info.experiment_id
    there = _nested(client, experiment_id, run_id, trials[0].number if len(trials) == 1 else None)
    for trial in trials:
        known = there.get(trial.number)
        if known is None or known.info.status == "RUNNING":
            _log(client, experiment_id, run_id, trial, None if known is None else known.info.run_id)


def _nested(
    client: "mlflow.MlflowClient", experiment_id: str, run_id: str, number: int | None
) -> "Mapping[int, mlflow.entities.Run]":
    """Return the trials that are recorded below a run, by number: one alone, or all."""
    wanted = f"tags.`{PARENT_TAG}` = '{run_id}'" + ("" if number is None else f" AND tags.`{NUMBER_TAG}` = '{number}'")
    found: dict[int, mlflow.entities.Run] = {}
    token = None
    while True:
        page = client.search_runs([experiment_id], wanted, page_token=token)
        found |= {int(run.data.tags[NUMBER_TAG]): run for run in page if NUMBER_TAG in run.data.tags}
        token = page.token
        if not token:
            return found


def _log(client: "mlflow.MlflowClient", experiment_id: str, parent: str, trial: TrialRun, run_id: str | None) -> None:
    from mlflow.entities import Metric, Param

    now_ms = time.time_ns() // 1_000_000
    if run_id is None:
        tags = {**trial.tags, PARENT_TAG: parent, NUMBER_TAG: str(trial.number), STATE_TAG: trial.state}
        start_ms = now_ms - round(1000 * trial.seconds)
        run_id = client.create_run(experiment_id, start_time=start_ms, run_name=trial.name, tags=tags).info.run_id
    params, files = fitting_params(trial.params)
    values = {**trial.metrics, "seconds": trial.seconds}
    metrics = [Metric(name, float(value), now_ms, 0) for name, value in values.items()]
    metrics += [Metric("report", float(value), now_ms, step) for step, value in trial.reports.items()]
    for begin in range(0, max(len(metrics), 1), _BATCH):
        batch = [Param(name, value) for name, value in params.items()] if begin == 0 else []
        client.log_batch(run_id, metrics=metrics[begin : begin + _BATCH], params=batch)
    log_files(client, run_id, files)
    client.set_terminated(run_id, _STATUSES[trial.state], end_time=now_ms)


_BATCH = 800
"""Metrics of one request; MLflow takes 1,000 values in all."""
