"""The asset graph of one pipeline: its stages, what each depends on, and what decides its content."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import dagster as dg

from ml_assets.assets.shared_asset import build_shared_asset
from ml_assets.assets.stage_asset import Check, Stage, build_stage_asset
from ml_assets.assets.team_pipeline import CARRIER, carried
from ml_assets.compute import GPUS_POOL, MODELS_POOL, largest
from ml_assets.digest import document_digest
from ml_assets.features.module import code_digest
from ml_assets.gates import APPROVAL, CALIBRATION, DRIFT, EXPECTATION_WARNINGS, EXPECTATIONS, PERFORMANCE
from ml_assets.interfaces import StepResources
from ml_assets.partitions import data_partitions, past_window, same_period, time_partitions, with_history
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.spec import PipelineSpec, SearchSpec
from ml_assets.stages.step import StageResult, Step
from ml_assets.trainers.kinds import find_kind

LANDED = "partitions"
CODE_GENERATION = 1
"""Raised when a release computes something else from the same input, so that the UI shows assets as outdated."""


class StageRunners(Protocol):
    """What each stage does; `TrainingPipeline` has the standard ones and a subclass may replace any."""

    def run_raw_data(self, step: Step) -> StageResult:
        """Ingest and check one partition's rows."""
        ...

    def run_features(self, step: Step) -> StageResult:
        """Compute one partition's features."""
        ...

    def run_row_index(self, step: Step) -> StageResult:
        """Index one period's feature rows."""
        ...

    def run_training_set(self, step: Step) -> StageResult:
        """Choose and split the rows to learn from."""
        ...

    def run_variant(self, step: Step, variant: str) -> StageResult:
        """Fit one variant."""
        ...

    def help_variant(self, step: Step, variant: str) -> str:
        """Take part in the search of one variant, in a step before the one that fits it."""
        ...

    def run_candidate(self, step: Step) -> StageResult:
        """Choose the best variant."""
        ...

    def run_evaluation(self, step: Step) -> StageResult:
        """Evaluate candidate, champion and baseline."""
        ...

    def run_promotion(self, step: Step) -> StageResult:
        """Decide what becomes of the candidate."""
        ...

    def run_predictions(self, step: Step) -> StageResult:
        """Score one partition with the champion of its time."""
        ...

    def run_drift(self, step: Step) -> StageResult:
        """Compare one partition with what the champion of its time was trained on."""
        ...

    def run_performance(self, step: Step) -> StageResult:
        """Estimate how well one partition was scored, and measure it where labels are known."""
        ...


def build_pipeline_assets(pipeline: LoadedPipeline, runners: StageRunners) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return the assets of one pipeline, and the landing zone's files as external assets."""
    references = _code_references(pipeline)
    stages = [
        replace(stage, metadata=references | (carried(pipeline) if stage.path == (CARRIER,) else {}))
        for stage in _stages(pipeline, runners)
    ]
    built = [build_shared_asset(pipeline, s) if s.workers else build_stage_asset(pipeline, s) for s in stages]
    return [*_landing(pipeline.spec), *built]


def _stages(pipeline: LoadedPipeline, runners: StageRunners) -> list[Stage]:
    return [
        *_data_stages(pipeline, runners),
        *_model_stages(pipeline, runners),
        *_decision_stages(pipeline, runners),
        *_monitoring_stages(pipeline, runners),
    ]


def _data_stages(pipeline: LoadedPipeline, runners: StageRunners) -> list[Stage]:
    spec, version = pipeline.spec, partial(_code_version, pipeline)
    data, time = data_partitions(spec), time_partitions(spec)
    sides = [_dep(spec, ("landing", name)) for name in spec.source.side_tables]
    return [
        Stage(
            path=("raw_data",),
            run=runners.run_raw_data,
            description="The rows that arrived for this partition, in their declared types, checked.",
            kinds=frozenset({"parquet", "greatexpectations"}),
            partitions=data,
            deps=[_dep(spec, ("landing", LANDED))],
            code_version=version(runners.run_raw_data, ["source", "partitions", "expectations"]),
            checks=_data_checks("rows that arrived"),
            ranges=True,
        ),
        Stage(
            path=("features",),
            run=runners.run_features,
            description="Feature columns, label, row id, event time and label time of this partition.",
            kinds=frozenset({"pandas", "parquet", "greatexpectations"}),
            partitions=data,
            deps=[_dep(spec, ("raw_data",), with_history(spec)), *sides],
            code_version=version(
                runners.run_features, ["source", "features", "label", "evaluation", "scoring"], features=True
            ),
            checks=_data_checks("feature table"),
            ranges=True,
            freshness=_freshness(spec, spec.freshness.features),
        ),
        Stage(
            path=("row_index",),
            run=runners.run_row_index,
            description="Which feature rows this period has over all groups, and when each label is known.",
            kinds=frozenset({"parquet"}),
            partitions=time,
            deps=[_dep(spec, ("features",), same_period(spec))],
            code_version=version(runners.run_row_index, ["label"]),
        ),
        Stage(
            path=("training_set",),
            run=runners.run_training_set,
            description="The rows of the past window that a model may learn from, and their split, by reference.",
            kinds=frozenset({"parquet"}),
            partitions=time,
            deps=[_dep(spec, ("row_index",), past_window(spec))],
            code_version=version(runners.run_training_set, ["training", "partitions"]),
        ),
    ]


def _model_stages(pipeline: LoadedPipeline, runners: StageRunners) -> list[Stage]:
    spec, version = pipeline.spec, partial(_code_version, pipeline)
    time, compute = time_partitions(spec), pipeline.compute
    refit = largest(list(compute.values()))
    variants = [
        Stage(
            path=("models", name),
            run=partial(runners.run_variant, variant=name),
            description=f"{variant.estimator.rpartition('.')[2]} fitted on the training split, scored on validation.",
            kinds=frozenset({"scikitlearn", "mlflow"}),
            partitions=time,
            deps=[_dep(spec, ("training_set",))],
            code_version=version(
                runners.run_variant,
                ["features", "training", "selection"],
                extra=_learning(pipeline, name),
            ),
            pool=_pool(compute[name]),
            compute=compute[name],
            workers=_workers(variant.search),
            work=partial(runners.help_variant, variant=name),
        )
        for name, variant in spec.variants.items()
    ]
    candidate = Stage(
        path=("candidate",),
        run=runners.run_candidate,
        description="The best variant on the validation split, fitted again on all rows of the training set.",
        kinds=frozenset({"scikitlearn", "mlflow"}),
        partitions=time,
        deps=[_dep(spec, ("models", name)) for name in spec.variants],
        code_version=version(
            runners.run_candidate,
            ["training", "selection", "features"],
            extra={name: _learning(pipeline, name) for name in spec.variants},
        ),
        pool=_pool(refit) if refit.gpus else None,
        compute=refit,
    )
    return [*variants, candidate]


def _learning(pipeline: LoadedPipeline, name: str) -> dict[str, Any]:
    """Return what decides a variant's model: its learner, and of where it is fitted only whether that is on a GPU.

    Of `checkpoint` only whether the estimator then learns something else.
    """
    variant = pipeline.spec.variants[name]
    dumped = variant.model_dump(mode="json", exclude={"compute": True, "search": {"workers"}})
    device = {"device": "cuda"} if pipeline.compute[name].gpus else {}
    kind = find_kind([variant.estimator.rpartition(".")[2]])
    differs = kind is not None and variant.compute.checkpoint and not kind.exact(variant.params)
    function = pipeline.train_functions.get(name)
    trained = {} if function is None else {"train_code": function.digest}
    return dumped | device | ({"in_rounds": True} if differs else {}) | trained


def _workers(search: SearchSpec | None) -> int:
    """Return how many steps search before the one that fits the model; 0 where that one searches itself."""
    return 0 if search is None or search.workers == 1 else search.workers


def _pool(resources: StepResources) -> str:
    return GPUS_POOL if resources.gpus else MODELS_POOL


def _decision_stages(pipeline: LoadedPipeline, runners: StageRunners) -> list[Stage]:
    spec, version = pipeline.spec, partial(_code_version, pipeline)
    time = time_partitions(spec)
    return [
        Stage(
            path=("evaluation",),
            run=runners.run_evaluation,
            description="Candidate, champion and baseline on this period's untouched rows, with day-block intervals.",
            kinds=frozenset({"scikitlearn", "mlflow"}),
            partitions=time,
            deps=[_dep(spec, ("candidate",)), _dep(spec, ("row_index",))],
            code_version=version(runners.run_evaluation, ["evaluation", "gates", "label"]),
            checks=[
                Check(gate=gate, blocking=True, description=f"The policy's threshold {gate} is met.")
                for gate in spec.gates
            ],
        ),
        Stage(
            path=("promotion",),
            run=runners.run_promotion,
            description="What became of the candidate: promoted, kept back or undecided, and why.",
            kinds=frozenset({"mlflow"}),
            partitions=time,
            deps=[_dep(spec, ("evaluation",)), _dep(spec, ("candidate",))],
            code_version=version(runners.run_promotion, ["selection"]),
            # A warning: a candidate that waits must not turn its own run red.
            checks=[Check(gate=APPROVAL, blocking=False, description="No candidate of the period waits for approval.")],
        ),
        Stage(
            path=("predictions",),
            run=runners.run_predictions,
            description="Scores by the champion that was in force when the period began.",
            kinds=frozenset({"parquet", "scikitlearn"}),
            partitions=data_partitions(spec),
            deps=[_dep(spec, ("features",)), _dep(spec, ("promotion",), _earlier(spec))],
            code_version=version(runners.run_predictions, ["scoring"]),
            ranges=True,
            skippable=True,
            freshness=_freshness(spec, spec.freshness.predictions),
        ),
    ]


def _monitoring_stages(pipeline: LoadedPipeline, runners: StageRunners) -> list[Stage]:
    spec, version = pipeline.spec, partial(_code_version, pipeline)
    data, decided = data_partitions(spec), _dep(spec, ("promotion",), _earlier(spec))
    return [
        Stage(
            path=("drift",),
            run=runners.run_drift,
            description="How this partition differs from what the champion of its time was trained on.",
            kinds=frozenset({"scipy"}),
            partitions=data,
            deps=[_dep(spec, ("features",)), _dep(spec, ("predictions",)), decided],
            code_version=version(runners.run_drift, ["monitoring"]),
            checks=[Check(gate=DRIFT, blocking=False, description="No important column has moved and stays so.")],
            ranges=True,
            skippable=True,
        ),
        Stage(
            path=("performance",),
            run=runners.run_performance,
            description="How well this partition was scored: estimated at once, measured when its labels are known.",
            kinds=frozenset({"scikitlearn"}),
            partitions=data,
            deps=[_dep(spec, ("predictions",)), _dep(spec, ("features",)), decided],
            code_version=version(runners.run_performance, ["evaluation", "selection"]),
            checks=[
                Check(gate=PERFORMANCE, blocking=False, description="The champion scores as well as it was evaluated."),
                Check(gate=CALIBRATION, blocking=False, description="What was predicted is what came, on average."),
            ],
            ranges=True,
            skippable=True,
        ),
    ]


def _data_checks(what: str) -> Sequence[Check]:
    return (
        Check(
            gate=EXPECTATIONS,
            blocking=True,
            description=f"Every error-level expectation on the {what} holds.",
        ),
        Check(
            gate=EXPECTATION_WARNINGS,
            blocking=False,
            description=f"Every warning-level one on the {what} holds.",
        ),
    )


def _freshness(spec: PipelineSpec, longest: timedelta | None) -> dg.FreshnessPolicy | None:
    if longest is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=longest, warn_window=longest * spec.freshness.warn_after)


def _dep(spec: PipelineSpec, stage: tuple[str, ...], mapping: dg.PartitionMapping | None = None) -> dg.AssetDep:
    return dg.AssetDep(dg.AssetKey([spec.team, spec.name, *stage]), partition_mapping=mapping)


def _earlier(spec: PipelineSpec) -> dg.PartitionMapping:
    """Return the mapping to the periods whose promotion may be in force: all earlier ones.

    Built-in mappings cannot say "earlier" from time × group to time; there it is all periods, and the stage
    itself looks at earlier ones only.
    """
    if spec.partitions.group is not None:
        return dg.AllPartitionMapping()
    training = spec.training.model_copy(update={"window": "expanding"})
    return past_window(spec.model_copy(update={"training": training}))


def _landing(spec: PipelineSpec) -> list[dg.AssetSpec]:
    files = {LANDED: (spec.source.url, spec.source.format)} | {
        name: (side.url, side.format) for name, side in spec.source.side_tables.items()
    }
    return [
        dg.AssetSpec(
            key=dg.AssetKey([spec.team, spec.name, "landing", name]),
            description=f"Files that arrive at {url}.",
            kinds={file_format},
            group_name=f"{spec.team}__{spec.name}",
            owners=list(spec.owners),
        )
        for name, (url, file_format) in files.items()
    ]


def _code_version(
    pipeline: LoadedPipeline,
    runner: Callable[..., Any],
    parts: Sequence[str],
    *,
    features: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> str:
    """Return a digest of what decides a stage's content beside its input: its part of the YAML and its code."""
    dumped = pipeline.spec.model_dump(mode="json", include=set(parts))
    content = {
        "generation": CODE_GENERATION,
        "spec": dumped,
        "runner": f"{runner.__module__}.{runner.__qualname__}",
        "runner_code": _own_code(runner),
        "features": pipeline.features.digest if features else "",
        "extra": dict(extra or {}),
    }
    return document_digest(content)[:16]


def _own_code(runner: Callable[..., Any]) -> str:
    """Return a digest of the file in which a team replaced a stage.

    It is empty for the standard ones, which `CODE_GENERATION` speaks for.
    """
    standard = runner.__module__.partition(".")[0] == __name__.partition(".")[0]
    return "" if standard else code_digest(Path(inspect.getfile(runner)))


def _code_references(pipeline: LoadedPipeline) -> dict[str, Any]:
    places = [(pipeline.file, 1, "the pipeline's YAML"), (pipeline.features.file, 1, "its feature functions")]
    places += [(f.file, f.line, f"how {name} is trained") for name, f in pipeline.train_functions.items()]
    return {
        "dagster/code_references": dg.CodeReferencesMetadataValue(
            code_references=[
                dg.LocalFileCodeReference(file_path=str(file), line_number=line, label=label)
                for file, line, label in places
            ]
        )
    }
