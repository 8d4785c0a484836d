"""Turns a stage whose longest part several steps do together into one Dagster asset with a graph of steps below it.

The workers come first, each with the stage's compute and in its pool; the stage itself follows them. Which of them did
what is theirs to settle: a worker that comes when all is done has nothing to do.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import dagster as dg

from ml_assets.assets.stage_asset import (
    RESOURCE_KEYS,
    Stage,
    accept,
    asset_key,
    asset_tags,
    failure,
    run_stage,
    step_of,
)
from ml_assets.compute import op_tags
from ml_assets.errors import MlAssetsError
from ml_assets.reading.pipeline_file import LoadedPipeline

_OUTPUT, _WORKED, _LAST = "result", "worked", "fit"


def build_shared_asset(pipeline: LoadedPipeline, stage: Stage) -> dg.AssetsDefinition:
    """Return the Dagster asset of a stage with workers; it has no checks, and its runs have one partition each."""
    key = asset_key(pipeline, stage)
    name = "__".join(key.path)
    inputs = {dep.asset_key.path[-1]: dep for dep in stage.deps}
    worker = _op(pipeline, stage, f"{name}__worker", partial(_work, pipeline=pipeline, stage=stage), set(inputs))
    last = _op(pipeline, stage, f"{name}__{_OUTPUT}", partial(run_stage, pipeline=pipeline, stage=stage), {_WORKED})

    @dg.graph(name=name, ins={each: dg.GraphIn() for each in inputs}, out={_OUTPUT: dg.GraphOut()})
    def steps(**upstream: Any) -> Any:
        worked = [worker.alias(f"worker_{number}")(**upstream) for number in range(1, stage.workers + 1)]
        return last.alias(_LAST)(**{_WORKED: worked})

    assets = dg.AssetsDefinition.from_graph(
        steps,
        keys_by_input_name={each: dep.asset_key for each, dep in inputs.items()},
        keys_by_output_name={_OUTPUT: key},
        partitions_def=stage.partitions,
        partition_mappings={each: dep.partition_mapping for each, dep in inputs.items() if dep.partition_mapping},
        group_name=f"{pipeline.spec.team}__{pipeline.spec.name}",
        backfill_policy=dg.BackfillPolicy.multi_run(1),
    )
    return assets.map_asset_specs(
        lambda spec: spec.replace_attributes(
            description=stage.description,
            kinds=set(stage.kinds),
            owners=list(pipeline.spec.owners),
            tags=asset_tags(pipeline, stage),
            code_version=stage.code_version,
            metadata={**spec.metadata, **stage.metadata},
            freshness_policy=stage.freshness,
        )
    )


def _op(pipeline: LoadedPipeline, stage: Stage, name: str, run: Any, inputs: set[str]) -> dg.OpDefinition:
    def step(context: dg.OpExecutionContext) -> Iterator[Any]:
        yield from run(context)

    return dg.op(
        name=name,
        ins={each: dg.In(dg.Nothing) for each in inputs},
        out=dg.Out(dg.Nothing) if _WORKED not in inputs else dg.Out(),
        pool=stage.pool,
        tags=op_tags(stage.compute),
        required_resource_keys=set(RESOURCE_KEYS),
        description=stage.description,
    )(step)


def _work(context: dg.OpExecutionContext, pipeline: LoadedPipeline, stage: Stage) -> Iterator[Any]:
    """Have a worker do its part for the run's partition."""
    accept(context)
    (partition,) = context.partition_keys
    assert stage.work is not None  # noqa: S101 - a stage without it has no workers
    try:
        context.log.info(stage.work(step_of(context, pipeline, stage, partition)))
    except MlAssetsError as error:
        raise failure(f"[{partition}] {error}", {partition: error}) from error
    yield dg.Output(None)
