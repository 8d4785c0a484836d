"""What retraining asks of the engine: what became of the run that was requested under a key."""

from dataclasses import dataclass
from typing import Literal, Protocol

RunState = Literal["running", "succeeded", "failed", "lost"]
"""running: queued, starting or at work; failed: a step said why; lost: killed, never started or cut off by an outage,
so that trying again may help."""


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """One run of a retraining.

    Attributes:
        run_id: The engine's name for it.
        state: See `RunState`.
        reason: Why it failed or was lost, in a sentence; empty otherwise.
        core_hours: Time of its steps so far, times the cores that each may use.
    """

    run_id: str
    state: RunState
    reason: str = ""
    core_hours: float = 0.0


class RunHistory(Protocol):
    """The engine's memory of runs."""

    def find(self, run_key: str) -> TrainingRun | None:
        """Return the run that was made for a key, or None when there is none."""
        ...
