"""Verdicts, decisions and records to test with."""

from typing import Any

from ml_assets.interfaces import Decision, Record, Verdict

ASSET = ("flights", "arrival_delay", "raw_data")
PIPELINE = ("flights", "arrival_delay")


def verdict(**changes: Any) -> Verdict:
    """Return a verdict to test with, changed in the given fields."""
    fields: dict[str, Any] = {
        "asset": ASSET,
        "partition": "EWR|2013-01",
        "data_version": "d" * 64,
        "policy_version": "p" * 64,
        "check": "expectations",
        "outcome": "passed",
        "severity": "error",
        "reason": "All 12 expectations hold.",
        "run_id": "run-1",
    }
    return Verdict(**fields | changes)


def decision(**changes: Any) -> Decision:
    """Return a decision to test with, changed in the given fields."""
    fields: dict[str, Any] = {
        "pipeline": PIPELINE,
        "partition": "2013-02",
        "outcome": "promoted",
        "reason": "ROC AUC 0.712 against 0.698.",
        "model_name": "flights.arrival_delay",
        "model_version": "3",
        "champion_version": "2",
        "data_version": "e" * 64,
        "policy_version": "p" * 64,
        "run_id": "run-1",
    }
    return Decision(**fields | changes)


def record(**changes: Any) -> Record:
    """Return a record to test with, changed in the given fields."""
    fields: dict[str, Any] = {
        "pipeline": PIPELINE,
        "kind": "approval",
        "subject": "m" * 64,
        "body": {"by": "ada", "reason": "The new source was reviewed."},
    }
    return Record(**fields | changes)
