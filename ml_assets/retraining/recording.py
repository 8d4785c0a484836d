"""Records what automation decides, starts and sees end: append-only, and only what differs from the last time."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from ml_assets.interfaces import Decision, Ledger, PipelinePath, Record
from ml_assets.retraining.attempts import Attempt, Ending, History, read_history
from ml_assets.retraining.decision import RetrainingDecision, gist
from ml_assets.retraining.runs import TrainingRun
from ml_assets.retraining.situation import Situation

KIND = "automation"


def history_of(ledger: Ledger, path: PipelinePath) -> History:
    """Return what automation recorded of a pipeline."""
    return read_history(ledger.records(path, kind=KIND))


def request_retraining(ledger: Ledger, path: PipelinePath, *, by: str, reason: str, now: datetime) -> Record:
    """Record that somebody wants a retraining; the next decision has it as a cause."""
    return _append(ledger, path, "", {"event": "request", "by": by, "reason": reason.strip().rstrip(".")}, now)


def record_end(
    ledger: Ledger, path: PipelinePath, attempt: Attempt, run: TrainingRun, decided: Decision | None, now: datetime
) -> Record:
    """Record how the newest run of an attempt ended.

    Args:
        ledger: Where it is recorded.
        path: The pipeline.
        attempt: The attempt, whose run is under way as far as the ledger knows.
        run: What became of the run.
        decided: The last decision that the run recorded; None when it came to none.
        now: The instant.
    """
    ending: Ending = "succeeded"
    reason = run.reason
    if decided is not None:
        ending = "refused" if decided.outcome == "refused" else "succeeded"
        reason = decided.reason
    elif run.state != "succeeded":
        ending = "lost" if run.state == "lost" else "failed"
    body = {
        "event": "ended",
        "key": attempt.key,
        "number": len(attempt.starts),
        "ending": ending,
        "run_id": run.run_id,
        "reason": reason.strip().rstrip("."),
        "core_hours": run.core_hours,
    }
    return _append(ledger, path, attempt.period, body, now)


def record_decision(
    ledger: Ledger,
    situation: Situation,
    decide: Callable[[Situation], RetrainingDecision],
    now: datetime,
) -> RetrainingDecision:
    """Decide and record, in one transaction that looks again at what automation recorded meanwhile.

    Nothing is appended when the last recorded decision says the same; a start is always appended, before its run is
    asked for.

    Args:
        ledger: Where it is recorded.
        situation: What there is, with the history as it was read.
        decide: Given the situation with the history as it is now, returns the decision.
        now: The instant.
    """
    proposed = decide(situation)
    if not _is_new(proposed, situation.history):
        return proposed
    with ledger.exclusive(situation.pipeline) as view:
        history = read_history(view.records(situation.pipeline, kind=KIND))
        if history.head != situation.history.head:
            proposed = decide(replace(situation, history=history))
        if _is_new(proposed, history):
            body = proposed.to_body()
            view.append(_record(situation.pipeline, proposed.period or "", body, now))
    return proposed


def _is_new(decision: RetrainingDecision, history: History) -> bool:
    last = history.last
    return last is None or gist(decision.period, decision.to_body()) != gist(last.get("period"), last)


def _append(ledger: Ledger, path: PipelinePath, subject: str, body: dict[str, Any], now: datetime) -> Record:
    return ledger.append(_record(path, subject, body, now))


def _record(path: PipelinePath, subject: str, body: dict[str, Any], now: datetime) -> Record:
    return Record(pipeline=path, kind=KIND, subject=subject, body={**body, "period": subject}, recorded_at=now)
