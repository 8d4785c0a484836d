"""The model registry on MLflow: runs, skops model files, registered versions and aliases."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.errors import RegistryError
from ml_assets.interfaces import LoggedModel, ModelRun, ModelVersion, TrialRun
from resources.mlflow_connection import MlflowConnection
from resources.model_files import MODEL_FILE, model_digest, read_model, write_model
from resources.model_runs import (
    add_tags,
    check_metrics,
    create_registered_model,
    fitting_params,
    is_running,
    log_datasets,
    log_files,
    log_values,
    model_version,
    open_run,
    set_tags,
    upload_model,
    versions_of_run,
)
from resources.stored_models import DIGEST_TAG, StoredModel, find_model
from resources.trial_runs import log_trials

if TYPE_CHECKING:
    import mlflow
    import pandas as pd

# What a process should have in its environment before it imports MLflow: nothing reported, nothing printed.
QUIET_ENVIRONMENT: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class MlflowRegistry:
    """Implements `ml_assets.interfaces.ModelRegistry` with MLflow, on SQLite and a folder or on a server.

    Nothing global is set: no tracking URI, no active run, no environment variable. Steps may be forked
    from a process that has used the registry: no database connection crosses a fork. Reporting, progress bars
    and printed links can only be switched off in the environment: see `QUIET_ENVIRONMENT`.

    Args:
        tracking_uri: `sqlite:///…/mlflow.db`, or `http(s)://…` of an MLflow server.
        artifact_root: Folder or URI below which each experiment has a folder of its own; with a server
            None leaves the place to the server.

    Raises:
        RegistryError: If the URI is of another kind, or SQLite is given without an artifact root.
    """

    def __init__(self, tracking_uri: str, artifact_root: str | None) -> None:
        self._connection = MlflowConnection(tracking_uri)
        if self._connection.database is not None and artifact_root is None:
            raise RegistryError(
                f"{tracking_uri} has no artifact root; expected a folder or URI for model files, "
                "since SQLite holds only their records."
            )
        self._artifact_root = artifact_root

    def __repr__(self) -> str:
        return f"MlflowRegistry({self._connection.shown_uri!r}, {self._artifact_root!r})"

    def initialise(self) -> None:
        """Create the SQLite database, once, however many processes ask; a millisecond when it exists."""
        self._connection.initialise()

    def log_model(self, run: ModelRun) -> LoggedModel:
        """Record one run with its model; the model is written with skops.

        Raises:
            RegistryError: If a metric is not a finite number, the model cannot be written without pickle or
                holds an undeclared type (nothing has been recorded then), or MLflow refuses a value.
        """
        check_metrics(run.metrics, f"run {run.name!r}")
        with tempfile.TemporaryDirectory() as folder, self._connection.explained(f"log run {run.name!r}"):
            path = Path(folder) / "model"
            description = write_model(run, path)
            digest = model_digest((path / MODEL_FILE).read_bytes())
            client = self._connection.client()
            experiment_id = self._experiment_id(client, run.experiment)
            if run.run_id:
                add_tags(client, run.run_id, run.tags)
            run_id = run.run_id or client.create_run(experiment_id, run_name=run.name, tags=dict(run.tags)).info.run_id
            try:
                params, files = fitting_params(run.params)
                log_datasets(client, run_id, run.inputs)
                model = client.create_logged_model(
                    experiment_id, "model", run_id, {**run.tags, DIGEST_TAG: digest}, params
                )
                log_values(client, run_id, run.metrics, params, model.model_id)
                log_files(client, run_id, files)
                upload_model(client, model, description, run_id, path)
            except BaseException:
                client.set_terminated(run_id, "FAILED")
                raise
            client.set_terminated(run_id)
        return LoggedModel(run_id=run_id, model_uri=f"models:/{model.model_id}")

    def start_run(
        self, experiment: str, name: str, *, tags: Mapping[str, str], continues: str = "", once: Sequence[str] = ()
    ) -> str:
        """Return the id of a run that goes on: of `continues` while that does, one with the same tags, or a new one."""
        with self._connection.explained(f"start run {name!r}"):
            client = self._connection.client()
            if continues and is_running(client, continues):
                return continues
            experiment_id = self._experiment_id(client, experiment)
            left_open = open_run(client, experiment_id, {tag: tags[tag] for tag in once})
            return left_open or client.create_run(experiment_id, run_name=name, tags=dict(tags)).info.run_id

    def fail_run(self, run_id: str) -> None:
        """End a run that was started, as failed; raises RegistryError when there is none."""
        with self._connection.explained(f"end run {run_id}"):
            self._connection.client().set_terminated(run_id, "FAILED")

    def log_trials(self, run_id: str, trials: Sequence[TrialRun]) -> None:
        """Record trials as runs nested in a run; a number that is there whole stays as it is.

        Raises:
            RegistryError: If a metric is not a finite number, or there is no such run.
        """
        for trial in trials:
            check_metrics({**trial.metrics, **{f"report {k}": v for k, v in trial.reports.items()}}, trial.name)
        with self._connection.explained(f"record trials below run {run_id}"):
            log_trials(self._connection.client(), run_id, trials)

    def log_results(self, run_id: str, *, metrics: Mapping[str, float], files: Mapping[str, bytes]) -> None:
        """Add metrics (to the run and to its model) and artefact files to a run.

        Raises:
            RegistryError: If a metric is not a finite number, a path leaves the run, or there is no such run.
        """
        check_metrics(metrics, f"run {run_id}")
        with self._connection.explained(f"add results to run {run_id}"):
            client = self._connection.client()
            outputs = client.get_run(run_id).outputs
            models = outputs.model_outputs if outputs else []
            log_values(client, run_id, metrics, {}, models[0].model_id if models else None)
            log_files(client, run_id, files)

    def load(self, model_uri: str, *, trusted_types: Sequence[str] = (), digest: str | None = None) -> Any:
        """Return the fitted estimator at `models:/m-<id>`, `models:/<name>/<version>` or `…/<name>@<alias>`.

        The description is read first; the model's file is only opened when that says skops and nothing but
        skops, its SHA-256 is the expected one, and all its types are trusted. A given digest alone decides what
        is expected: the tag in MLflow, which anyone who writes to it can change, is then not asked.

        Raises:
            RegistryError: If it does not exist, is no skops model, was changed, or holds a type not trusted.
        """
        stored = self.stored(model_uri)
        return read_model(
            model_uri,
            stored.model_file(),
            digest=stored.recorded_digest if digest is None else digest,
            trusted_types=trusted_types,
        )

    def digest(self, model_uri: str) -> str:
        """Return the SHA-256 of the skops file's bytes as they are now, whatever MLflow's tag says.

        Raises:
            RegistryError: If it does not exist, or is no skops model.
        """
        return model_digest(self.stored(model_uri).model_file())

    def example(self, model_uri: str) -> "pd.DataFrame":
        """Return the input example with the types of the signature, its rows numbered from 0.

        Raises:
            RegistryError: If the model does not exist, or has no example that is a table.
        """
        return self.stored(model_uri).example()

    def stored(self, model_uri: str) -> StoredModel:
        """Return the model's folder, to read several things of it; raises RegistryError when there is none."""
        return find_model(self._connection, model_uri)

    def register(self, name: str, model: LoggedModel, *, tags: Mapping[str, str]) -> ModelVersion:
        """Return the version of this model's run, creating it when there is none, and set its tags.

        MLflow has no unique key on (name, run). When two processes create a version of one run at once, each
        looks again afterwards and withdraws its own unless it is the lowest, so one version remains.

        Raises:
            RegistryError: If the name is not valid, or the model is not known.
        """
        if not re.fullmatch(r"[\w\-. ]+", name):
            raise RegistryError(
                f"{name!r} cannot name a registered model; expected letters, digits, '_', '-', '.' and "
                "spaces, such as 'flights.arrival_delay'."
            )
        with self._connection.explained(f"register {model.model_uri} as {name!r}"):
            client = self._connection.client()
            versions = versions_of_run(client, name, model.run_id)
            if not versions:
                create_registered_model(client, name)
                # The address models:/m-… would be looked up at MLflow's global tracking URI.
                model_id = model.model_uri.removeprefix("models:/")
                source = client.get_logged_model(model_id).artifact_location
                own = client.create_model_version(
                    name, source, model.run_id, dict(tags), await_creation_for=0, model_id=model_id
                )
                versions = versions_of_run(client, name, model.run_id)
                if int(own.version) != versions[0]:
                    client.delete_model_version(name, str(own.version))
            kept = client.get_model_version(name, str(versions[0]))
            set_tags(client, kept, tags)
            return model_version(client.get_model_version(name, str(versions[0])))

    def version(self, name: str, version: str) -> ModelVersion:
        """Return one version; raises RegistryError when there is none."""
        with self._connection.explained(f"read version {version} of {name!r}"):
            return model_version(self._connection.client().get_model_version(name, version))

    def version_by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """Return the version under an alias, or None when the model or the alias does not exist."""
        from mlflow.exceptions import MlflowException

        with self._connection.explained(f"read alias {alias!r} of {name!r}"):
            try:
                return model_version(self._connection.client().get_model_version_by_alias(name, alias))
            except MlflowException as error:
                # An alias that is not set is an invalid parameter to MLflow, a missing model is its own code.
                unset = f"alias {alias} not found" in error.message
                if unset or error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version; raises RegistryError when there is no such version."""
        with self._connection.explained(f"set alias {alias!r} of {name!r} to version {version}"):
            self._connection.client().set_registered_model_alias(name, alias, version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias; nothing happens when it is not set, or there is no such model."""
        from mlflow.exceptions import MlflowException

        with self._connection.explained(f"delete alias {alias!r} of {name!r}"):
            try:
                self._connection.client().delete_registered_model_alias(name, alias)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise

    def set_version_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version; others stay. Raises RegistryError when there is no such version."""
        with self._connection.explained(f"set tags of version {version} of {name!r}"):
            client = self._connection.client()
            set_tags(client, client.get_model_version(name, version), tags)

    def _experiment_id(self, client: "mlflow.MlflowClient", name: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return client.create_experiment(name, artifact_location=self._artifact_location(name))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = client.get_experiment_by_name(name)
        if experiment is None or experiment.lifecycle_stage != "active":
            raise RegistryError(
                f"MLflow's experiment {name!r} was deleted; restore it with `mlflow experiments restore` "
                "or in the MLflow UI, then run the step again."
            )
        return experiment.experiment_id

    def _artifact_location(self, experiment: str) -> str | None:
        if self._artifact_root is None or "://" in self._artifact_root:
            return self._artifact_root and f"{self._artifact_root.rstrip('/')}/{experiment}"
        return Path(self._artifact_root, experiment).absolute().as_uri()
