"""Model folders as MLflow has stored them: where one lies by its address, and its files' content as it is now."""

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ml_assets.errors import RegistryError
from resources.mlflow_connection import MlflowConnection
from resources.model_files import DESCRIPTION_FILE, parse_description, skops_file

if TYPE_CHECKING:
    import pandas as pd

DIGEST_TAG = "ml_assets.model_sha256"

_DTYPES = {
    "boolean": "bool",
    "datetime": "datetime64[ns]",
    "double": "float64",
    "float": "float32",
    "integer": "int32",
    "long": "int64",
}
"""pandas' types of MLflow's; all others are objects, with None for missing values."""


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A model folder that was found, with its description read.

    Attributes:
        model_uri: Address it was found by.
        location: Folder or URL of its files.
        description: What its file `MLmodel` says.
        recorded_digest: SHA-256 that MLflow's tag gives its skops file; None when another program logged it.
            Whoever can write to the registry can change it.
        connection: Where it was found.
    """

    model_uri: str
    location: str
    description: dict[str, Any]
    recorded_digest: str | None
    connection: MlflowConnection

    def model_file(self) -> bytes:
        """Return the content of the skops file; raises RegistryError when the description says anything else."""
        name = skops_file(self.model_uri, self.description)
        with self.connection.explained(f"load {self.model_uri}"):
            return _fetch(self.connection, self.location, name)

    def signature(self) -> dict[str, str]:
        """Return the input columns that the description names, with MLflow's types such as "double".

        Raises:
            RegistryError: If it names no columns.
        """
        try:
            inputs = json.loads(self.description["signature"]["inputs"])
            return {str(column["name"]): str(column["type"]) for column in inputs}
        except (KeyError, TypeError, ValueError) as error:
            raise RegistryError(
                f"{self.model_uri} has no signature of named columns ({type(error).__name__}: {error}); expected "
                "`signature.inputs` in its MLmodel file. Train the model again with ml_assets."
            ) from error

    def example(self) -> "pd.DataFrame":
        """Return the stored input example with the types of the signature, its rows numbered from 0.

        Raises:
            RegistryError: If there is none, or it is no table in the form that ml_assets writes.
        """
        import pandas as pd

        types = self.signature()
        file = self._example_file()
        with self.connection.explained(f"read the input example of {self.model_uri}"):
            content = _fetch(self.connection, self.location, file)
        try:
            table = json.loads(content)
            frame = pd.DataFrame(table["data"], columns=table["columns"], dtype=object)
            return frame.astype({name: _DTYPES.get(types[name], "object") for name in table["columns"]})
        except (KeyError, TypeError, ValueError) as error:
            raise RegistryError(
                f"{self.model_uri}: the input example in {file} cannot be read ({type(error).__name__}: {error}); "
                "expected columns and data as its signature describes. Train the model again with ml_assets."
            ) from error

    def _example_file(self) -> str:
        about = self.description.get("saved_input_example_info")
        about = about if isinstance(about, dict) else {}
        name = about.get("artifact_path")
        # A plain name: a changed description must not lead to a file outside of the folder.
        if about.get("type") != "dataframe" or not isinstance(name, str) or PurePosixPath(name).name != name:
            raise RegistryError(
                f"{self.model_uri} has no input example that is a table (found {about or 'none'}); expected the "
                "rows that ml_assets stores with each model. Train it again with ml_assets."
            )
        return name


def find_model(connection: MlflowConnection, model_uri: str) -> StoredModel:
    """Return the model at `models:/m-<id>`, `models:/<name>/<version>` or `models:/<name>@<alias>`.

    Raises:
        RegistryError: If there is none, the address has another form, or the description cannot be read.
    """
    with connection.explained(f"load {model_uri}"):
        location, recorded = _locate(connection, model_uri)
        content = _fetch(connection, location, DESCRIPTION_FILE)
    description = parse_description(model_uri, content)
    return StoredModel(
        model_uri=model_uri,
        location=location,
        description=description,
        recorded_digest=recorded,
        connection=connection,
    )


def _locate(connection: MlflowConnection, model_uri: str) -> tuple[str, str | None]:
    """Return where a model's files lie and the digest recorded for its skops file, if one was."""
    client = connection.client()
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


def _fetch(connection: MlflowConnection, location: str, file: str) -> bytes:
    import mlflow.artifacts

    is_local = urlsplit(location).scheme in ("", "file")
    with tempfile.TemporaryDirectory() as folder:
        path = mlflow.artifacts.download_artifacts(
            artifact_uri=f"{location.rstrip('/')}/{file}",
            dst_path=None if is_local else folder,
            tracking_uri=connection.tracking_uri,
        )
        return Path(path).read_bytes()
