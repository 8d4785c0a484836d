"""What became of the runs that were requested for retrainings, read from Dagster's storage."""

from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg

from ml_assets.interfaces import PipelinePath
from ml_assets.retraining.runs import RunState, TrainingRun
from sensors.run_facts import run_facts

RUN_KEY_TAG = "dagster/run_key"
RUN_TAG = "ml_assets/automation_run"
"""Run tag: the run of an attempt, so that it is found whoever made it."""


@dataclass(frozen=True, kw_only=True)
class DagsterRuns:
    """A `RunHistory` over a Dagster instance.

    Attributes:
        instance: Where the runs are.
        pipeline: Whose runs they are.
        cores: Key of a stage's step, such as shop__returns__models__boosting → cores that it may use; 1 for any other.
    """

    instance: dg.DagsterInstance
    pipeline: PipelinePath
    cores: Mapping[str, int]

    def find(self, run_key: str) -> TrainingRun | None:
        """Return the run that was made for a key, or None when there is none; the newest, when people repeated it."""
        records = self.instance.get_run_records(dg.RunsFilter(tags={RUN_TAG: run_key}), limit=1)
        if not records:
            return None
        run = records[0].dagster_run
        if not run.is_finished:
            return TrainingRun(run_id=run.run_id, state="running")
        state, reason = self._ended(run.run_id)
        return TrainingRun(run_id=run.run_id, state=state, reason=reason, core_hours=self._core_hours(run.run_id))

    def _ended(self, run_id: str) -> tuple[RunState, str]:
        facts = run_facts(self.instance, run_id, self.pipeline)
        if facts is None:
            return "running", ""
        if facts.ended == "success":
            return "succeeded", ""
        if facts.ended == "canceled":
            return "failed", facts.message or "somebody cancelled the run"
        if not facts.failures:
            return "lost", facts.message or "the run ended without a step that failed"
        failed = facts.failures[0]
        told = [failure.transient for each in facts.failures for failure in each.partitions.values()]
        state: RunState = "lost" if told and all(told) else "failed"
        return state, f"{failed.stage}: {failed.message}"

    def _core_hours(self, run_id: str) -> float:
        total = 0.0
        for step in self.instance.get_run_step_stats(run_id):
            if step.start_time is not None and step.end_time is not None:
                stage = step.step_key.partition(".")[0]  # a search's workers are steps below their stage
                total += (step.end_time - step.start_time) / 3600 * self.cores.get(stage, 1)
        return round(total, 6)
