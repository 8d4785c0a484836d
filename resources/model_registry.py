"""The model registry on MLflow: runs, skops model files, registered versions and aliases."""

import contextlib
import fcntl
import functools
import logging
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ml_assets.errors import RegistryError
from ml_assets.interfaces import LoggedModel, ModelRun, ModelVersion
from resources.model_files import (
    DESCRIPTION_FILE,
    MODEL_FILE,
    model_digest,
    read_model,
    skops_file,
    write_model,
)
from resources.model_runs import (
    check_metrics,
    create_registered_model,
    fitting_params,
    log_datasets,
    log_files,
    log_values,
    model_version,
    upload_model,
    versions_of_run,
)

if TYPE_CHECKING:
    import mlflow
    import mlflow.entities
    import mlflow.entities.model_registry
    import mlflow.models

DIGEST_TAG = "ml_assets.model_sha256"

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
        parts = urlsplit(tracking_uri)
        if parts.scheme not in ("sqlite", "http", "https"):
            raise RegistryError(
                f"the tracking URI has the scheme {parts.scheme!r}; expected sqlite:///<path> or "
                "http(s)://<host>. For another database run an MLflow server before it and give its address."
            )
        if parts.scheme == "sqlite" and artifact_root is None:
            raise RegistryError(
                f"{tracking_uri} has no artifact root; expected a folder or URI for model files, "
                "since SQLite holds only their records."
            )
        self._tracking_uri = tracking_uri
        self._artifact_root = artifact_root
        self._database = Path(tracking_uri.removeprefix("sqlite:///")) if parts.scheme == "sqlite" else None
        user_and_password, at, _ = parts.netloc.rpartition("@")
        self._shown_uri = tracking_uri.replace(user_and_password + at, "", 1) if at else tracking_uri
        self._client: mlflow.MlflowClient | None = None

    def __repr__(self) -> str:
        return f"MlflowRegistry({self._shown_uri!r}, {self._artifact_root!r})"

    def initialise(self) -> None:
        """Create the SQLite database, once, however many processes ask; a millisecond when it exists."""
        if self._database is None or _has_default_experiment(self._database):
            return
        self._database.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(self._database.with_name(f"{self._database.name}.lock")):
            if not _has_default_experiment(self._database):
                with _quiet("mlflow.store.db.utils", "alembic"):
                    self._new_client().get_experiment("0")

    def log_model(self, run: ModelRun) -> LoggedModel:
        """Record one run with its model; the model is written with skops.

        Raises:
            RegistryError: If a metric is not a finite number, the model cannot be written without pickle or
                holds an undeclared type (nothing has been recorded then), or MLflow refuses a value.
        """
        check_metrics(run.metrics, f"run {run.name!r}")
        with tempfile.TemporaryDirectory() as folder, self._explained(f"log run {run.name!r}"):
            path = Path(folder) / "model"
            description = write_model(run, path)
            digest = model_digest((path / MODEL_FILE).read_bytes())
            client = self._connect()
            experiment_id = self._experiment_id(client, run.experiment)
            run_id = client.create_run(experiment_id, run_name=run.name, tags=dict(run.tags)).info.run_id
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

    def log_results(self, run_id: str, *, metrics: Mapping[str, float], files: Mapping[str, bytes]) -> None:
        """Add metrics (to the run and to its model) and artefact files to a run.

        Raises:
            RegistryError: If a metric is not a finite number, a path leaves the run, or there is no such run.
        """
        check_metrics(metrics, f"run {run_id}")
        with self._explained(f"add results to run {run_id}"):
            client = self._connect()
            outputs = client.get_run(run_id).outputs
            models = outputs.model_outputs if outputs else []
            log_values(client, run_id, metrics, {}, models[0].model_id if models else None)
            log_files(client, run_id, files)

    def load(self, model_uri: str, *, trusted_types: Sequence[str] = ()) -> Any:
        """Return the fitted estimator at `models:/m-<id>`, `models:/<name>/<version>` or `…/<name>@<alias>`.

        The description is read first; the model's file is only opened when that says skops and nothing but
        skops, its digest is the recorded one, and all its types are trusted.

        Raises:
            RegistryError: If it does not exist, is no skops model, was changed, or holds a type not trusted.
        """
        with self._explained(f"load {model_uri}"), tempfile.TemporaryDirectory() as folder:
            location, digest = self._locate(model_uri)
            description = self._fetch(location, DESCRIPTION_FILE, folder)
            data = self._fetch(location, skops_file(model_uri, description), folder)
        return read_model(model_uri, data, digest=digest, trusted_types=trusted_types)

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
        with self._explained(f"register {model.model_uri} as {name!r}"):
            client = self._connect()
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
            for key, value in tags.items():
                if kept.tags.get(key) != value:
                    client.set_model_version_tag(name, str(versions[0]), key, value)
            return model_version(client.get_model_version(name, str(versions[0])))

    def version(self, name: str, version: str) -> ModelVersion:
        """Return one version; raises RegistryError when there is none."""
        with self._explained(f"read version {version} of {name!r}"):
            return model_version(self._connect().get_model_version(name, version))

    def version_by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """Return the version under an alias, or None when the model or the alias does not exist."""
        from mlflow.exceptions import MlflowException

        with self._explained(f"read alias {alias!r} of {name!r}"):
            try:
                return model_version(self._connect().get_model_version_by_alias(name, alias))
            except MlflowException as error:
                # An alias that is not set is an invalid parameter to MLflow, a missing model is its own code.
                unset = f"alias {alias} not found" in error.message
                if unset or error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version; raises RegistryError when there is no such version."""
        with self._explained(f"set alias {alias!r} of {name!r} to version {version}"):
            self._connect().set_registered_model_alias(name, alias, version)

    def _connect(self) -> "mlflow.MlflowClient":
        if self._client is None:
            self.initialise()
            self._client = self._new_client()
        return self._client

    def _new_client(self) -> "mlflow.MlflowClient":
        import mlflow

        if self._database is not None:
            _keep_connections_from_children(self._tracking_uri)
        return mlflow.MlflowClient(self._tracking_uri, registry_uri=self._tracking_uri)

    @contextlib.contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:
            reason = str(error).replace(self._tracking_uri, self._shown_uri)
            raise RegistryError(f"MLflow at {self._shown_uri} could not {action}: {reason}") from error

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

    def _locate(self, model_uri: str) -> tuple[str, str | None]:
        """Return where a model's files lie and the digest recorded for its skops file, if one was."""
        client = self._connect()
        if logged := re.fullmatch(r"models:/(m-[0-9a-f]+)", model_uri):
            model = client.get_logged_model(logged[1])
            return model.artifact_location, model.tags.get(DIGEST_TAG)
        if numbered := re.fullmatch(r"models:/([^/@]+)/(\d+)", model_uri):
            version = client.get_model_version(numbered[1], numbered[2])
        elif aliased := re.fullmatch(r"models:/([^/@]+)@([\w\-]+)", model_uri):
            version = client.get_model_version_by_alias(aliased[1], aliased[2])
        else:
            raise RegistryError(
                f"{model_uri!r} is no address of a model; expected models:/m-<id>, models:/<name>/<version> "
                "or models:/<name>@<alias>."
            )
        location = client.get_model_version_download_uri(version.name, version.version)
        if logged := re.search(r"\bm-[0-9a-f]{32}\b", location):
            model = client.get_logged_model(logged[0])
            if model.artifact_location == location:
                return location, model.tags.get(DIGEST_TAG)
        return location, None

    def _fetch(self, location: str, file: str, folder: str) -> bytes:
        import mlflow.artifacts

        is_local = urlsplit(location).scheme in ("", "file")
        path = mlflow.artifacts.download_artifacts(
            artifact_uri=f"{location.rstrip('/')}/{file}",
            dst_path=None if is_local else folder,
            tracking_uri=self._tracking_uri,
        )
        return Path(path).read_bytes()


@contextlib.contextmanager
def _exclusive(lock_file: Path) -> Iterator[None]:
    with lock_file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.WARNING)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _has_default_experiment(database: Path) -> bool:
    """Tell whether MLflow's last act on a new database, its default experiment, has been committed."""
    if not database.exists():
        return False
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute("SELECT 1 FROM experiments WHERE experiment_id = 0").fetchone() is not None
        except sqlite3.OperationalError:
            return False  # no such table yet, or its writer is at work: the caller waits for the lock
        except sqlite3.DatabaseError as error:
            raise RegistryError(
                f"{database} is no SQLite database ({error}); expected MLflow's. Move the file away, or "
                "correct the tracking URI."
            ) from error


@functools.cache
def _keep_connections_from_children(tracking_uri: str) -> None:
    """Close idle connections before a fork and forget them in the child: SQLite's must not be shared."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore

    for store in (TrackingStore, RegistryStore):
        engine = store._get_or_create_engine(tracking_uri)  # noqa: SLF001 - MLflow keeps its engines for itself
        os.register_at_fork(before=engine.dispose, after_in_child=functools.partial(engine.dispose, close=False))
