"""One turn of a pipeline's automation: see what became of its run, decide, record, and say what to start."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ml_assets.interfaces import Ledger, PipelinePath
from ml_assets.retraining.attempts import Attempt, History
from ml_assets.retraining.decide import decide
from ml_assets.retraining.decision import RetrainingDecision
from ml_assets.retraining.gathering import gather
from ml_assets.retraining.pauses import paused
from ml_assets.retraining.recording import history_of, record_decision, record_end
from ml_assets.retraining.runs import RunHistory, TrainingRun
from ml_assets.retraining.situation import Situation
from ml_assets.stages.step import Step

UNSTARTED = timedelta(hours=1)
"""How long a start is asked for that no run follows; then its run counts as lost."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A run to ask the engine for; asking again for the same key makes no second one.

    Attributes:
        pipeline: (team, pipeline).
        period: Time partition.
        key: The attempt.
        run_key: The run of it.
        why: Causes, a word each.
    """

    pipeline: PipelinePath
    period: str
    key: str
    run_key: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one look at a pipeline came to.

    Attributes:
        decision: What was decided.
        start: A run to ask for now, or None.
    """

    decision: RetrainingDecision
    start: Start | None = None

    @property
    def next_look(self) -> datetime | None:
        """Return when time alone may change the decision."""
        return self.decision.next_look


def take_turn(
    step: Step,
    runs: RunHistory,
    now: datetime,
    *,
    look: Callable[[Step, History, datetime], Situation] = gather,
) -> Turn:
    """Carry a pipeline's automation on by one step.

    A start is recorded before its run is asked for. After a crash between the two the next turn finds the start
    without a run, and asks for it again under the same key.

    Args:
        step: Any step of the pipeline: its description and the world; partition and run are not used.
        runs: The engine's memory of runs.
        now: The instant, UTC.
        look: Gathers the situation.
    """
    ledger, path = step.services.ledger, step.path
    history = history_of(ledger, path)
    newest = history.newest
    asked_again: Start | None = None
    if newest is not None and newest.is_open:
        run = runs.find(newest.run_key)
        if run is None and now < newest.starts[-1] + UNSTARTED:
            asked_again = None if paused(ledger, path) else _start(path, newest)
        elif run is None or run.state != "running":
            end_run(ledger, path, newest, run, now)
            history = history_of(ledger, path)
    situation = look(step, history, now)
    decision = record_decision(ledger, situation, lambda seen: decide(seen, step.policy, now), now)
    if decision.outcome != "retrain" or decision.period is None:
        return Turn(decision=decision, start=asked_again)
    why = ", ".join(cause.name for cause in decision.causes if cause.counts)
    start = Start(pipeline=path, period=decision.period, key=decision.key, run_key=decision.run_key, why=why)
    return Turn(decision=decision, start=start)


def end_run(ledger: Ledger, path: PipelinePath, attempt: Attempt, run: TrainingRun | None, now: datetime) -> None:
    """Record the end of an attempt's run; one that never came to be is lost."""
    if run is None:
        hours = UNSTARTED / timedelta(hours=1)
        run = TrainingRun(run_id="", state="lost", reason=f"no run was made for it within {hours:g} hour")
    decided = [d for d in ledger.decisions(path) if d.run_id == run.run_id and d.partition == attempt.period]
    record_end(ledger, path, attempt, run, decided[-1] if decided else None, now)


def _start(path: PipelinePath, attempt: Attempt) -> Start:
    return Start(
        pipeline=path,
        period=attempt.period,
        key=attempt.key,
        run_key=attempt.run_key,
        why=", ".join(attempt.causes),
    )
