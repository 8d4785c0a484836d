"""Fits a variant within a step: on the step's device, resumed from where an earlier attempt at the same was killed."""

import importlib
import importlib.metadata
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ml_assets.checkpoints import checkpoint_key
from ml_assets.errors import StoreError, TrainingError
from ml_assets.features.module import code_digest
from ml_assets.interfaces import Checkpoint
from ml_assets.spec import VariantSpec
from ml_assets.stages.rows import Rows
from ml_assets.stages.step import Step
from ml_assets.trainers.libraries import STORED_TYPES, library
from ml_assets.training import Fitted, train

ROUNDS_GENERATION = 1
"""Raised when a release trains in other rounds, so that it does not go on from what an older one has begun."""


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """A variant that was fitted for a stage.

    Attributes:
        fitted: The model, and how it came to be.
        seconds: Wall time of this process; what earlier attempts took is not in it.
        checkpoint: Where it was saved on its way, or None.
    """

    fitted: Fitted
    seconds: float
    checkpoint: Checkpoint | None

    def clear(self) -> None:
        """Remove what was saved on the way; the model is stored now, so that a store that refuses is no failure."""
        if self.checkpoint is not None:
            try:
                self.checkpoint.clear()
            except StoreError:  # it goes when a later training beside it is cleared
                return


def fit_for(step: Step, stage: tuple[str, ...], name: str, variant: VariantSpec, rows: Rows) -> Fitting:
    """Fit a variant for a stage.

    Args:
        step: The step; takes what its reader should know as notes.
        stage: Path of the stage below the pipeline.
        name: The variant's name.
        variant: What to fit; after a search its parameters are those that were found.
        rows: What to fit it on.

    Raises:
        TrainingError: If the variant cannot be fitted, its train function was changed since it was loaded, or needs a
            GPU that is not there.
    """
    started = time.perf_counter()
    checkpoint = None
    if variant.compute.checkpoint or variant.train is not None:
        checkpoint = step.services.checkpoints.open(_key(step, stage, name, variant))
    fitted = train(variant, rows.frame, rows.y, seed=step.spec.training.seed, checkpoint=checkpoint, device=step.device)
    step.notes.extend(fitted.notes)
    return Fitting(fitted=fitted, seconds=time.perf_counter() - started, checkpoint=checkpoint)


def _key(step: Step, stage: tuple[str, ...], name: str, variant: VariantSpec) -> str:
    """Return the key of this training: another one when anything is changed that decides its course."""
    training_set = f"{'/'.join(step.asset('training_set'))} [{step.partition}]"
    content = {
        "generation": ROUNDS_GENERATION,
        "training_set": step.upstream[training_set],
        "variant": variant.model_dump(mode="json", exclude={"compute", "search", "trusted_types"}),
        "seed": step.spec.training.seed,
        "feature_code": step.pipeline.features.digest,
        "train_code": train_code(step, name),
        "device": step.device,
        "libraries": libraries(step, name, variant),
    }
    return checkpoint_key(step.asset(*stage), step.partition, content)


def train_code(step: Step, name: str) -> str:
    """Return the digest of the variant's train function after looking whether it may run; empty without one."""
    function = step.pipeline.train_functions.get(name)
    if function is None:
        return ""
    if code_digest(function.file) != function.digest:
        raise TrainingError(
            f"{function.path} was changed since this pipeline was loaded: {function.file}. Reload the code location, "
            "then materialize the stage again"
        )
    if function.gpu_required and step.device != "cuda":
        raise TrainingError(
            f"{function.path} needs a GPU, and this step has none. Ask for one in the variant's `compute`, and "
            "materialize the stage where there is one"
        )
    return function.digest


def libraries(step: Step, name: str, variant: VariantSpec) -> dict[str, Any]:
    """Return the releases whose states cannot be mixed, of what the variant's train function imports too."""
    versions: dict[str, Any] = {each: importlib.metadata.version(each) for each in ("scikit-learn", "skops")}
    own = library(variant.estimator)
    if own in STORED_TYPES:  # asked of the module: XGBoost comes in several distributions
        versions[own] = importlib.import_module(own).__version__
    function = step.pipeline.train_functions.get(name)
    return versions | (_releases(function.imported) if function is not None else {})


def _releases(modules: Iterable[str]) -> dict[str, str]:
    """Return the release of each top module that a distribution brought, by the distribution's name."""
    found: dict[str, str] = {}
    others = []
    for module in modules:
        try:
            found[module] = importlib.metadata.version(module)
        except importlib.metadata.PackageNotFoundError:
            others.append(module)
    if set(others) - {"sklearn"}:  # of another name than its distribution, and looking through all of them takes time
        distributions = importlib.metadata.packages_distributions()
        named = {each for module in others for each in distributions.get(module, ())}
        found |= {each: importlib.metadata.version(each) for each in sorted(named)}
    return found
