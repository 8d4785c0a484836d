"""What was decided about a retraining, and why: causes for it and guards against it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ml_assets.interfaces import EffectivePolicy

Outcome = Literal["retrain", "wait", "stop"]
"""stop: until a person or time lifts it (paused, switched off, breaker open); wait: no cause, or a guard holds."""
CauseName = Literal["new_data", "drift", "decay", "schedule", "person"]


@dataclass(frozen=True, kw_only=True)
class Cause:
    """What speaks for a retraining.

    Attributes:
        name: See `CauseName`.
        sentence: With numbers and the place in the policy.
        evidence: Digest of what it rests on; the same evidence never starts a second attempt.
        counts: Whether it may start one; False for what is only told, such as drift that harms nothing.
    """

    name: CauseName
    sentence: str
    evidence: str
    counts: bool = True


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What may hold a retraining back.

    Attributes:
        name: Such as "cooldown".
        holds: Whether it does now.
        sentence: With numbers and the place in the policy.
        until: When it stops holding by time alone (UTC); None when something must happen.
    """

    name: str
    holds: bool
    sentence: str
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class RetrainingDecision:
    """One decision.

    Attributes:
        outcome: See `Outcome`.
        period: Time partition that is, or would be, trained for; None when no period is complete.
        causes: Those that count first.
        guards: All that were asked, those that hold first.
        next_look: When time alone may change it (UTC); None when something must happen.
        key: Attempt that a run is to be started for; empty unless the outcome is "retrain".
        number: Which run of the attempt, from 1; 0 unless the outcome is "retrain".
        inputs: Digest of the data that would be read.
    """

    outcome: Outcome
    period: str | None
    causes: tuple[Cause, ...] = ()
    guards: tuple[Guard, ...] = ()
    next_look: datetime | None = None
    key: str = ""
    number: int = 0
    inputs: str = ""

    @property
    def run_key(self) -> str:
        """Return the key of the run to start."""
        return f"{self.key}:{self.number}"

    @property
    def holding(self) -> tuple[Guard, ...]:
        """Return the guards that hold it back."""
        return tuple(guard for guard in self.guards if guard.holds)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return why, a sentence each: the guards that hold, else the causes."""
        held = tuple(guard.sentence for guard in self.holding)
        counted = tuple(cause.sentence for cause in self.causes if cause.counts)
        return held or counted or ("Nothing speaks for a retraining.",)

    def to_body(self) -> dict[str, Any]:
        """Return it as the body of a record of kind "automation"."""
        return {
            "event": "decision",
            "outcome": self.outcome,
            "key": self.key,
            "number": self.number,
            "run_key": self.run_key if self.key else "",
            "inputs": self.inputs,
            "causes": [
                {"name": c.name, "sentence": c.sentence, "evidence": c.evidence, "counts": c.counts}
                for c in self.causes
            ],
            "guards": [
                {"name": g.name, "sentence": g.sentence, "until": None if g.until is None else g.until.isoformat()}
                for g in self.holding
            ],
        }


def gist(period: str | None, body: Any) -> tuple[Any, ...]:
    """Return what makes two decisions the same for the record: words and numbers may differ.

    Args:
        period: What it is about.
        body: As `RetrainingDecision.to_body` gives it.
    """
    return (
        period or "",
        body["outcome"],
        body["key"],
        body["number"],
        tuple((cause["name"], cause["counts"]) for cause in body["causes"]),
        tuple(guard["name"] for guard in body["guards"]),
    )


def place(policy: EffectivePolicy, *names: str) -> str:
    """Return settings with their values and where they stand, in brackets."""
    shown = []
    for name in names:
        setting = policy.settings[name]
        where = f"{setting.file}:{setting.line}" if setting.line else setting.file
        value = setting.value
        words = f"{value:g}" if isinstance(value, float) else str(value).lower()
        shown.append(f"{name}: {words}, {where}")
    return f"({'; '.join(shown)})"
