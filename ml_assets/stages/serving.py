"""Loads what may score: the model with the digest that was decided on, checked against what it scored then."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ml_assets.errors import MlAssetsError, RegistryError, RegistryUnavailableError
from ml_assets.interfaces import Decision
from ml_assets.stages.step import Step
from ml_assets.training import TrainingError, predict, trusted_types


class UnservableError(MlAssetsError):
    """A promoted version does not serve as it did when it was promoted; `decision` names it."""

    def __init__(self, decision: Decision, message: str) -> None:
        self.decision = decision
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class Served:
    """A version that is ready to score.

    Attributes:
        decision: The decision that brought it.
        model: The fitted estimator.
    """

    decision: Decision
    model: Any

    @property
    def version(self) -> str:
        """Return its registered version."""
        return self.decision.model_version or ""


def serve(step: Step, decision: Decision) -> Served:
    """Load a version by the digest that was decided on, and score its input example as its serving check did.

    Raises:
        UnservableError: If it is gone, was changed, is of another class or on other features than recorded, or
            scores its own example otherwise.
    """
    registry = step.services.model_registry
    try:
        version = registry.version(decision.model_name, decision.model_version or "")
        trusted = trusted_types(step.spec.variants.values())
        model = registry.load(version.model_uri, trusted_types=trusted, digest=decision.model_digest)
        problem = _otherwise_made(model, decision) or _otherwise_scoring(step, model, version.model_uri, decision)
    except RegistryUnavailableError:
        raise  # an outage says nothing of the model
    except (RegistryError, TrainingError) as error:
        raise UnservableError(decision, str(error)) from error
    if problem:
        raise UnservableError(decision, f"version {decision.model_version}: {problem}")
    return Served(decision=decision, model=model)


def _otherwise_made(model: Any, decision: Decision) -> str:
    """Return how a model differs from what its decision says it is, or an empty text."""
    recorded = decision.evidence.get("fingerprint")
    if not recorded:
        return ""
    estimator = model.named_steps.get("estimator", model) if hasattr(model, "named_steps") else model
    name = recorded["estimator"].rpartition(".")[2]
    if type(estimator).__name__ != name:
        return f"it is a {type(estimator).__name__}, and was promoted as a {name}"
    features = list(getattr(model, "feature_names_in_", recorded["features"]))
    if features != list(recorded["features"]):
        return f"it reads the features {features}, and was promoted with {list(recorded['features'])}"
    return ""


def _otherwise_scoring(step: Step, model: Any, model_uri: str, decision: Decision) -> str:
    """Return how the scores of the input example moved since the serving check, or an empty text."""
    serving = decision.evidence.get("serving")
    if not serving or not serving["example_scores"]:
        return ""
    example = step.services.model_registry.example(model_uri)
    scores = np.ravel(predict(model, example, task=step.spec.label.task))
    then = np.asarray(serving["example_scores"], dtype=np.float64)
    limit = step.policy.number("serving.score_tolerance")
    if scores.shape != then.shape or not np.allclose(scores, then, rtol=0.0, atol=limit):
        moved = float(np.abs(scores - then).max()) if scores.shape == then.shape else float("nan")
        return f"it scores its own input example otherwise than when it was promoted: by up to {moved:g}"
    return ""
