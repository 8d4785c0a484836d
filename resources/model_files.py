"""Model folders in MLflow's layout with a skops file: how they are written, and what loading refuses."""

import hashlib
import importlib.metadata
import warnings
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ml_assets.errors import RegistryError
from ml_assets.interfaces import ModelRun

if TYPE_CHECKING:
    from mlflow.models import Model

DESCRIPTION_FILE = "MLmodel"
MODEL_FILE = "model.skops"

# skops holds fitted trees back because crafted node indices can crash the process. A file whose digest
# is the one recorded when the estimator was logged was not crafted since, so they need no declaration.
TREE_TYPES = frozenset({"sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"})

_PINNED = ("mlflow", "numpy", "pandas", "scikit-learn", "scipy", "skops")
_PINNED_MODULES = frozenset({"builtins", "mlflow", "numpy", "pandas", "scipy", "sklearn", "skops"})
_UNREADABLE = (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, ImportError, OSError)


def write_model(run: ModelRun, folder: Path) -> "Model":
    """Write the run's model with its signature, input example and pinned requirements into a new folder.

    Returns:
        MLflow's description of it, also written as the file `MLmodel`.

    Raises:
        RegistryError: If the model holds a type that is not trusted, or skops cannot write it.
    """
    import mlflow.sklearn as mlflow_sklearn
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model, infer_signature
    from skops.io import get_untrusted_types

    description = Model()
    trusted = sorted(TREE_TYPES.union(run.trusted_types))
    with warnings.catch_warnings():
        # Integer columns are declared without nulls by the feature functions; the hint is about other data.
        warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer column")
        warnings.filterwarnings("ignore", message="Operation with range is deprecated")  # MLflow on pandas 3
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred")  # on importing mlflow.pyfunc
        signature = infer_signature(run.input_example, run.output_example)
        try:
            mlflow_sklearn.save_model(
                run.model,
                str(folder),
                mlflow_model=description,
                serialization_format="skops",
                skops_trusted_types=trusted,
                signature=signature,
                input_example=run.input_example,
                pip_requirements=list(_requirements(run)),
                pyfunc_predict_fn=_predict_function(run),
            )
        except MlflowException as error:
            written = folder / MODEL_FILE
            refused = set(get_untrusted_types(file=written)) - set(trusted) if written.exists() else set()
            if refused:
                raise RegistryError(untrusted_message(f"run {run.name!r}", refused)) from error
            cause = error.__cause__ or error
            raise RegistryError(
                f"run {run.name!r}: skops cannot write {type(run.model).__name__} ({cause}); expected an "
                "estimator whose classes and functions stand at the top level of an importable module. Move "
                "them there; lambdas, closures and classes from __main__ cannot be stored without pickle."
            ) from error
    return description


def model_digest(data: bytes) -> str:
    """Return the SHA-256 of a model file's bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def parse_description(model_uri: str, content: bytes) -> dict[str, Any]:
    """Return what an `MLmodel` file says; raises RegistryError when it is no mapping in YAML."""
    import yaml

    try:
        parsed = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _not_skops(model_uri, f"a description that is no YAML ({error})") from error
    if not isinstance(parsed, dict):
        raise _not_skops(model_uri, f"a description that is a {type(parsed).__name__}, not a mapping")
    return parsed


def skops_file(model_uri: str, description: Mapping[str, Any]) -> str:
    """Return the name of the skops file in a described model folder.

    Args:
        model_uri: Address of the model, for the message.
        description: What the `MLmodel` file says.

    Raises:
        RegistryError: If the folder is anything else than a scikit-learn model in skops: pickle,
            cloudpickle, a custom loader, bundled code or a Python function alone.
    """
    flavors = description.get("flavors")
    flavors = flavors if isinstance(flavors, dict) else {}
    sklearn = flavors.get("sklearn")
    if not isinstance(sklearn, dict):
        raise _not_skops(model_uri, f"the flavours {sorted(flavors)} without 'sklearn'")
    if sklearn.get("serialization_format") != "skops":
        raise _not_skops(model_uri, f"a file in the format {sklearn.get('serialization_format', 'pickle')!r}")
    for name, flavor in flavors.items():
        found = flavor if isinstance(flavor, dict) else {}
        if found.get("code"):
            raise _not_skops(model_uri, f"Python code of its own in {found['code']!r} (flavour {name})")
        if found.get("loader_module", "mlflow.sklearn") != "mlflow.sklearn":
            raise _not_skops(model_uri, f"the loader module {found['loader_module']!r} (flavour {name})")
    file = sklearn.get("pickled_model")
    if not isinstance(file, str) or PurePosixPath(file).name != file or not file.endswith(".skops"):
        raise _not_skops(model_uri, f"the model file {file!r}")
    return file


def read_model(model_uri: str, data: bytes, *, digest: str | None, trusted_types: Collection[str]) -> Any:
    """Return the estimator in a skops file after its digest and its types were checked.

    Args:
        model_uri: Address of the model, for messages.
        data: Content of the skops file.
        digest: SHA-256 that the file must have; None when none is known, since another program logged it.
        trusted_types: Fully qualified types allowed beside skops' own list.

    Raises:
        RegistryError: If the file was changed, holds a type that is not allowed, or cannot be read.
    """
    import skops.io

    found = model_digest(data)
    if digest not in (None, found):
        raise RegistryError(
            f"{model_uri}: the model's file was changed after it was logged; expected SHA-256 {digest}, "
            f"found {found}. Do not use it: find out who can write to the artifact store, and train the "
            "model again."
        )
    try:
        untrusted = skops.io.get_untrusted_types(data=data)
        refused = set(untrusted).difference(trusted_types, TREE_TYPES if digest else ())
        if not refused:
            return skops.io.loads(data, trusted=untrusted)
    except _UNREADABLE as error:
        raise RegistryError(
            f"{model_uri}: the skops file cannot be read here ({type(error).__name__}: {error}); expected "
            "one written with the installed releases of skops and scikit-learn. Compare them with the "
            "requirements.txt beside the model."
        ) from error
    raise RegistryError(untrusted_message(model_uri, refused))


def untrusted_message(subject: str, types: Collection[str]) -> str:
    """Return the sentence that names types which may not be loaded, and how to declare them."""
    count, names = len(types), ", ".join(sorted(types))
    return (
        f"{subject}: the model holds {count} type{'s' if count != 1 else ''} that may not be loaded: "
        f"{names}. Read their code; if loading them is harmless, declare them in the pipeline's YAML: "
        f"variants.<name>.trusted_types: [{names}]"
    )


def _not_skops(model_uri: str, found: str) -> RegistryError:
    return RegistryError(
        f"{model_uri}: refused before its model file was read; expected a scikit-learn model in skops "
        f"format, found {found}. Loading it could run code that it brings along: train it with ml_assets."
    )


def _predict_function(run: ModelRun) -> str:
    """Name the method whose output the example shows: probabilities are a matrix, classes a vector."""
    is_matrix = getattr(run.output_example, "ndim", 1) == 2
    return "predict_proba" if is_matrix and hasattr(run.model, "predict_proba") else "predict"


def _requirements(run: ModelRun) -> Sequence[str]:
    """Pin what the model needs; asking MLflow to find out starts a process and takes seconds."""
    modules = {
        type(run.model).__module__.partition(".")[0],
        *(t.partition(".")[0] for t in run.trusted_types),
    }
    distributions: set[str] = set(_PINNED)
    if others := modules - _PINNED_MODULES:
        known: Mapping[str, list[str]] = importlib.metadata.packages_distributions()
        distributions.update(name for module in others for name in known.get(module, ()))
    return [f"{name}=={importlib.metadata.version(name)}" for name in sorted(distributions)]
