"""Dagster's run queue: every run that enters it is tagged with its team, what it needs and costs, and what it decides.

A run of a team whose budget is spent, or that could never start, is refused here when the rules of sharing say so.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.events import EngineEventData  # noqa: TID251
from dagster._core.run_coordinator import (  # noqa: TID251 - the class that the daemon asks for
    QueuedRunCoordinator,
    SubmitRunContext,
)

from ml_assets.errors import MlAssetsError

if TYPE_CHECKING:
    from resources.admission import Admission

DECIDES_TAG = "ml_assets/decides"
"""On a run that can change the champion of a pipeline; dagster.yaml lets one run of each value go at a time."""

DECIDING_STAGES = frozenset({"evaluation", "promotion"})

INTERVAL_SECONDS = 0.5
"""The daemon sleeps half a second at a time, so less would not be sooner; a look at an empty queue takes about 1 ms."""

_DAEMON_TAGS = ("dagster/backfill", "dagster/schedule_name", "dagster/sensor_name", "dagster/auto_materialize")
_DAEMON_TAGS += ("dagster/from_automation_condition", "dagster/retry_number")
"""Tags of runs that a daemon submits for nobody in particular: an error would end its work for other runs, too."""

_log = logging.getLogger("ml_assets.queue")


def decided(selection: Iterable[dg.AssetKey]) -> str:
    """Return `team/pipeline` of the stages in the selection that decide, joined by commas; empty if none does."""
    return ",".join(sorted({"/".join(key.path[:-1]) for key in selection if key.path[-1] in DECIDING_STAGES}))


class PromptRunQueue(QueuedRunCoordinator):
    """The queued run coordinator with tags, refusals and a shorter wait between two looks; its settings are Dagster's.

    run_coordinator:
      module: resources.run_queue
      class: PromptRunQueue
    """

    @property
    def dequeue_interval_seconds(self) -> Any:
        """Return how long the daemon waits between two looks at the queue: Dagster's setting takes whole seconds."""
        return INTERVAL_SECONDS

    @cached_property
    def _admission(self) -> "Admission":
        from resources.admission import Admission  # not before the first run: most processes submit none
        from resources.profiles import current_profile

        profile = current_profile()
        return Admission(self._instance, profile.policy_source(profile.policy_url), profile.spend())

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Tag a run before the daemon can see it in the queue, and queue it unless it is refused.

        Raises:
            QueueRefusedError: If somebody launches a run that is refused; one that a daemon submits just fails, with
                the same words in its log.
            MissingGpusError: The same, when this machine has too few GPUs for a step that cannot run without.
        """
        run = context.dagster_run
        pipeline = decided(run.asset_selection or ())
        tags = {**self._admission.tags(run), **({DECIDES_TAG: pipeline} if pipeline else {})}
        self._instance.add_run_tags(run.run_id, tags)
        refusal = self._missing_gpus(run) or self._admission.refusal(tags, now=datetime.now(UTC))
        if refusal is None:
            return super().submit_run(context)
        if not _is_of_a_daemon(run.tags):
            raise refusal  # Dagster marks the run as failed with it and shows it to whoever launched the run
        _log.warning("Run %s is refused: %s", run.run_id, refusal)
        self._instance.report_engine_event(str(refusal), run, EngineEventData())
        self._instance.report_run_failed(run, str(refusal))
        found = self._instance.get_run_by_id(run.run_id)
        return run if found is None else found

    def _missing_gpus(self, run: dg.DagsterRun) -> MlAssetsError | None:
        from resources.gpu_refusal import refuse_missing_gpus

        try:
            refuse_missing_gpus(self._instance, run)
        except MlAssetsError as error:
            return error
        return None


def _is_of_a_daemon(tags: Mapping[str, str]) -> bool:
    return any(tag in tags for tag in _DAEMON_TAGS)
