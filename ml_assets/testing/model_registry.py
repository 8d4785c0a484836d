"""FakeModelRegistry, with the suite that every model registry passes."""

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ml_assets.errors import RegistryError
from ml_assets.interfaces import LoggedModel, ModelRun, ModelVersion, TrialRun
from ml_assets.testing.model_registry_suite import MajorityModel, ModelRegistrySuite, small_run, small_training_data

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FakeModelRegistry", "FakeRun", "MajorityModel", "ModelRegistrySuite", "small_run", "small_training_data"]

TREE_TYPES = frozenset({"sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"})


@dataclass(frozen=True, kw_only=True)
class FakeRun:
    """What the fake keeps of a run: its description, the skops bytes and their recorded digest, later additions."""

    run: ModelRun
    data: bytes
    recorded_digest: str
    metrics: dict[str, float] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


class FakeModelRegistry:
    """A `ModelRegistry` in memory, with the same refusals as the real one.

    Attributes:
        runs: Run id to what was recorded of it, oldest first; a test may replace an entry's bytes, as someone
            with access to the files could.
        aliases: (model name, alias) to version.
        started: Run id to name of the runs that were started and go on.
        open_tags: Run id to the tags that such a run was started with.
        trials: Run id to the trials below it, by number.
    """

    def __init__(self) -> None:
        self.runs: dict[str, FakeRun] = {}
        self.aliases: dict[tuple[str, str], str] = {}
        self.started: dict[str, str] = {}
        self.open_tags: dict[str, dict[str, str]] = {}
        self.trials: dict[str, dict[int, TrialRun]] = {}
        self._versions: dict[str, list[ModelVersion]] = {}
        self._run_numbers = itertools.count(1)

    def log_model(self, run: ModelRun) -> LoggedModel:
        """Record one run with its model in skops form."""
        import skops.io

        _refuse_broken_metrics(run.metrics)
        data = skops.io.dumps(run.model)
        _refuse_untrusted(data, run.trusted_types)
        if run.run_id and run.run_id not in self.started:
            raise RegistryError(f"no run {run.run_id} goes on")
        run_id = run.run_id or f"run{next(self._run_numbers):04d}"
        self.started.pop(run_id, None)
        self.runs[run_id] = FakeRun(
            run=run, data=data, recorded_digest=hashlib.sha256(data).hexdigest(), metrics=dict(run.metrics)
        )
        return LoggedModel(run_id=run_id, model_uri=f"models:/m-{run_id}")

    def start_run(
        self, experiment: str, name: str, *, tags: Mapping[str, str], continues: str = "", once: Sequence[str] = ()
    ) -> str:
        """Return the id of a run that goes on."""
        if continues in self.started:
            return continues
        wanted = {tag: tags[tag] for tag in once}
        for run_id in self.started if wanted else ():
            if wanted.items() <= self.open_tags[run_id].items():
                return run_id
        run_id = f"run{next(self._run_numbers):04d}"
        self.started[run_id] = name
        self.open_tags[run_id] = dict(tags)
        self.trials[run_id] = {}
        return run_id

    def fail_run(self, run_id: str) -> None:
        """End a run that was started."""
        if run_id not in self.trials:
            raise RegistryError(f"no run {run_id}")
        self.started.pop(run_id, None)

    def log_trials(self, run_id: str, trials: Sequence[TrialRun]) -> None:
        """Record trials below a run."""
        for trial in trials:
            _refuse_broken_metrics({**trial.metrics, **{f"report {k}": v for k, v in trial.reports.items()}})
        if run_id not in self.trials:
            raise RegistryError(f"no run {run_id}")
        for trial in trials:
            self.trials[run_id].setdefault(trial.number, trial)

    def log_results(self, run_id: str, *, metrics: Mapping[str, float], files: Mapping[str, bytes]) -> None:
        """Add metrics and files to a run."""
        _refuse_broken_metrics(metrics)
        for name in files:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise RegistryError(f"run {run_id}: {name} would lie outside the run's artifacts")
        if run_id not in self.runs:
            raise RegistryError(f"no run {run_id}; there are {sorted(self.runs)}")
        self.runs[run_id].metrics.update(metrics)
        self.runs[run_id].files.update(files)

    def load(self, model_uri: str, *, trusted_types: Sequence[str] = (), digest: str | None = None) -> Any:
        """Return a new copy of the estimator."""
        import skops.io

        stored = self._stored(model_uri)
        expected = stored.recorded_digest if digest is None else digest
        found = hashlib.sha256(stored.data).hexdigest()
        if found != expected:
            raise RegistryError(f"{model_uri} was changed; expected SHA-256 {expected}, found {found}")
        return skops.io.loads(stored.data, trusted=_refuse_untrusted(stored.data, trusted_types))

    def digest(self, model_uri: str) -> str:
        """Return the SHA-256 of the bytes as they are now."""
        return hashlib.sha256(self._stored(model_uri).data).hexdigest()

    def example(self, model_uri: str) -> "pd.DataFrame":
        """Return the input example, its rows numbered from 0."""
        return self._stored(model_uri).run.input_example.reset_index(drop=True)

    def _stored(self, model_uri: str) -> FakeRun:
        address = model_uri.removeprefix("models:/")
        name, separator, version = address.partition("/")
        run_id = self.version(name, version).run_id if separator else address.removeprefix("m-")
        if run_id not in self.runs:
            raise RegistryError(f"no model at {model_uri}; there are runs {sorted(self.runs)}")
        return self.runs[run_id]

    def register(self, name: str, model: LoggedModel, *, tags: Mapping[str, str]) -> ModelVersion:
        """Return the version of the model's run, created when there is none."""
        if not name or set(name) & set("/:'\""):
            raise RegistryError(f"{name!r} cannot name a registered model")
        if model.run_id not in self.runs:
            raise RegistryError(f"no run {model.run_id}; there are {sorted(self.runs)}")
        versions = self._versions.setdefault(name, [])
        index = next((i for i, v in enumerate(versions) if v.run_id == model.run_id), len(versions))
        if index == len(versions):
            number = str(index + 1)
            uri = f"models:/{name}/{number}"
            versions.append(ModelVersion(name=name, version=number, run_id=model.run_id, model_uri=uri))
        versions[index] = replace(versions[index], tags={**versions[index].tags, **tags})
        return versions[index]

    def version(self, name: str, version: str) -> ModelVersion:
        """Return one version; raises RegistryError when there is none."""
        found = next((v for v in self._versions.get(name, ()) if v.version == version), None)
        if found is None:
            raise RegistryError(f"no version {version} of {name!r}")
        return found

    def version_by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """Return the version under an alias, or None."""
        version = self.aliases.get((name, alias))
        return None if version is None else self.version(name, version)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version."""
        self.aliases[name, alias] = self.version(name, version).version

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias; nothing happens when it is not set."""
        self.aliases.pop((name, alias), None)

    def set_version_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version; others stay."""
        kept = self.version(name, version)
        versions = self._versions[name]
        versions[versions.index(kept)] = replace(kept, tags={**kept.tags, **tags})


def _refuse_broken_metrics(metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise RegistryError(f"metric {name} = {value}; expected a finite number")


def _refuse_untrusted(data: bytes, trusted_types: Sequence[str]) -> list[str]:
    import skops.io

    untrusted = skops.io.get_untrusted_types(data=data)
    refused = sorted(set(untrusted).difference(trusted_types, TREE_TYPES))
    if refused:
        names = ", ".join(refused)
        raise RegistryError(f"untrusted types {names}; declare variants.<name>.trusted_types: [{names}]")
    return untrusted
