"""How runs, model folders and registered versions are written with an MLflow client."""

import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ml_assets.errors import RegistryError
from ml_assets.interfaces import DatasetInput, ModelVersion
from resources.model_files import DESCRIPTION_FILE

if TYPE_CHECKING:
    import mlflow
    import mlflow.entities
    import mlflow.entities.model_registry
    import mlflow.models

DATA_VERSION_TAG = "ml_assets.data_version"
MAX_PARAM_CHARACTERS = 6000
MAX_DATASET_DIGEST_CHARACTERS = 36


def check_metrics(metrics: Mapping[str, float], subject: str) -> None:
    """Refuse metrics that are not finite: MLflow would store another number in place of an infinite one."""
    broken = sorted(name for name, value in metrics.items() if not math.isfinite(value))
    if broken:
        shown = ", ".join(f"{name} = {float(metrics[name])}" for name in broken)
        raise RegistryError(
            f"{subject}: {shown}; expected finite numbers. Leave a metric out where it is not defined on its rows."
        )


def fitting_params(params: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return params as text of a length that MLflow keeps, and the full text of longer ones as files.

    None, True and False are spelled as in YAML and in the table of trials: null, true, false. So None and a choice
    "none" or "None" are told apart. A text stands as it is.
    """
    fitting: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for name, value in params.items():
        text = json.dumps(value) if value is None or isinstance(value, bool) else str(value)
        if len(text) > MAX_PARAM_CHARACTERS:
            file = f"params/{name}.txt"
            files[file] = text.encode()
            text = f"{text[:200]}… ({len(text):,} characters, see {file})"
        fitting[name] = text
    return fitting, files


def log_datasets(client: "mlflow.MlflowClient", run_id: str, datasets: Sequence[DatasetInput]) -> None:
    """Record the data sets that a run used, also when other runs record the same ones at this moment.

    MLflow looks whether a data set has a row and else inserts one: of several runs that do so at once, all but
    one break its unique key. Asked again they find the row.
    """
    from mlflow.exceptions import MlflowException

    inputs = dataset_inputs(datasets)
    for is_last in [*[False] * len(inputs), True]:
        try:
            client.log_inputs(run_id, datasets=inputs)
        except MlflowException as error:
            if is_last or "unique constraint" not in str(error).lower():
                raise
        else:
            return


def dataset_inputs(datasets: Sequence[DatasetInput]) -> "list[mlflow.entities.DatasetInput]":
    """Return MLflow's form of the data sets.

    MLflow's digest has 36 characters, so the whole data version is a tag. It keeps one input for each name
    and digest, so that one data version with several uses has their contexts in one tag.
    """
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as MlflowDatasetInput

    contexts: dict[tuple[str, str, str], list[str]] = {}
    for dataset in datasets:
        contexts.setdefault((dataset.name, dataset.digest, dataset.url), []).append(dataset.context)
    return [
        MlflowDatasetInput(
            Dataset(
                name=name,
                digest=digest[:MAX_DATASET_DIGEST_CHARACTERS],
                source_type=urlsplit(url).scheme or "local",
                source=json.dumps({"uri": url}),
            ),
            [InputTag("mlflow.data.context", ", ".join(uses)), InputTag(DATA_VERSION_TAG, digest)],
        )
        for (name, digest, url), uses in contexts.items()
    ]


def log_values(
    client: "mlflow.MlflowClient",
    run_id: str,
    metrics: Mapping[str, float],
    params: Mapping[str, str],
    model_id: str | None,
) -> None:
    """Add metrics (to the run and, when given, to its model) and params in as few requests as possible."""
    from mlflow.entities import Metric, Param

    now_ms = time.time_ns() // 1_000_000
    client.log_batch(
        run_id,
        metrics=[Metric(name, float(value), now_ms, 0, model_id) for name, value in metrics.items()],
        params=[Param(name, value) for name, value in params.items()],
    )


def log_files(client: "mlflow.MlflowClient", run_id: str, files: Mapping[str, bytes]) -> None:
    """Add artefact files to a run; refuses paths that would leave its folder."""
    outside = sorted(name for name in files if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts)
    if outside:
        raise RegistryError(
            f"run {run_id}: {', '.join(outside)} would lie outside the run's artifacts; expected relative "
            "paths such as 'evaluation/roc.png'."
        )
    if not files:
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        client.log_artifacts(run_id, folder)


def is_running(client: "mlflow.MlflowClient", run_id: str) -> bool:
    """Return whether there is such a run, neither deleted nor ended."""
    from mlflow.exceptions import MlflowException

    try:
        info = client.get_run(run_id).info
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return info.status == "RUNNING" and info.lifecycle_stage == "active"


def add_tags(client: "mlflow.MlflowClient", run_id: str, tags: Mapping[str, str]) -> None:
    """Set those tags of a run that it does not have yet with this value."""
    there = client.get_run(run_id).data.tags
    for key, value in tags.items():
        if there.get(key) != value:
            client.set_tag(run_id, key, value)


def upload_model(
    client: "mlflow.MlflowClient",
    model: "mlflow.entities.LoggedModel",
    description: "mlflow.models.Model",
    run_id: str,
    folder: Path,
) -> None:
    """Upload a written model folder as the logged model, and make it the output of its run.

    This is what `mlflow.sklearn.log_model` does, without its global tracking URI and active run, without
    reading every metric back, and without loading the model a second time to try its serving input.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    description.artifact_path = model.artifact_location
    description.model_uuid = description.model_id = model.model_id
    description.run_id = run_id
    description.save(str(folder / DESCRIPTION_FILE))
    try:
        client.log_model_artifacts(model.model_id, str(folder))
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    except BaseException:
        client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
        raise
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def create_registered_model(client: "mlflow.MlflowClient", name: str) -> None:
    """Create a registered model's name unless it exists."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def versions_of_run(client: "mlflow.MlflowClient", name: str, run_id: str) -> list[int]:
    """Return the versions that were registered for a run, lowest first."""
    found = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    return sorted(int(version.version) for version in found)


def set_tags(
    client: "mlflow.MlflowClient",
    version: "mlflow.entities.model_registry.ModelVersion",
    tags: Mapping[str, str],
) -> None:
    """Set those tags of a registered version that it does not have yet with this value."""
    for key, value in tags.items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(version.name, str(version.version), key, value)


def model_version(found: "mlflow.entities.model_registry.ModelVersion") -> ModelVersion:
    """Return MLflow's version in the interface's form."""
    return ModelVersion(
        name=found.name,
        version=str(found.version),
        run_id=found.run_id or "",
        model_uri=f"models:/{found.name}/{found.version}",
        tags=dict(found.tags),
    )


def open_run(client: "mlflow.MlflowClient", experiment_id: str, tags: Mapping[str, str]) -> str | None:
    """Return the newest run that goes on and has these tags; None when there is none, or no tag to know it by."""
    if not tags:
        return None
    wanted = [f"tags.`{name}` = '{value}'" for name, value in tags.items()]
    found = client.search_runs([experiment_id], " AND ".join(["attributes.status = 'RUNNING'", *wanted]), max_results=1)
    return found[0].info.run_id if found else None
