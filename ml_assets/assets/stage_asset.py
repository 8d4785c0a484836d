"""Turns one stage into one Dagster asset that runs one partition, or a range of them in one run."""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (  # noqa: TID251 - a range run
    AssetCheckEvaluation,  # reports each partition's own check; only this event carries a partition
)

from ml_assets.compute import op_tags
from ml_assets.delivery.outcome import failed_partition
from ml_assets.delivery.tags import BATCH_TAG, FAILED_PARTITIONS
from ml_assets.errors import MlAssetsError
from ml_assets.gates import Judgement, to_verdicts
from ml_assets.interfaces import StepResources
from ml_assets.metadata import asset_metadata, check_metadata
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.stages.predictions import NoChampionYet
from ml_assets.stages.step import LAUNCHED_BY_TAG, Services, StageResult, Step

RESOURCE_KEYS = frozenset(field.name for field in fields(Services))
Context = dg.AssetExecutionContext | dg.OpExecutionContext
DATA_VERSION_TAG, CODE_VERSION_TAG = "dagster/data_version", "dagster/code_version"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One gate of a stage as Dagster shows it."""

    gate: str
    blocking: bool
    description: str

    @property
    def name(self) -> str:
        """Return the gate's name in the form Dagster takes for a check, without dots."""
        return self.gate.replace(".", "__")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of one pipeline.

    Attributes:
        path: Last segments of its asset key, such as ("models", "forest").
        run: What it does for one partition.
        description: One sentence for the UI.
        kinds: Icons the UI shows; at most three.
        partitions: Its partitions.
        deps: What it depends on.
        code_version: Digest of the code and configuration that decide its content.
        checks: Its gates.
        ranges: Whether one run may take many partitions.
        skippable: Whether a partition may end without a materialization.
        pool: Dagster pool that bounds how many run at once, or None.
        compute: What the step gets.
        metadata: Definition metadata, such as code references.
        freshness: How old its newest materialization may become, or None.
        workers: Steps of their own that do the longest part together, before the stage itself; 0 for none.
        work: What each of these does for one partition, returning what came of it in a sentence.
    """

    path: tuple[str, ...]
    run: Callable[[Step], StageResult]
    description: str
    kinds: frozenset[str]
    partitions: dg.PartitionsDefinition
    deps: Sequence[dg.AssetDep]
    code_version: str
    checks: Sequence[Check] = ()
    ranges: bool = False
    skippable: bool = False
    pool: str | None = None
    compute: StepResources = field(default_factory=StepResources)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    freshness: dg.FreshnessPolicy | None = None
    workers: int = 0
    work: Callable[[Step], str] | None = None


_SIGNATURE = inspect.Signature(
    [inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=dg.AssetExecutionContext)],
    return_annotation=Iterator[Any],
)


def _inspected_before(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Give an asset's function the signature that all of them have; Dagster asks for it 17 times an asset."""
    vars(function)["__signature__"] = _SIGNATURE
    return function


def build_stage_asset(pipeline: LoadedPipeline, stage: Stage) -> dg.AssetsDefinition:
    """Return the Dagster asset of a stage."""
    spec = pipeline.spec
    key = asset_key(pipeline, stage)

    @dg.asset(
        key=key,
        deps=list(stage.deps),
        description=stage.description,
        kinds=set(stage.kinds),
        owners=list(spec.owners),
        group_name=f"{spec.team}__{spec.name}",
        tags=asset_tags(pipeline, stage),
        partitions_def=stage.partitions,
        code_version=stage.code_version,
        check_specs=[
            dg.AssetCheckSpec(
                name=c.name,
                asset=key,
                description=c.description,
                blocking=c.blocking,
                partitions_def=stage.partitions,
            )
            for c in stage.checks
        ],
        backfill_policy=dg.BackfillPolicy.single_run() if stage.ranges else dg.BackfillPolicy.multi_run(1),
        pool=stage.pool,
        op_tags=op_tags(stage.compute),
        output_required=not stage.skippable,
        required_resource_keys=set(RESOURCE_KEYS),
        metadata=dict(stage.metadata),
        freshness_policy=stage.freshness,
    )
    @_inspected_before
    def asset(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from run_stage(context, pipeline, stage)

    return asset


def asset_key(pipeline: LoadedPipeline, stage: Stage) -> dg.AssetKey:
    """Return the key of a stage's asset."""
    return dg.AssetKey([pipeline.spec.team, pipeline.spec.name, *stage.path])


def asset_tags(pipeline: LoadedPipeline, stage: Stage) -> dict[str, str]:
    """Return the tags of a stage's asset."""
    return {
        "ml_assets/pipeline": pipeline.spec.name,
        "ml_assets/stage": stage.path[0],
        "ml_assets/classification": pipeline.spec.business.data_classification,
    }


def run_stage(context: Context, pipeline: LoadedPipeline, stage: Stage) -> Iterator[Any]:
    """Yield what a step that runs a stage tells Dagster of its partitions."""
    accept(context)
    keys = list(context.partition_keys)
    yield from (
        _run_one(context, pipeline, stage, keys[0]) if len(keys) == 1 else _run_range(context, pipeline, stage, keys)
    )


def step_of(context: Context, pipeline: LoadedPipeline, stage: Stage, partition: str) -> Step:
    """Return what a stage is given of a partition and the run."""
    return Step(
        pipeline=pipeline,
        services=Services(**{key: getattr(context.resources, key) for key in RESOURCE_KEYS}),
        partition=partition,
        run_id=context.run.run_id,
        launched_by=context.run.tags.get(LAUNCHED_BY_TAG, ""),
        resources=stage.compute,
    )


@dataclass(frozen=True, kw_only=True)
class _Finished:
    """One partition that a stage finished, with everything Dagster is told of it."""

    partition: str
    result: StageResult
    metadata: dict[str, dg.MetadataValue]


def _run_one(
    context: Context, pipeline: LoadedPipeline, stage: Stage, partition: str
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    try:
        done = _finish(context, pipeline, stage, partition)
    except NoChampionYet as state:
        context.log.warning(str(state))
        yield from (_not_judged(check, str(state)) for check in stage.checks)
        return
    except MlAssetsError as error:
        raise failure(f"[{partition}] {error}", {partition: error}) from error
    yield dg.MaterializeResult(
        metadata=done.metadata,
        data_version=dg.DataVersion(done.result.stored.data_version),
        check_results=[_check_result(check, j) for check, j in _shown(stage, done.result)],
    )


def _run_range(
    context: Context, pipeline: LoadedPipeline, stage: Stage, partitions: Sequence[str]
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Run every partition; one that fails does not keep its neighbours from being done.

    Dagster gives all partitions of a range one data version and its checks none at all, so each partition's own
    events are written after (or, when some failed, instead of) the range's.
    """
    finished: list[_Finished] = []
    problems: dict[str, MlAssetsError] = {}
    skipped = 0
    for partition in partitions:
        try:
            finished.append(_finish(context, pipeline, stage, partition))
        except NoChampionYet as state:
            context.log.warning(str(state))
            skipped += 1
        except MlAssetsError as error:
            problems[partition] = error
    if not problems:
        checks = [_range_check(c, stage, finished) for c in stage.checks]
        yield from checks if skipped else [dg.MaterializeResult(check_results=checks)]
    for done in finished:
        _log_partition(context, stage, done)
    if problems:
        listed = "\n".join(f"[{partition}] {error}" for partition, error in problems.items())
        text = f"{len(problems)} of {len(partitions)} partitions failed; the others are done.\n{listed}"
        raise failure(text, problems)


def failure(description: str, problems: Mapping[str, MlAssetsError]) -> dg.Failure:
    """Return the failure of a step, with what each partition failed of for whoever may try again."""
    told = {partition: failed_partition(error) for partition, error in problems.items()}
    return dg.Failure(description=description, metadata={FAILED_PARTITIONS: told}, allow_retries=False)


def accept(context: Context) -> None:
    """Ask the inbox whether this run may carry its batch; a run without one is not asked, nor is a person's repeat.

    Raises:
        dg.Failure: If another run has the batch, or it is over.
    """
    run = context.run
    batch = run.tags.get(BATCH_TAG)
    if batch is None or run.parent_run_id is not None:
        return
    if not context.resources.inbox.start(batch, run.run_id, now=datetime.now(UTC)):
        raise dg.Failure(
            description=f"Another run carries the events of batch {batch}, or a later batch does; this run made "
            f"nothing and nothing is lost. Look for runs with the tag {BATCH_TAG}={batch}.",
            allow_retries=False,
        )


def _finish(context: Context, pipeline: LoadedPipeline, stage: Stage, partition: str) -> _Finished:
    """Run the stage on one partition and bind its judgements to the data version, in the ledger."""
    step = step_of(context, pipeline, stage, partition)
    started = time.perf_counter()
    result = stage.run(step)
    if result.judgements:
        verdicts = to_verdicts(
            result.judgements,
            asset=result.stored.asset,
            partition=partition,
            data_version=result.stored.data_version,
            policy_version=result.policy_version,
            run_id=context.run.run_id,
            policy_digest=step.policy.digest,
        )
        step.services.ledger.record_verdicts(verdicts)
    seconds = time.perf_counter() - started
    metadata = asset_metadata(step, result, code_version=stage.code_version, duration_seconds=seconds)
    return _Finished(partition=partition, result=result, metadata=metadata)


def _shown(stage: Stage, result: StageResult) -> list[tuple[Check, Judgement]]:
    """Return the stage's checks, each with what was judged."""
    judged = {j.check: j for j in result.judgements}
    return [(check, judged.get(check.gate) or _silent(check)) for check in stage.checks]


def _silent(check: Check) -> Judgement:
    """Return what a check shows when a replaced stage says nothing of it: a gate that nobody judged is closed."""
    severity = "error" if check.blocking else "warning"
    reason = f"the stage returned no judgement of {check.gate}"
    return Judgement(check=check.gate, passed=not check.blocking, severity=severity, reason=reason, evidence={})


def _check_result(check: Check, judgement: Judgement) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=check.name,
        passed=judgement.passed,
        severity=_severity(judgement),
        description=judgement.reason,
        metadata=check_metadata(judgement),
    )


def _not_judged(check: Check, why: str) -> dg.AssetCheckResult:
    """Return what a check shows when its stage had nothing to do: Dagster wants a result of every check."""
    severity = dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(check_name=check.name, passed=True, severity=severity, description=f"not judged: {why}")


def _range_check(check: Check, stage: Stage, finished: Sequence[_Finished]) -> dg.AssetCheckResult:
    failed = [
        done.partition
        for done in finished
        for shown, judgement in _shown(stage, done.result)
        if shown == check and not judgement.passed
    ]
    # WARN, so that one bad partition does not stop the range's others: the gate of each partition does that.
    return dg.AssetCheckResult(
        check_name=check.name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"failed on {', '.join(failed)}" if failed else f"holds on all {len(finished)} partitions",
    )


def _log_partition(context: Context, stage: Stage, done: _Finished) -> None:
    key = context.asset_key
    context.log_event(
        dg.AssetMaterialization(
            asset_key=key,
            partition=done.partition,
            metadata=done.metadata,
            tags={DATA_VERSION_TAG: done.result.stored.data_version, CODE_VERSION_TAG: stage.code_version},
        )
    )
    for check, judgement in _shown(stage, done.result):
        context.log_event(
            AssetCheckEvaluation(  # pyright: ignore[reportArgumentType]
                asset_key=key,
                check_name=check.name,
                passed=judgement.passed,
                metadata=check_metadata(judgement),
                severity=_severity(judgement),
                description=judgement.reason,
                blocking=check.blocking,
                partition=done.partition,
            )
        )


def _severity(judgement: Judgement) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if judgement.severity == "error" else dg.AssetCheckSeverity.WARN
