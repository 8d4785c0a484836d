"""Makes the row index of every period whose data are complete, by one declarative condition a pipeline.

The condition stands on one asset a pipeline, `row_index`: a condition on every asset costs a core. It holds for a
period when the features of all its groups are there and newer than the index, none of them is being made, the
pipeline is not paused, and no gate of theirs is closed. The last two are asked of the ledger, for the current data
version: Dagster's own check conditions know neither versions nor waivers, and are wrong through some mappings.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.sensor_definition import SensorExecutionData  # noqa: TID251 - what a tick returns

from ml_assets.assets.previews import quiet_previews
from ml_assets.assets.team_pipeline import TeamPipeline, team_pipeline
from ml_assets.interfaces import PipelinePath
from ml_assets.retraining.gathering import complete_features
from ml_assets.retraining.pauses import paused
from ml_assets.stages.step import LAUNCHED_BY_TAG, Services, Step

SENSOR = "conditions"
INTERVAL_SECONDS = 30
TRIGGER = "row_index"
LOOKS = 2
LOOK_AGAIN_SECONDS = 600.0
"""After this time the conditions are evaluated although nothing happened."""


class _OfLedger(dg.AutomationCondition[dg.AssetKey]):
    """What the ledger says of a pipeline's periods; evaluated in the code location, which alone has the ledger."""

    def __init__(self, pipeline: TeamPipeline, services: Services) -> None:
        self._pipeline, self._services = pipeline, services

    @property
    def _step(self) -> Step:
        """Return a step of its own for each evaluation: a step reads the policy once."""
        return Step(pipeline=self._pipeline.loaded, services=self._services, partition="", run_id="")


class NotPaused(_OfLedger):
    """True while no pause holds for the pipeline."""

    @property
    def name(self) -> str:
        """Return what the UI shows."""
        return f"{'/'.join(self._pipeline.path)} is not paused"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """Return the candidates when nothing is paused, and none otherwise."""
        candidates = context.candidate_subset
        if not candidates.is_empty and paused(self._services.ledger, self._pipeline.path) is not None:
            candidates = context.get_empty_subset()
        return dg.AutomationResult(context, candidates)


class GatesOpen(_OfLedger):
    """True for periods of which the ledger lets every group's raw data and features be used, as they are now."""

    @property
    def name(self) -> str:
        """Return what the UI shows."""
        return f"every gate of {'/'.join(self._pipeline.path)} is open for the period's data versions"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """Return the candidates whose gates are open."""
        candidates = context.candidate_subset
        if candidates.is_empty:
            return dg.AutomationResult(context, candidates)
        step = self._step
        keys = candidates.expensively_compute_partition_keys()
        usable = {key for key in sorted(keys) if not isinstance(complete_features(step, key), str)}
        return dg.AutomationResult(context, candidates.compute_intersection_with_partition_keys(usable))


def row_index_condition(pipeline: TeamPipeline, services: Services) -> dg.AutomationCondition[dg.AssetKey]:
    """Return when a period's row index is to be made (again).

    What was requested once is not requested again before its features are made anew, even when its run failed: a
    condition on what is missing alone would start a run a tick.
    """
    condition = dg.AutomationCondition
    outdated = (condition.missing().newly_true() | condition.any_deps_updated()).since(
        condition.newly_requested() | condition.newly_updated()
    )
    return (
        outdated.with_label("features are newer, or there is no row index")
        & ~condition.any_deps_missing()
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress()
        & NotPaused(pipeline, services)
        & GatesOpen(pipeline, services)
    ).with_label("every group's features are there, newer than the row index, and may be used")


def attach_conditions(definitions: dg.Definitions, services: Services) -> dg.Definitions:
    """Return the definitions with a condition on the row index of every pipeline that retrains by itself.

    Args:
        definitions: A code location's pipelines, each as `TrainingPipeline` makes it.
        services: What the pipelines run with.
    """
    assets = list(definitions.assets or [])
    found = (team_pipeline(asset) for asset in assets if isinstance(asset, dg.AssetsDefinition))
    triggers = {p.key(TRIGGER): p for p in found if p is not None and p.spec.automation.retraining}
    if not triggers:
        return definitions
    parts = {name: getattr(definitions, name) for name in PARTS}
    return dg.Definitions(**parts, assets=[_with_condition(asset, triggers, services) for asset in assets])


PARTS = ("asset_checks", "schedules", "sensors", "jobs", "resources", "loggers", "executor")
"""What definitions hold beside assets."""


class RestingConditions(dg.AutomationConditionSensorDefinition):
    """Evaluates nothing while nothing happened: conditions follow from events and from the ledger alone.

    A look at a hundred pipelines takes most of a second of CPU, every half minute. Conditions need one look more after
    an event than the one that sees it, and one that asked for runs is followed by another.

    Attributes:
        ledger_mark: Returns a text that changes whenever the ledger does.
    """

    ledger_mark: Callable[[], str]
    _quiet: "tuple[Any, int, float] | None" = None

    def evaluate_tick(self, context: dg.SensorEvaluationContext) -> SensorExecutionData:
        """Evaluate the conditions, unless two looks at the same events have asked for nothing."""
        mark = (context.instance.event_log_storage.get_maximum_record_id(), self.ledger_mark(), context.cursor is None)
        seen, looks, at = self._quiet or (None, 0, 0.0)
        if mark == seen and looks >= LOOKS and time.monotonic() - at < LOOK_AGAIN_SECONDS:
            return SensorExecutionData(skip_message="Nothing happened since the last look.", cursor=context.cursor)
        result = super().evaluate_tick(context)
        looks = 0 if result.run_requests else looks + 1 if mark == seen else 1
        self._quiet = (mark, looks, time.monotonic())
        return result


def build_conditions_sensor(
    pipelines: Mapping[PipelinePath, TeamPipeline], ledger_mark: Callable[[], str]
) -> dg.SensorDefinition:
    """Return the sensor that evaluates the conditions of a code location, in the code location itself.

    Args:
        pipelines: (team, pipeline) → the pipeline; at least one retrains by itself.
        ledger_mark: Returns a text that changes whenever the ledger does.
    """
    keys = [p.key(TRIGGER) for p in pipelines.values() if p.spec.automation.retraining]
    with quiet_previews():
        sensor = RestingConditions(
            name=SENSOR,
            target=dg.AssetSelection.assets(*keys),
            minimum_interval_seconds=INTERVAL_SECONDS,
            default_status=dg.DefaultSensorStatus.RUNNING,
            # The daemon does not know conditions of ours: it would evaluate something else.
            use_user_code_server=True,
            # A backfill would wait for two ticks of its own daemon.
            emit_backfills=False,
            # What failed once is not asked for again before its features are made anew.
            run_tags={LAUNCHED_BY_TAG: f"sensor:{SENSOR}", "dagster/max_retries": "3"},
            description="Makes the row index of every period whose features are complete and let through by their "
            "gates.",
        )
    sensor.ledger_mark = ledger_mark
    return sensor


def _with_condition(asset: Any, triggers: Mapping[dg.AssetKey, TeamPipeline], services: Services) -> Any:
    if not isinstance(asset, dg.AssetsDefinition) or not (asset.keys & triggers.keys()):
        return asset
    (key,) = asset.keys
    condition = row_index_condition(triggers[key], services)
    return asset.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=condition))
